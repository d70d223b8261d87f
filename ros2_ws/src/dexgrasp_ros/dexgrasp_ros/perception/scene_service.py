"""Service `~/check_scene` of perception: what the camera sees against what policies were trained for.

`message` holds a line for each property: ok, warn or bad, its name, the measured value and, where it is not ok, what to
do. `success` is false where one is bad, or where nothing can be checked.
"""

from collections.abc import Callable

from rclpy.node import Node
from rclpy.service import Service
from std_srvs.srv import Trigger

from dexgrasp.perception.segmentation.scene_items import scene_items
from dexgrasp_ros.perception.state_machine import PerceptionStateMachine

NEW_S = 2.0
"""Age of the newest frame from which there is none [s]."""


def scene_report(machine: PerceptionStateMachine, now_s: float) -> tuple[bool, str]:
    """Return whether nothing is bad in the newest frame of perception, and a line for each property."""
    if not machine.collecting_first_view:
        return False, f"the hand is at the object (state {machine.state}): check the scene in idle"
    frame = machine.newest_frame
    if frame is None or now_s - frame.stamp_s > NEW_S:
        return False, f"no depth image came within {NEW_S:g} s: is the camera running, and are its topics right?"
    items = scene_items(frame, list(machine.stamps_s), machine.segment)
    lines = [f"{item.light}: {item.name}: {item.measured}{item.advice and '; '}{item.advice}" for item in items]
    return all(item.light != "bad" for item in items), "\n".join(lines)


def serve_check_scene(node: Node, report: Callable[[], tuple[bool, str]]) -> Service:
    """Offer the service `~/check_scene`."""

    def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = report()
        return response

    return node.create_service(Trigger, "~/check_scene", answer)
