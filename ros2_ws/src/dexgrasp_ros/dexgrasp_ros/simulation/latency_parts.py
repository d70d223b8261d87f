"""Parts of the time from a depth frame to the command that it leads to, from the marks of the nodes."""

from collections.abc import Mapping, Sequence

NODES = ("sim_robot", "perception", "grasp")
"""Nodes that publish ~/marks, with the times of NAMES."""
NAMES = {
    "sim_robot": ("scene", "image_sent"),
    "perception": ("image_received", "points_sent"),
    "grasp": ("points_received", "tick", "command_sent"),
}
"""Names of the times of each node, in their order."""
PARTS = {
    "draw_image": ("scene", "image_sent"),
    "image_transport": ("image_sent", "image_received"),
    "perception": ("image_received", "points_sent"),
    "points_transport": ("points_sent", "points_received"),
    "wait_for_tick": ("points_received", "tick"),
    "tick": ("tick", "command_sent"),
    "image_sent_to_command": ("image_sent", "command_sent"),
    "scene_to_command": ("scene", "command_sent"),
}
"""Part -> first and last of its times."""


def latency_parts(marks: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[float]]:
    """Return the durations [s] of each part, one per command of the policy whose frame has all marks.

    `marks`: messages of each node, stamp of the frame [s] and monotonic times [s].
    """
    first: dict[str, dict[int, dict[str, float]]] = {name: {} for name in NODES}
    for name in NODES[:-1]:
        for stamp_s, *times_s in marks[name]:  # of a held object, points are sent again between frames
            first[name].setdefault(_key(stamp_s), dict(zip(NAMES[name], times_s, strict=True)))
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    for stamp_s, *times_s in marks[NODES[-1]]:
        key, times = _key(stamp_s), dict(zip(NAMES[NODES[-1]], times_s, strict=True))
        if all(key in first[name] for name in NODES[:-1]):
            times |= first[NODES[0]][key] | first[NODES[1]][key]
            for part, (start, end) in PARTS.items():
                found[part].append(times[end] - times[start])
    return found


def _key(stamp_s: float) -> int:
    """Return a stamp in microseconds, the resolution of float seconds."""
    return round(stamp_s * 1e6)
