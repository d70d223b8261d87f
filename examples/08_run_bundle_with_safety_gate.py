"""Run an exported policy behind the safety gate, as a robot does; the robot here is ideal and follows every command.

python examples/08_run_bundle_with_safety_gate.py --bundle allegro/student
"""

import argparse

import numpy as np

import dexgrasp
from dexgrasp.deploy import DesiredCommand, MeasuredState, Observation, Policy, PregraspPlan, SafetyGate
from dexgrasp.policies.deploy.shipped import find_bundle


class IdealRobot:
    """Hand and arm that reach each commanded pose within one control period."""

    def __init__(self, plan: PregraspPlan) -> None:
        self.joint_pos, self.palm_pos_w, self.palm_quat_w = plan.joint_pos, plan.palm_pos_w, plan.palm_quat_w
        self.stamp_s = 0.0


def main(bundle: str, stale_from: int) -> None:
    """Run one grasp; from control step `stale_from` on the readings are no longer updated."""
    policy = Policy.load(find_bundle(bundle))  # refused unless hashes and recorded outputs agree
    gate = SafetyGate(policy.contract.hand, policy.rate_hz)

    # On a robot, the plan and the points come from perception; here from the simulated camera.
    env = dexgrasp.make_gym(policy.contract.hand.name, obs="dict")
    obs, _ = env.reset(seed=0)
    plan = PregraspPlan(**{k.removeprefix("pregrasp_"): v for k, v in obs.items() if k.startswith("pregrasp_")})
    robot, points_w = IdealRobot(plan), obs["points_w"]

    policy.reset(plan)
    gate.reset(robot.joint_pos, robot.palm_pos_w, robot.palm_quat_w, now_s=0.0)
    for step in range(60):
        now_s = step / policy.rate_hz
        if step < stale_from:
            robot.stamp_s = now_s
        command = policy.act(Observation(robot.joint_pos, robot.palm_pos_w, robot.palm_quat_w, points_w))
        wanted = DesiredCommand(command.joint_target, command.palm_pos_w, command.palm_quat_w, now_s)
        sensed = MeasuredState(robot.joint_pos, robot.palm_pos_w, robot.palm_quat_w, robot.stamp_s)
        safe = gate(wanted, sensed, now_s)
        if safe.fault:
            print(f"step {step}: held: {safe.fault}")
            break
        robot.joint_pos, robot.palm_pos_w, robot.palm_quat_w = safe.joint_target, safe.palm_pos_w, safe.palm_quat_w
    moved_m = np.linalg.norm(np.subtract(robot.palm_pos_w, plan.palm_pos_w))
    print(f"{step + 1} control steps, palm moved {moved_m:.3f} m, grip confidence {float(command.grip):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="allegro/student", help="shipped student or folder of a bundle")
    parser.add_argument("--stale-from", type=int, default=1000, help="control step from which readings are not updated")
    given = parser.parse_args()
    main(given.bundle, given.stale_from)
