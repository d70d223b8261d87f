"""Trials of the scripted grasp on simple objects in fixed places, in a fraction of a second each.

They show what no measure of the open hand does: whether thumb and fingers meet on an object, and whether it stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.mount import BALL_NAME, SLIDE_NAMES, attach
from dexgrasp.sim.task.scripted_grasp import ScriptedGraspCfg

Array = NDArray[np.float64]

MASS_KG, FRICTION, TABLE_FRICTION = 0.3, 0.6, 0.3
"""Of the objects, and of the table with them."""
BOX, CYLINDER, SPHERE = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_SPHERE
OBJECTS = {
    "power": (
        (BOX, (0.025, 0.03, 0.045), 0.045),
        (CYLINDER, (0.03, 0.045, 0.0), 0.045),
        (SPHERE, (0.035, 0.0, 0.0), 0.035),
    ),
    "pinch": (
        (BOX, (0.02, 0.045, 0.0125), 0.0125),
        (CYLINDER, (0.03, 0.015, 0.0), 0.015),
        (SPHERE, (0.018, 0.0, 0.0), 0.018),
    ),
}
"""Kind, half sizes and half height [m] of the objects of each grasp style; x of a box lies along the fingers."""
ASIDE_M = ((0.0, 0.0), (0.005, 0.01), (-0.01, -0.005))
"""Places of the object beside the planned one, along z and y of the palm."""
HAND_BITS, OBJECT = 0xFFFF, 1 << 30
"""Collision bits of the hand's model that are kept, and the bit of object and table."""
STEP_S, STEPS = 0.004, 12
CONTROL_S = STEPS * STEP_S
APPROACH_S, CLOSE_S, LIFT_S, HOLD_S, APPROACH_M, LIFT_M = 0.4, 1.0, 0.6, 0.4, 0.06, 0.12
SCRIPT = ScriptedGraspCfg()
"""Scripted grasp; a hand gives the height of its keypoints."""
PALM_DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""Orientation of the palm frame in the world: its normal points down, the fingers along +x."""


@dataclass(frozen=True)
class Grip:
    """Result of one trial."""

    held: bool
    """Whether the object is in the hand after the lift."""
    thumb_n: float
    """Force of the thumb on the object before the lift [N]."""
    fingers_n: float
    """Sum of the forces of the other fingers [N]."""


def grips(hand: HandSpec, name: str, styles: Sequence[GraspStyle]) -> list[list[Grip]]:
    """Return the trials of each style: each object of the power or pinch grasp (`name`) at each place."""
    found: list[list[Grip]] = [[] for _ in styles]
    for kind, size, half in OBJECTS[name]:
        trial = _Trial(hand, kind, size, half)
        for trials, style in zip(found, styles, strict=True):
            trials += [trial.run(style, np.array([*aside, 0.0])) for aside in ASIDE_M]
    return found


class _Trial:
    """A hand on the servos of a floating mount, above an object on a table."""

    def __init__(self, hand: HandSpec, kind: int, size: tuple[float, ...], half: float) -> None:
        self.hand, self._half = hand, half
        self._keypoint_floor_m = SCRIPT.keypoint_floor_fingers * hand.finger_m
        turn = PALM_DOWN @ hand.palm_axes
        self._quat, self._rotvec = np.empty(4), np.empty(3)
        mujoco.mju_mat2Quat(self._quat, turn.ravel())
        mujoco.mju_quat2Vel(self._rotvec, self._quat, 1.0)
        self._palm_w = turn @ hand.palm_pos_b
        """From the hand base to the palm centre, world axes."""
        self.model = _model(hand, kind, size)
        self._data = mujoco.MjData(self.model)
        self._joints = [int(self.model.joint(name).qposadr[0]) for name in hand.joint_names]
        self._slides = [int(self.model.joint(name).qposadr[0]) for name in SLIDE_NAMES]
        self._ball = int(self.model.joint(BALL_NAME).qposadr[0])
        self._object = self.model.body("object").id
        self._free = int(self.model.joint("object").qposadr[0])
        self._keypoints = [self.model.site(name).id for name in hand.keypoint_names]
        self._of_thumb = self._bodies_of_thumb()

    def _bodies_of_thumb(self) -> NDArray[np.bool_]:
        """Return which bodies are named in thumb_bodies, or carried by one (body,)."""
        thumb = np.zeros(self.model.nbody, dtype=bool)
        thumb[[self.model.body(name).id for name in self.hand.thumb_bodies]] = True
        for body in range(1, self.model.nbody):
            thumb[body] |= thumb[self.model.body_parentid[body]]
        return thumb

    def run(self, style: GraspStyle, aside: Array) -> Grip:
        """Approach, close, lift, hold."""
        data, model, hand = self._data, self.model, self.hand
        deepest = float(style.gap_m) + 2 * self._half
        height, forces = max(deepest, float(style.floor_m)) + APPROACH_M, (0.0, 0.0)
        base = np.array([0.0, 0.0, height]) - self._palm_w
        place = np.array([float(style.offset_z_m), float(style.offset_y_m), self._half]) + aside
        mujoco.mj_resetData(model, data)
        data.qpos[self._joints] = style.open_pose.numpy()
        data.qpos[self._slides], data.qpos[self._ball : self._ball + 4] = base, self._quat
        data.qpos[self._free : self._free + 3] = place
        mujoco.mj_forward(model, data)
        for step in range(round((APPROACH_S + CLOSE_S + LIFT_S + HOLD_S) / CONTROL_S)):
            now_s = (step + 0.5) * CONTROL_S - APPROACH_S
            lead = SCRIPT.close_rad * style.closing.numpy()
            if now_s < 0.0:
                height, lead = height - APPROACH_M * CONTROL_S / APPROACH_S, 0.0
            elif now_s < CLOSE_S:
                height, forces = max(height - self._sinking(), deepest - SCRIPT.sink_m), self._forces()
            elif now_s < CLOSE_S + LIFT_S:
                height += LIFT_M * CONTROL_S / LIFT_S
            base[2] = height - self._palm_w[2]
            fingers = hand.motors.positions(data.qpos[self._joints]) + lead
            data.ctrl[:] = [*base, *self._rotvec, *np.clip(fingers, hand.motor_lower, hand.motor_upper)]
            mujoco.mj_step(model, data, STEPS)
        lifted = float(data.qpos[self._free + 2] - place[2])
        return Grip(held=lifted > 0.6 * LIFT_M, thumb_n=forces[0], fingers_n=forces[1])

    def _sinking(self) -> float:
        """Return the advance of the palm in one control step while the fingers close [m]."""
        lowest = float(self._data.site_xpos[self._keypoints, 2].min())
        limit = SCRIPT.sink_speed_m_s * CONTROL_S
        return float(np.clip(SCRIPT.sink_gain_hz * CONTROL_S * (lowest - self._keypoint_floor_m), -limit, limit))

    def _forces(self) -> tuple[float, float]:
        """Return the normal forces of thumb and fingers on the object [N]."""
        of_thumb, of_fingers, force = 0.0, 0.0, np.zeros(6)
        for i, contact in enumerate(self._data.contact):
            bodies = self.model.geom_bodyid[contact.geom]
            if self._object not in bodies:
                continue
            other = int(bodies[0] if bodies[1] == self._object else bodies[1])
            mujoco.mj_contactForce(self.model, self._data, i, force)
            if self._of_thumb[other]:
                of_thumb += float(force[0])
            elif other and self.model.body(other).name != "palm":
                of_fingers += float(force[0])
        return of_thumb, of_fingers


def _model(hand: HandSpec, kind: int, size: tuple[float, ...]) -> mujoco.MjModel:
    """Return the scene of hand, object and table."""
    spec = mujoco.MjSpec()
    attach(spec, hand, "floating")
    option = spec.option
    option.timestep, option.integrator = STEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 5.0
    for geom in spec.geoms:
        if geom.contype or geom.conaffinity:
            geom.contype &= HAND_BITS
            geom.conaffinity = geom.conaffinity & HAND_BITS | OBJECT
            geom.priority = 0
    body = spec.worldbody.add_body(name="object")
    body.add_freejoint(name="object")
    touches = {"contype": OBJECT, "conaffinity": HAND_BITS | OBJECT, "condim": 4, "solref": [0.008, 1]}
    body.add_geom(type=kind, size=size, mass=MASS_KG, friction=[FRICTION, 0.01, 0.0005], priority=1, **touches)
    plane = {"type": mujoco.mjtGeom.mjGEOM_PLANE, "size": [1, 1, 0.1], "friction": [TABLE_FRICTION, 0.005, 0.0001]}
    spec.worldbody.add_geom(name="table", priority=2, **plane, **touches)
    return spec.compile()
