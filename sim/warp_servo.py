"""Controls on the device: MuJoCo's orientation servo, which Warp lacks, out of three servos of a ball joint.

A position servo of each axis makes the torque kp (u - r(q)) - kv w with the rotation vector r of the joint. With
u = r(q) + log(q^-1 q_target), set anew in every substep, that is MuJoCo's kp log(q^-1 q_target) - kv w; where its norm
would exceed the limit, u makes it the limit.
"""

import mujoco
import mujoco_warp as mjw
import warp as wp

from sim.mounts import BALL_KP, BALL_KV, BALL_NAME, BALL_TORQUE_NM


@wp.func
def _rotvec(q: wp.vec4) -> wp.vec3:
    """Rotation vector of a unit quaternion wxyz, as Warp's transmissions have it."""
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
    """a^-1 b of unit quaternions wxyz."""
    return wp.vec4(
        a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3],
        a[0] * b[1] - a[1] * b[0] - a[2] * b[3] + a[3] * b[2],
        a[0] * b[2] + a[1] * b[3] - a[2] * b[0] - a[3] * b[1],
        a[0] * b[3] - a[1] * b[2] + a[2] * b[1] - a[3] * b[0],
    )


@wp.kernel
def _control(  # noqa: ANN202
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    target: wp.array2d[float],
    ball: wp.vec3i,
    gains: wp.vec3,
    ctrl: wp.array2d[float],
):
    world = wp.tid()
    for i in range(target.shape[1]):
        ctrl[world, i] = target[world, i]
    q, v, u = ball[0], ball[1], ball[2]
    now = wp.normalize(wp.vec4(qpos[world, q], qpos[world, q + 1], qpos[world, q + 2], qpos[world, q + 3]))
    goal = wp.vec3(target[world, u], target[world, u + 1], target[world, u + 2])
    half = 0.5 * wp.length(goal)
    sinc = float(0.5)
    if half > 1.0e-8:
        sinc = 0.5 * wp.sin(half) / half
    aim = wp.vec4(wp.cos(half), sinc * goal[0], sinc * goal[1], sinc * goal[2])
    kp, kv, limit = gains[0], gains[1], gains[2]
    damping = kv * wp.vec3(qvel[world, v], qvel[world, v + 1], qvel[world, v + 2])
    torque = kp * _rotvec(_relative(now, aim)) - damping
    torque = torque * wp.min(1.0, limit / wp.max(wp.length(torque), 1.0e-9))
    command = _rotvec(now) + (torque + damping) / kp
    for i in range(3):
        ctrl[world, u + i] = command[i]


class PalmServo:
    """Turns targets, laid out as MuJoCo's own controls, into those of the device model; a callback of every substep."""

    def __init__(self, compiled: mujoco.MjModel, targets: wp.array) -> None:
        """`targets` (env, ctrl): what the controls of the CPU's model would be."""
        self._targets = targets
        joint, servo = compiled.joint(BALL_NAME), compiled.actuator(f"{BALL_NAME}_x").id
        self._ball = wp.vec3i(int(joint.qposadr[0]), int(joint.dofadr[0]), int(compiled.actuator_ctrladr[servo]))
        self._gains = wp.vec3(BALL_KP, BALL_KV, BALL_TORQUE_NM)

    def __call__(self, model: mjw.Model, data: mjw.Data) -> None:
        """Write `data.ctrl`."""
        wp.launch(_control, data.nworld, [data.qpos, data.qvel, self._targets, self._ball, self._gains], [data.ctrl])
