"""Joint (wave) test of a hand, without rclpy."""
