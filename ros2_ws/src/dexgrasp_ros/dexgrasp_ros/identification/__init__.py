"""System identification of a hand, without rclpy."""
