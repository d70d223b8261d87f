"""Results of goals of the grasp node's actions, from the states of its ticks; without ROS."""

import math

import pytest

from dexgrasp.policies.deploy.policy import Command
from dexgrasp_ros.grasping.goal_progress import EMPTY, FAULT, INTERRUPTED, STOPPED, SUCCEEDED, GoalProgress
from dexgrasp_ros.grasping.types import Output
from dexgrasp_ros.replay.goals import LoggedGoals, ended_text

PERIOD_S = 0.25


def out(state, **values):
    return Output(state, values.pop("fault", ""), None, **values)


def course(goal, outputs):
    """Number of the tick that ends a goal, and its outcome."""
    for number, output in enumerate(outputs):
        if (ended := goal.update(output, 10.0 + number * PERIOD_S)) is not None:
            return number, ended
    return None


def states(text):
    return [out(word) for word in text.split()]


@pytest.mark.parametrize(
    ("action", "ticks", "end"),
    [
        ("grasp", "pregrasp grasp lift hold hold hold hold hold", (7, (SUCCEEDED, ""))),  # held 1 s, from tick 3 on
        ("grasp", "pregrasp hold retreat pregrasp hold hold", None),  # held from tick 4 on
        ("grasp", "pregrasp retreat idle", (2, (EMPTY, "regrasp given up: perception published no plan in time"))),
        ("grasp", "pregrasp home", (1, (INTERRUPTED, "another request began home"))),
        ("grasp", "grasp idle", (1, (INTERRUPTED, "the grasp node was deactivated"))),
        ("home", "home home idle", (2, (SUCCEEDED, ""))),
        ("place", "release release idle", (2, (SUCCEEDED, ""))),
        ("release", "release pregrasp", (1, (INTERRUPTED, "another request began pregrasp"))),
    ],
)
def test_states_end_a_goal(action, ticks, end):
    assert course(GoalProgress(action, hold_s=1.0), states(ticks)) == end


def test_attempts_and_grip_are_those_of_the_ticks():
    goal = GoalProgress("grasp", hold_s=9.0)
    assert math.isnan(goal.grip)
    command = Command([0.0], [0.0] * 3, [1.0, 0.0, 0.0, 0.0], action=[0.0], grip=0.25, object_bottom_m=0.0)
    felt = out("hold", proposal=command)
    ticks = [*states("pregrasp pregrasp grasp retreat pregrasp"), felt, out("hold", hand_is_empty=True)]
    assert course(goal, ticks) == (6, (EMPTY, "the hand is empty after 2 grasps"))
    assert (goal.attempts, goal.grip) == (2, 0.25)


def test_a_stop_and_a_cancelled_goal_differ_from_a_fault():
    assert GoalProgress("home").update(out("fault", fault="late"), 0.0) == (FAULT, "late")
    assert GoalProgress("home").update(out("fault", fault="stopped by request"), 0.0)[0] == STOPPED
    cancelled = GoalProgress("grasp")
    cancelled.cancelled = True
    assert cancelled.update(out("fault", fault="late"), 0.0) == (STOPPED, "late")


def test_logged_goals_end_as_their_ticks_say_and_refused_ones_are_not_judged():
    goals = LoggedGoals()
    for number, action in (("aa" * 16, "home"), ("bb" * 16, "grasp")):
        goals.ask({"action": action, "id": number, "goal": {"hold_s": 1.0} if action == "grasp" else {}})
    goals.begin("aa" * 16)
    for number, output in enumerate(states("home home")):
        goals.tick(output, float(number))
    refused = {"outcome": 1, "message": "no plan", "attempts": 0}
    found, text = goals.end("bb" * 16, "home", "")
    assert found is None and ended_text("bb" * 16, text, refused) == "goal bbbbbbbb: grasp hold_s=1.0: REFUSED no plan"
    assert goals.texts == ["goal aaaaaaaa: home: not ended"]
    found, text = goals.end("aa" * 16, "fault", "emergency stop")  # pressed after the last tick
    assert found == {"outcome": FAULT, "message": "emergency stop", "attempts": 0} and text == "home"
    assert goals.end("aa" * 16, "idle", "")[0] is None and goals.texts == []
