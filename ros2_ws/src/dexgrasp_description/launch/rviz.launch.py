"""RViz with the layout of a grasping robot; `namespace:=` chooses one of several robots."""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Start RViz in the namespace of a robot; its topics are relative."""
    layout = PathJoinSubstitution([FindPackageShare("dexgrasp_description"), "rviz", "grasp.rviz"])
    frame = LaunchConfiguration("fixed_frame")
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the robot."),
            DeclareLaunchArgument("fixed_frame", default_value="world", description="Frame in which all is drawn."),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=LaunchConfiguration("namespace"),
                arguments=["-d", layout, "-f", frame],
                parameters=[{"use_sim_time": False}],
                output="screen",
            ),
        ]
    )
