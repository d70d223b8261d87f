"""Logic of the grasp node, without rclpy."""
