"""Recorder alone; bag:= chooses the folder. Give robot:=real on a real robot."""

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = {"nodes": "record"}
"""Values that this file fixes; all other arguments of grasp.launch.py are given on the command line."""


def generate_launch_description() -> LaunchDescription:
    """Include the launch file of dexgrasp_ros with these arguments."""
    whole = PathJoinSubstitution([FindPackageShare("dexgrasp_ros"), "launch", "grasp.launch.py"])
    source = PythonLaunchDescriptionSource(whole)
    return LaunchDescription([IncludeLaunchDescription(source, launch_arguments=ARGUMENTS.items())])
