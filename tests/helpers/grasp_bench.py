"""A grasp node under test, everything it says, and what perception would tell it."""

import numpy as np
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import read_contract
from dexgrasp.policies.deploy.policy import PregraspPlan
from dexgrasp_ros import config, message_conversions
from dexgrasp_ros.message_conversions import estimate_message
from dexgrasp_ros.nodes.grasp_node import GraspNode
from dexgrasp_ros.object_estimate import ObjectEstimate
from tests.helpers.ros import LATCHED, SENSOR

BUNDLE = str(assets.path("policies/allegro/student/bundle"))
CONTRACT = read_contract(BUNDLE)
HAND, ARM = "/hand_controller/commands", "/scaled_joint_trajectory_controller/joint_trajectory"
DOWN = [0.5**0.5, 0.0, 0.5**0.5, 0.0]
GOAL = [0.05, 0.05, 0.26]
QUICK = {
    "grasp.attempts": 1,
    "grasp.motion.palm_speed_m_s": 0.3,
    "grasp.motion.palm_speed_rad_s": 1.5,
    "grasp.motion.transit_height_m": 0.32,
    "arm_speed": 0.8,
    "settle_s": 0.0,
    "safety.joints_timeout_s": 30.0,
    "clock_timeout_s": 30.0,
    "safety.points_timeout_s": 30.0,
    "grasp.late_periods": 600.0,
}
"""The way to the pre-grasp in two seconds; patience with a machine that does other things as well."""


class Bench:
    """A grasp node in this process, everything it says, and what perception would tell it."""

    def __init__(self, ros, robot, folder):
        self.ros, self.folder = ros, folder
        self.plan_id = self.held_id = "7"
        """Id of the plan that is sent, and of the one that perception holds."""
        self.refusal, self.begun = "", 0
        """Why perception refuses the plan, and how often it was asked."""
        self.times = ros.listen(Clock, "/clock", SENSOR)
        self.joints = ros.listen(JointState, "/joint_states", SENSOR)
        self.states = ros.listen(String, "/grasp/state", LATCHED)
        self.hand, self.arm = ros.listen(Float64MultiArray, HAND), ros.listen(JointTrajectory, ARM)
        self.reports = ros.listen(DiagnosticArray, "/diagnostics")
        ros.until(lambda: self.joints and self.times, f"the robot: {robot.text()}")

    def relayed(self):
        """Descriptions whose hand reports on a topic of its own, to which the test carries what the robot says."""
        names = CONTRACT.hand.joint_names
        hand = yaml.safe_load(config("hands/sim_allegro.yaml").read_text())
        hand["state"]["topic"] = "/hand_states"
        arm = yaml.safe_load(config("arms/sim_ur5e.yaml").read_text())
        arm["state"]["ignore"] = names
        relay = self.ros.node.create_publisher(JointState, "/hand_states", SENSOR)
        self.relaying = True

        def carry(message):
            found = message_conversions.joints_from_message(message)
            stamp_s = message_conversions.seconds(message.header.stamp)
            if self.relaying:
                relay.publish(message_conversions.joint_message(names, [found[name] for name in names], stamp_s))

        self.ros.node.create_subscription(JointState, "/joint_states", carry, SENSOR)
        paths = {"hand": self.folder / "hand.yaml", "arm": self.folder / "arm.yaml"}
        for kind, text in (("hand", hand), ("arm", arm)):
            paths[kind].write_text(yaml.safe_dump(text))
        return {kind: str(path) for kind, path in paths.items()}

    def start(self, active=True, **parameters):
        given = {"bundle": BUNDLE, "use_sim_time": True, **QUICK, **parameters}
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        node = self.ros.add(GraspNode(context=self.ros.context, parameter_overrides=overrides))
        if active:
            self.ros.until(lambda: node.timing.percentiles_ms(), "the first tick")
        return node

    @property
    def now_s(self):
        return message_conversions.seconds(self.times[-1].clock)

    @property
    def state(self):
        return self.states[-1].data if self.states else None

    def ask(self, name):
        return self.ros.call(Trigger, f"/grasp/{name}")

    def perceive(self):
        """Publishes a plan and points, fresh, at 20 Hz of simulated time, and confirms the plan."""

        def confirm(_, response):
            self.begun += 1
            response.success, response.message = not self.refusal, self.refusal or self.held_id
            return response

        plans = self.ros.node.create_publisher(Float64MultiArray, "/perception/plan", 1)
        clouds = self.ros.node.create_publisher(PointCloud2, "/perception/points", 1)
        style = CONTRACT.grasp.power
        what = PregraspPlan(GOAL, DOWN, 0.08, style.closing, style.floor_m, style.open_pose)
        rng = np.random.default_rng(0)
        some = rng.uniform([0.02, 0.02, 0.0], [0.08, 0.08, 0.06], (256, 3)).astype(np.float32)

        def publish():
            if self.times:
                plans.publish(message_conversions.plan_message(what, self.now_s, int(self.plan_id)))
                clouds.publish(estimate_message(ObjectEstimate(some, stamp_s=self.now_s), "world"))

        self.ros.node.create_service(Trigger, "/perception/begin", confirm)
        timer = self.ros.node.create_timer(0.05, publish)
        self.ros.until(lambda: plans.get_subscription_count() and clouds.get_subscription_count(), "the node's ears")
        self.ros.spin(0.3)
        return timer

    def report(self, name, level=message_conversions.OK):
        """The newest report of that name and level, as its text and values."""
        self.reports.clear()

        def found():
            return [s for m in self.reports for s in m.status if (s.name, s.level) == (name, level)]

        self.ros.until(found, f"a report of {name}")
        status = found()[-1]
        return status.message, {item.key: item.value for item in status.values}

    def measured(self):
        """The newest positions of the fingers in the contract's order."""
        found = message_conversions.joints_from_message(self.joints[-1])
        return np.array([found[name] for name in CONTRACT.hand.joint_names])
