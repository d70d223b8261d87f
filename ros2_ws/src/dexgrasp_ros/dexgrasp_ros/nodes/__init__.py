"""ROS nodes, one executable per module."""
