"""What the policy can know: geometry, hand-centric features, points from a camera. One implementation for all uses."""
