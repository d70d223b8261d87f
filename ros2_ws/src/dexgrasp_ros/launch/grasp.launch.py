"""Launch file of a grasping robot: `ros2 launch dexgrasp_ros grasp.launch.py --show-args` lists the arguments."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from dexgrasp_ros import launch_arguments
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

RESPAWN_DELAY_S = 2.0


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start nodes from them."""
    arguments = [
        DeclareLaunchArgument(
            item.name, default_value=item.default, description=item.description, choices=list(item.choices) or None
        )
        for item in launch_arguments.ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_nodes)])


def start_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Set the transport and start the nodes for the given arguments."""
    given = {item.name: LaunchConfiguration(item.name).perform(context) for item in launch_arguments.ARGUMENTS}
    params = [given["params"]] if given["params"] else []
    variables = [SetEnvironmentVariable(name, value) for name, value in launch_arguments.environment(given).items()]
    nodes = [
        Node(
            package="dexgrasp_ros",
            executable=item.executable,
            name=item.name,
            namespace=item.namespace,
            remappings=list(item.remappings),
            parameters=[item.parameters, *params],
            output="screen",
            emulate_tty=True,
            respawn=item.respawn,
            respawn_delay=RESPAWN_DELAY_S,
            on_exit=None if item.respawn else Shutdown(reason=f"{item.name} has ended"),
        )
        for item in launch_arguments.nodes(given)
    ]
    return [*variables, *nodes]
