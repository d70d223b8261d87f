"""Warp kernels: palm servo and overflow counters.

The palm servo replaces MuJoCo's orientation servo, which Warp lacks, by three position servos of a ball joint. A
position servo of each axis makes the torque kp (u - r(q)) - kv w with the rotation vector r of the joint. With u = r(q)
+ log(q^-1 q_target), set anew in every substep, that is MuJoCo's kp log(q^-1 q_target) - kv w. Where its norm exceeds
the limit, the limit of each servo is set to its component of the limited torque; the servo is then saturated, and as in
MuJoCo the integrator takes neither its stiffness nor its damping into account.
"""


# The types of kernel code are Warp's, not Python's.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false

import mujoco
import mujoco_warp as mjw
import warp as wp
from mujoco_warp._src.types import vec10

from dexgrasp.sim.robots.mount import BALL_NAME, BALL_TORQUE_NM

wp.config.log_level = wp.LOG_WARNING  # not every kernel that is loaded


@wp.kernel
def record_peaks(nefc: wp.array[int], nacon: wp.array[int], ncollision: wp.array[int], peaks: wp.array[int]) -> None:
    """Raise `peaks` to the constraint rows of a world, and to contacts and pairs of all of them."""
    world = wp.tid()
    wp.atomic_max(peaks, 0, nefc[world])
    if world == 0:
        wp.atomic_max(peaks, 1, nacon[0])
        wp.atomic_max(peaks, 2, ncollision[0])


@wp.func
def _rotvec(q: wp.vec4) -> wp.vec3:
    """Return the rotation vector of a unit quaternion wxyz, as Warp's transmissions have it."""
    axis = wp.vec3(q[1], q[2], q[3])
    sine = wp.length(axis)
    if sine == 0.0:
        return wp.vec3(0.0)
    angle = 2.0 * wp.atan2(sine, q[0])
    if angle > wp.pi:
        angle -= 2.0 * wp.pi
    return axis * (angle / sine)


@wp.func
def _relative(a: wp.vec4, b: wp.vec4) -> wp.vec4:
    """Return a^-1 b of unit quaternions wxyz."""
    return wp.vec4(
        a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3],
        a[0] * b[1] - a[1] * b[0] - a[2] * b[3] + a[3] * b[2],
        a[0] * b[2] + a[1] * b[3] - a[2] * b[0] - a[3] * b[1],
        a[0] * b[3] - a[1] * b[2] + a[2] * b[1] - a[3] * b[0],
    )


@wp.kernel
def control(
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    target: wp.array2d[float],
    ball: wp.vec4i,
    limit: float,
    gainprm: wp.array2d[vec10],
    biasprm: wp.array2d[vec10],
    ctrl: wp.array2d[float],
    forcerange: wp.array2d[wp.vec2],
) -> None:
    """Write the controls `ctrl` (world, u) of the device model from targets (world, u).

    Targets have the layout of MuJoCo's own model.

    `ball`: addresses of the palm's ball joint in qpos and in qvel, of its controls, and of its actuators; `limit`: of
    the norm of its torque, from which `forcerange` (world, actuator) follows.
    """
    world = wp.tid()
    for i in range(target.shape[1]):
        ctrl[world, i] = target[world, i]
    q, v, u, actuator = ball[0], ball[1], ball[2], ball[3]
    now = wp.normalize(wp.vec4(qpos[world, q], qpos[world, q + 1], qpos[world, q + 2], qpos[world, q + 3]))
    goal = wp.vec3(target[world, u], target[world, u + 1], target[world, u + 2])
    half = 0.5 * wp.length(goal)
    sinc = float(0.5)  # noqa: UP018 - a variable of the kernel, no constant
    if half > 1.0e-8:
        sinc = 0.5 * wp.sin(half) / half
    aim = wp.vec4(wp.cos(half), sinc * goal[0], sinc * goal[1], sinc * goal[2])
    kp, kv = gainprm[world, actuator][0], -biasprm[world, actuator][2]
    damping = kv * wp.vec3(qvel[world, v], qvel[world, v + 1], qvel[world, v + 2])
    torque = kp * _rotvec(_relative(now, aim)) - damping
    share = wp.min(1.0, limit / wp.max(wp.length(torque), 1.0e-9))
    command = _rotvec(now) + (torque + damping) / kp
    for i in range(3):
        ctrl[world, u + i] = command[i]
        most = limit
        if share < 1.0:
            most = share * wp.abs(torque[i])
        forcerange[world, actuator + i] = wp.vec2(-most, most)


class PalmServo:
    """Converts targets in MuJoCo's control layout to controls of the device model.

    Called in every substep.
    """

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
