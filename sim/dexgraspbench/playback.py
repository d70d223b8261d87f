"""Play a grasp under the rule of DexGraspBench: a free object is pulled along six axes in turn.

The object weighs 0.1 kg. The hand follows a goal pose through pregrasp, grasp and squeeze, without gravity. Then 1 N
pulls the object for 2 s, along each axis in both directions, each time from the squeeze on. The grasp succeeds where no
pull moves the object by 5 cm or turns it by 15 degrees, and where nothing overlaps by more than 1 cm at the pregrasp.
"""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from dexgrasp.sim.dexgraspbench.grasp_files import Grasp
from dexgrasp.sim.robots.models.model_reader import read_model
from dexgrasp.sim.scene import PhysicsCfg, jacobian_form
from dexgrasp.utils.readers import read_json_object, reading

MASS_KG, PULL_N, PULL_S, CHECK_S = 0.1, 1.0, 2.0, 0.2
"""Mass of every object, force and length of a pull, and time between two looks at the object."""
FRICTION = (0.6, 0.02)
"""Sliding friction, and torsional friction [m]."""
MOST_M, MOST_DEG, MOST_OVERLAP_M = 0.05, 15.0, 0.01
"""Displacement and turn of the object that a grasp may not reach, and largest overlap at the pregrasp."""
STAGE_S, STAGE_TARGETS = 0.4, 10
"""Length of a motion from one stage to the next, and its number of intermediate targets."""
PULLS = tuple(tuple(sign * PULL_N * (i == k) for k in range(3)) for i in range(3) for sign in (-1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Solver:
    """Numbers of the physics that the rule leaves open."""

    timestep_s: float
    noslip_iterations: int
    hand_solref: tuple[float, float]
    hand_solimp: tuple[float, float, float]
    object_solref: tuple[float, float]
    object_solimp: tuple[float, float, float]


OURS = PhysicsCfg()
SOLVERS = {
    "reference": Solver(
        timestep_s=OURS.timestep_s,
        noslip_iterations=0,
        hand_solref=(OURS.contact_time_s, 1.0),
        hand_solimp=(0.95, 0.99, 0.001),
        object_solref=(OURS.contact_time_s, 1.0),
        object_solimp=(0.95, 0.99, 0.001),
    ),
    "dexgraspbench": Solver(
        timestep_s=0.004,
        noslip_iterations=2,
        hand_solref=(0.005, 1.0),
        hand_solimp=(0.5, 0.99, 0.0001),
        object_solref=(0.02, 1.0),
        object_solimp=(0.9, 0.95, 0.001),
    ),
}
"""Physics of `dexgrasp evaluate` with its preset `reference`, and that of DexGraspBench's own evaluation."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """Outcome of a grasp."""

    success: bool
    pulls: int
    """Number of pulls withstood, up to 6."""
    overlap_m: float
    """Deepest overlap of hand and object, or of parts of the hand, at the pregrasp."""
    moved_m: float
    """Displacement of the object at the end of the last pull."""
    turned_deg: float
    """Its turn."""


@functools.lru_cache(maxsize=2)
def grasp_scene(hand: Path, folder: Path, scale: float, solver: Solver) -> mujoco.MjModel:
    """Return the scene of a hand's MJCF and of the object in `folder`.

    qpos: pose of the hand, its joints, pose of the object. Raises ValueError for a hand without position servos.
    """
    spec = mujoco.MjSpec()
    option = spec.option
    option.timestep, option.noslip_iterations = solver.timestep_s, solver.noslip_iterations
    option.integrator, option.cone = mujoco.mjtIntegrator.mjINT_IMPLICITFAST, mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio, option.jacobian = OURS.impratio, jacobian_form(mujoco.__version__)
    option.disableflags |= mujoco.mjtDisableBit.mjDSBL_GRAVITY
    _add_hand(spec, hand)
    for geom in spec.geoms:
        geom.solref, geom.solimp[:3] = solver.hand_solref, solver.hand_solimp
    for geom in _add_object(spec, folder, scale):
        geom.solref, geom.solimp[:3] = solver.object_solref, solver.object_solimp
    for geom in spec.geoms:
        geom.condim, geom.friction[:2] = 4, FRICTION
    model = spec.compile()
    positions = np.isclose(model.actuator_biasprm[:, 1], -model.actuator_gainprm[:, 0]) & (
        model.actuator_gainprm[:, 0] > 0
    )
    if not model.nu or not positions.all():
        raise ValueError(f"{hand}: expected position servos for all joints, as in the hands of DexGraspBench")
    return model


def _add_hand(spec: mujoco.MjSpec, hand: Path) -> None:
    """Add a hand whose outermost frame follows a goal pose by a weld."""
    model = read_model(hand, f"the hand {hand.parent.name}")
    for element in [*model.sensors, *model.lights, *model.cameras]:
        model.delete(element)
    root = spec.worldbody.add_body(name="hand")
    root.add_freejoint()
    with warnings.catch_warnings():  # of options, which the scene sets
        warnings.simplefilter("ignore", UserWarning)
        spec.attach(model, prefix="hand/", frame=root.add_frame())
    spec.worldbody.add_body(name="goal", mocap=True)
    weld = spec.add_equality(type=mujoco.mjtEq.mjEQ_WELD, name1="goal", name2="hand", objtype=mujoco.mjtObj.mjOBJ_BODY)
    weld.data[:11] = [*[0.0] * 10, 1.0]  # no offset between goal and hand


def _add_object(spec: mujoco.MjSpec, folder: Path, scale: float) -> list[mujoco.MjsGeom]:
    """Add a free object of the rule's mass from its convex pieces; return its geoms."""
    pieces = sorted((folder / "urdf/meshes").glob("*.obj"))
    if not pieces:
        raise FileNotFoundError(f"{folder}/urdf/meshes: no .obj; expected the convex pieces of an object")
    file = folder / "info/simplified.json"
    with reading(file, "description of an object of DexGraspBench"):
        facts = read_json_object(file)
        volume = facts["mass"] / (facts["density"] * facts["scale"] ** 3)
    body = spec.worldbody.add_body(name="object")
    body.add_freejoint()
    geoms = []
    for piece in pieces:
        spec.add_mesh(name=piece.stem, file=str(piece.absolute()), scale=[scale] * 3)
        density = MASS_KG / (volume * scale**3)
        geoms.append(body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=piece.stem, density=density))
    return geoms


def play(model: mujoco.MjModel, grasp: Grasp) -> Played:
    """Play a grasp in its `grasp_scene`. Raises ValueError for another number of joints."""
    data = mujoco.MjData(model)
    if len(grasp.grasp_qpos) != model.nq - 7:
        raise ValueError(f"the grasp has {len(grasp.grasp_qpos) - 7} joints, the hand {model.nq - 14}")
    stages = [_unit(qpos) for qpos in (grasp.pregrasp_qpos, grasp.grasp_qpos, grasp.squeeze_qpos)]
    start = _unit(grasp.obj_pose)
    controls = [_controls(model, data, np.concatenate([stage, start])) for stage in stages]
    data.qpos[:] = np.concatenate([stages[0], start])
    _set_goal(data, stages[0][:7], controls[0])
    mujoco.mj_forward(model, data)
    overlap_m = max(0.0, -min((float(contact.dist) for contact in data.contact), default=0.0))
    if overlap_m > MOST_OVERLAP_M:
        return Played(success=False, pulls=0, overlap_m=overlap_m, moved_m=0.0, turned_deg=0.0)
    for i in (0, 1):
        _move(model, data, (stages[i][:7], controls[i]), (stages[i + 1][:7], controls[i + 1]))
    squeezed, moved_m, turned_deg = mujoco.MjData(model), 0.0, 0.0
    mujoco.mj_copyData(squeezed, model, data)
    for pulls, force in enumerate(PULLS):
        mujoco.mj_copyData(data, model, squeezed)  # all pulls begin alike
        held, moved_m, turned_deg = _pull(model, data, force, start)
        if not held:
            return Played(success=False, pulls=pulls, overlap_m=overlap_m, moved_m=moved_m, turned_deg=turned_deg)
    return Played(success=True, pulls=len(PULLS), overlap_m=overlap_m, moved_m=moved_m, turned_deg=turned_deg)


def _unit(qpos: np.ndarray) -> np.ndarray:
    """Return positions in double precision, with a quaternion of length 1."""
    qpos = np.array(qpos, dtype=np.float64)
    qpos[3:7] /= np.linalg.norm(qpos[3:7])
    return qpos


def _controls(model: mujoco.MjModel, data: mujoco.MjData, qpos: np.ndarray) -> np.ndarray:
    """Return the targets of the servos, of joints or tendons, at which `qpos` is at rest."""
    data.qpos[:] = qpos
    mujoco.mj_fwdPosition(model, data)
    return data.actuator_length.copy()


def _set_goal(data: mujoco.MjData, pose: np.ndarray, control: np.ndarray) -> None:
    data.mocap_pos[0], data.mocap_quat[0], data.ctrl[:] = pose[:3], pose[3:], control


def _move(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    begin: tuple[np.ndarray, np.ndarray],
    end: tuple[np.ndarray, np.ndarray],
) -> None:
    """Move goal pose (7,) and controls from `begin` to `end` along a line and the shorter arc."""
    turn = np.empty(3)
    mujoco.mju_subQuat(turn, end[0][3:], begin[0][3:])
    for k in range(1, STAGE_TARGETS + 1):
        share = k / STAGE_TARGETS
        pose, control = (first + share * (last - first) for first, last in zip(begin, end, strict=True))
        pose[3:] = begin[0][3:]
        mujoco.mju_quatIntegrate(pose[3:], turn, share)
        _set_goal(data, pose, control)
        mujoco.mj_step(model, data, nstep=round(STAGE_S / STAGE_TARGETS / model.opt.timestep))


def _pull(
    model: mujoco.MjModel, data: mujoco.MjData, force: tuple[float, ...], start: np.ndarray
) -> tuple[bool, float, float]:
    """Pull the object; return whether it stayed, its displacement [m], and its turn [degree]."""
    data.xfrc_applied[-1, :3] = force
    moved_m = turned_deg = np.inf
    for _ in range(round(PULL_S / CHECK_S)):
        mujoco.mj_step(model, data, nstep=round(CHECK_S / model.opt.timestep))
        turn = np.empty(3)
        mujoco.mju_subQuat(turn, _unit(data.qpos[-7:])[3:], start[3:])
        moved_m = float(np.linalg.norm(data.qpos[-7:-4] - start[:3]))
        turned_deg = float(np.rad2deg(np.linalg.norm(turn)))
        if not (moved_m < MOST_M and turned_deg < MOST_DEG):
            return False, moved_m, turned_deg
    return True, moved_m, turned_deg
