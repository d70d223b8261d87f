"""The emergency stop without the grasp node: levels of several publishers, and what counts as a press."""

import time

import pytest

pytest.importorskip("rclpy", reason="needs the extra `ros`")

from rclpy.qos import QoSProfile
from std_msgs.msg import Bool

from dexgrasp_ros.grasping.attributed_subscription import AttributedSubscription, Publication
from dexgrasp_ros.grasping.emergency_stop import LEFT_AFTER_S, PRESSED, EmergencyStop, EmergencyStopTopic
from tests.helpers.ros import LATCHED, RELIABLE, SENSOR

pytestmark = pytest.mark.ros
BUTTON, PANEL = b"button", b"panel"


class Levels:
    """The levels of two nodes; `say` takes the next message of one of them, as both queues deliver it."""

    def __init__(self, numbered=True):
        self.live = {BUTTON: "node /button", PANEL: "node /panel"}
        self.stop = EmergencyStop("/estop", lambda: self.live)
        self.numbers, self.numbered, self.now_s = {BUTTON: 0, PANEL: 0}, numbered, 0.0

    def say(self, who, pressed, queue="all"):
        self.numbers[who] += 1
        return self.again(who, pressed, queue)

    def again(self, who, pressed, queue="latched"):
        return self.stop.update(
            queue, pressed, Publication(who, self.numbers[who] if self.numbered else None), self.now_s
        )


@pytest.mark.parametrize("numbered", [True, False])
def test_all_publishers_must_release_before_a_reset(numbered):
    levels = Levels(numbered)
    assert levels.say(BUTTON, False) == ""
    assert levels.say(BUTTON, True) == PRESSED
    for _ in range(100):
        assert levels.say(PANEL, False) == ""
    assert levels.stop.latched
    assert levels.stop.reset() == "the emergency stop is pressed by node /button"
    assert levels.say(PANEL, True) == ""  # already stopped
    assert levels.say(BUTTON, False) == ""
    assert levels.stop.reset() == "the emergency stop is pressed by node /panel"
    levels.say(PANEL, False)
    assert levels.stop.latched and levels.stop.reset() == ""
    assert not levels.stop.latched
    assert levels.say(BUTTON, True) == PRESSED


def test_a_message_that_arrives_in_both_queues_counts_once():
    levels = Levels()
    assert levels.say(BUTTON, True) == PRESSED
    levels.say(BUTTON, False)
    assert levels.stop.reset() == ""
    levels.numbers[BUTTON] = 1
    assert levels.again(BUTTON, True) == ""  # the slower queue
    levels.numbers[BUTTON] = 2
    assert levels.again(BUTTON, False) == ""
    assert not levels.stop.latched
    levels.numbers[BUTTON] = 3
    assert levels.again(BUTTON, True) == PRESSED  # the slower queue was the faster one this time


def test_a_message_that_was_lost_counts_as_a_press():
    levels = Levels()
    levels.say(BUTTON, False)
    levels.numbers[BUTTON] += 1  # one was sent and did not arrive
    assert levels.say(BUTTON, False).endswith("messages of /estop were lost, which may have said true")
    assert levels.stop.reset() == ""


def test_the_press_of_a_publisher_that_has_left_ends_with_the_next_false_of_another():
    levels = Levels()
    levels.say(BUTTON, True)
    del levels.live[BUTTON]
    levels.say(PANEL, False)  # the graph may not know the button yet
    assert levels.stop.reset() == "the emergency stop is pressed by a publisher that has left: publish false on /estop"
    levels.now_s += LEFT_AFTER_S + 0.1
    assert levels.stop.reset() != ""
    levels.say(PANEL, False)
    assert levels.stop.reset() == ""


def test_the_publisher_that_was_silent_for_longest_is_named():
    levels = Levels()
    levels.say(BUTTON, False)
    levels.now_s = 0.2
    levels.say(PANEL, False)
    assert levels.stop.silent(0.25, 0.3) == ""
    assert levels.stop.silent(0.35, 0.3) == "emergency stop: /estop was not heard of node /button for 0.35 s"
    del levels.live[BUTTON]
    levels.stop.forget_absent()
    assert levels.stop.silent(0.35, 0.3) == ""


def test_a_subscription_tells_the_publishers_apart_as_the_graph_does(ros):
    taken = []
    subscription = AttributedSubscription(ros.node, "/estop", QoSProfile(depth=100), lambda *it: taken.append(it))
    one, other = ros.publisher(Bool, "/estop", RELIABLE), ros.publisher(Bool, "/estop", LATCHED)
    for i in range(3):
        one.publish(Bool(data=i == 1))
        other.publish(Bool(data=i == 2))
    ros.until(lambda: len(taken) == 6, "the messages")
    by_source = {}
    for value, publication in taken:
        by_source.setdefault(publication.publisher, []).append((value, publication.sequence))
    said = [[(False, 1), (True, 2), (False, 3)], [(False, 1), (False, 2), (True, 3)]]
    assert sorted(by_source.values()) == sorted(said)
    ros.until(lambda: len(ros.node.get_publishers_info_by_topic("/estop")) == 2, "the graph")
    graph = {bytes(info.endpoint_gid) for info in ros.node.get_publishers_info_by_topic("/estop")}
    assert set(by_source) == graph
    subscription.destroy()


def test_a_required_emergency_stop_needs_a_reliable_publisher_that_stays(ros):
    reasons = []
    topic = EmergencyStopTopic(ros.node, "/estop", reasons.append, required=True, timeout_s=0.0)
    assert topic.missing() == "nobody publishes on /estop: start the emergency stop, or set require_estop:=false"
    weak = ros.publisher(Bool, "/estop", SENSOR, subscribers=0)
    ros.until(lambda: "are best effort" in topic.missing(), "the weak publisher")
    ros.node.destroy_publisher(weak)
    buttons = [ros.publisher(Bool, "/estop", qos) for qos in (RELIABLE, LATCHED)]
    ros.until(lambda: topic.missing() == "" and topic._all.publishers == 2, "both buttons")
    topic.start()
    topic.check()
    assert not reasons
    ros.node.destroy_publisher(buttons[1])
    ros.until(lambda: topic.check() or reasons, "that it is noticed")
    assert reasons == ["emergency stop: a publisher of /estop has left, 1 remain"]
    topic.destroy()


def test_a_publisher_that_falls_silent_stops_where_a_heartbeat_is_demanded(ros):
    reasons = []
    topic = EmergencyStopTopic(ros.node, "/estop", reasons.append, required=True, timeout_s=0.3)
    button = ros.publisher(Bool, "/estop", RELIABLE)
    ros.until(lambda: "demands a heartbeat" in topic.missing(), "that none was heard")
    beats = ros.node.create_timer(0.05, lambda: button.publish(Bool(data=False)))
    ros.until(lambda: topic.missing() == "", "the heartbeat")
    topic.start()
    end_s = time.monotonic() + 0.5
    while time.monotonic() < end_s:
        ros.spin(0.02)
        topic.check()
    time.sleep(0.5)  # this process, not the button, was busy: its messages are here
    button.publish(Bool(data=False))
    topic.check()
    assert not reasons
    beats.cancel()
    silent_s = time.monotonic()
    ros.until(lambda: topic.check() or reasons, "that the silence is noticed")
    assert time.monotonic() - silent_s < 1.0
    assert reasons[0].startswith("emergency stop: /estop was not heard of node /peer for 0.3")
    topic.destroy()
