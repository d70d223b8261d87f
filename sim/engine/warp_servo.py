"""Palm servo on the device: MuJoCo's orientation servo, which Warp lacks, from three servos of a ball joint.

A position servo of each axis makes the torque kp (u - r(q)) - kv w with the rotation vector r of the joint. With
u = r(q) + log(q^-1 q_target), set anew in every substep, that is MuJoCo's kp log(q^-1 q_target) - kv w. Where its norm
exceeds the limit, each servo's own limit becomes its part of the limited torque; then it is at its limit, and as in
MuJoCo the integrator sees neither its stiffness nor its damping.
"""

import mujoco
import mujoco_warp as mjw
import warp as wp

from dexgrasp.sim.engine.warp_kernels import control
from dexgrasp.sim.robots.mount import BALL_NAME, BALL_TORQUE_NM


class PalmServo:
    """Turns targets, laid out as MuJoCo's own controls, into those of the device model; a callback of every substep."""

    def __init__(self, compiled: mujoco.MjModel, targets: wp.array) -> None:
        """`targets` (env, ctrl): controls in the layout of the CPU engine's model."""
        self._targets = targets
        joint, servo = compiled.joint(BALL_NAME), compiled.actuator(f"{BALL_NAME}_x").id
        first = int(compiled.actuator_ctrladr[servo])
        self._ball = wp.vec4i(int(joint.qposadr[0]), int(joint.dofadr[0]), first, servo)

    def __call__(self, model: mjw.Model, data: mjw.Data) -> None:
        """Write `data.ctrl`, and the limits of the servos."""
        inputs = [data.qpos, data.qvel, self._targets, self._ball, BALL_TORQUE_NM]
        inputs += [model.actuator_gainprm, model.actuator_biasprm]
        wp.launch(control, data.nworld, inputs, [data.ctrl, model.actuator_forcerange])
