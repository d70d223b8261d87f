"""Logic of the perception node, without rclpy."""
