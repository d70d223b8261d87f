"""Parts of the latency, by hand."""

import pytest

from dexgrasp_ros.simulation.latency_parts import PARTS, latency_parts


def test_marks_are_joined_by_the_stamp_of_the_frame():
    marks = {
        "sim_robot": [(5.0, 100.000, 100.014), (5.033333, 100.033, 100.047)],
        "perception": [(5.0, 100.015, 100.030), (5.0, 100.018, 100.044), (5.033333, 100.050, 100.064)],
        "grasp": [
            (5.0, 100.031, 100.040, 100.046),
            (5.0333331, 100.065, 100.065, 100.070),  # stamps agree to the microsecond
            (9.0, 100.3, 100.3, 100.3),  # of a frame whose other marks were not received
        ],
    }
    found = {name: [round(1e3 * value, 3) for value in values] for name, values in latency_parts(marks).items()}
    assert found == {
        "draw_image": [14, 14],
        "image_transport": [1, 3],
        "perception": [15, 14],
        "points_transport": [1, 1],
        "wait_for_tick": [9, 0],
        "tick": [6, 5],
        "image_sent_to_command": [32, 23],
        "scene_to_command": [46, 37],
    }
    steps = list(PARTS)[:6]
    for i in range(2):
        assert sum(found[name][i] for name in steps) == pytest.approx(found["scene_to_command"][i])


def test_without_marks_there_are_no_parts():
    assert latency_parts({"sim_robot": [], "perception": [], "grasp": []}) == {name: [] for name in PARTS}
