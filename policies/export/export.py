"""`dexgrasp export`: a trained student as a bundle that a robot runs without torch and MuJoCo.

OUT/policy.onnx     the whole controller, see policies/export/controller.py
OUT/contract.json   meaning of the numbers, see policies/deploy/contract.py
OUT/golden.npz      recorded inputs and outputs that the runtime repeats before it starts
"""

import dataclasses
import inspect
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp import configs
from dexgrasp.perception.grasp_planning import planner
from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.policies.agents import registry
from dexgrasp.policies.agents.checkpoint import Checkpoint, load_checkpoint
from dexgrasp.policies.deploy.bundle import CONTRACT, GOLDEN, GRAPH, sign_bundle, write_bundle
from dexgrasp.policies.deploy.contract import (
    CAMERA_MODELS,
    CAMERA_MODES,
    CameraContract,
    Contract,
    ControlContract,
    GraphContract,
    GraspContract,
    GraspStyleContract,
    HandContract,
    KinematicsContract,
    ParityContract,
    PregraspContract,
    ScriptedGraspContract,
    TensorContract,
    TrainingContract,
    WristContract,
)
from dexgrasp.policies.deploy.policy import Policy
from dexgrasp.policies.deploy.signature import SIGNATURE, check_private_key
from dexgrasp.policies.export.controller import CAMERA_READINGS, PLAN, READINGS, STATE, DeployableController
from dexgrasp.policies.export.replay_check import ReplayError, record_episodes, replay
from dexgrasp.policies.networks.student import StudentActor
from dexgrasp.policies.run_directory import collect_facts
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.randomization.episode_draws import RandomizationCfg
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.sensors.point_camera import POINTS
from dexgrasp.sim.task.actions import wrist_on
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg, task_class
from dexgrasp.sim.task.regrasp import (
    GRIP_THRESHOLD_HOLD,
    GRIP_THRESHOLD_UNSEEN,
    MIN_RISE_FRACTION,
    MIN_VISIBLE_FRACTION,
)
from dexgrasp.sim.task.scripted_grasp import ScriptedGraspCfg
from dexgrasp.utils.bounds import Bounds, Seed, bounded
from dexgrasp.utils.files import atomic_folder
from dexgrasp.utils.output import FolderKind, claimed_folder
from dexgrasp.utils.readers import read_json_object
from dexgrasp.utils.text import counted, install_command

OPSET = 18
GOLDEN_PAIRS = 64
MIN_PARITY_STEPS = 1000
"""Recorded steps over which a bundle must repeat its checkpoint."""
BUNDLE_FILES = (GRAPH, GOLDEN, CONTRACT)
OWN_FILES = (*BUNDLE_FILES, SIGNATURE)
"""Files that a new bundle replaces; an old signature must not stay beside a new contract."""
log = logging.getLogger("dexgrasp")


def _is_bundle(folder: Path) -> bool:
    """Return whether a folder holds a bundle, also of another version or a damaged one."""
    if not all((folder / name).is_file() for name in BUNDLE_FILES):
        return False
    try:
        return "schema" in read_json_object(folder / CONTRACT)
    except ValueError:
        return False


BUNDLE = FolderKind("bundle", _is_bundle)
"""Kind of the folder that `export` writes."""


def write_graph(controller: DeployableController, path: Path) -> None:
    """Write the controller with a free batch size; needs the extra `export`."""
    try:
        from onnxscript import opset18
    except ImportError as error:
        raise ImportError(f"export needs onnx and onnxscript: {install_command('export')} ({error})") from error

    op: Any = opset18  # its types are those of a graph that is already built

    def cross(a: Any, b: Any, dim: int = -1) -> Any:
        """Return the cross product by five operations on whole vectors in place of twelve on components."""
        left, right = op.Constant(value_ints=[1, 2, 0, 2, 0, 1]), op.Constant(value_ints=[2, 0, 1, 1, 2, 0])
        products = op.Mul(op.Gather(a, left, axis=dim), op.Gather(b, right, axis=dim))
        return op.Sub(*op.Split(products, axis=dim, num_outputs=2))

    def atan2(y: Any, x: Any) -> Any:
        """Return atan2 for x >= 0, sufficient for rotations; onnxruntime has Atan in single precision only."""
        return op.CastLike(op.Atan(op.Cast(op.Div(y, op.Abs(x)), to=1)), y)

    aten = torch.ops.aten
    example = example_inputs(controller)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports every library that is not installed
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter of torch 2.13 uses what it deprecates itself
        torch.onnx.export(
            controller.eval(),
            example,
            path,
            input_names=list(controller.inputs),
            output_names=controller.outputs,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            dynamic_shapes={"values": tuple({0: torch.export.Dim("batch")} for _ in example)},
            custom_translation_table={aten.linalg_cross.default: cross, aten.atan2.default: atan2},
        )


def example_inputs(controller: DeployableController, rows: int = 2) -> tuple[torch.Tensor, ...]:
    """Return inputs of the right sizes and types: zeros, no rotation."""
    values = {name: torch.zeros(rows, *shape.size, dtype=shape.dtype) for name, shape in controller.inputs.items()}
    for name, value in values.items():
        if name.endswith("quat_w"):
            value[:, 0] = 1.0
    return tuple(values.values())


@dataclass(frozen=True)
@bounded
class ExportCfg:
    """Write a trained student as a bundle, after it has repeated recorded episodes of its checkpoint."""

    policy: str
    """Student to export: a shipped name (allegro/student), a run directory or a checkpoint file."""
    out: str
    """Folder of the bundle; an older bundle there stays until the new one is verified."""
    objects: str = "shipped"
    """Objects of the recorded episodes."""
    trials: Annotated[int, Bounds(1, 10_000)] = 16
    """Number of recorded episodes."""
    seed: Seed = 0
    """Seed of the recorded episodes."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics of the recorded episodes."""
    mount: str = "floating"
    """Arm that will carry the hand, whose wrist the policy keeps clear of the table: ur5e, a folder with arm.yaml, an
    arm.yaml, an MJCF or a URDF; floating: the limits of the training."""
    sign: str = ""
    """File of the private Ed25519 key (PEM) that signs the bundle; empty = not signed."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register rewards and tasks."""


def export(cfg: ExportCfg) -> dict[str, Any]:
    """Write the bundle; return its deviation from the checkpoint."""
    torch.set_num_threads(1)
    log.setLevel(logging.INFO)  # as in a run directory: the steps are told
    with claimed_folder(cfg.out, BUNDLE) as out:
        parity = write_new_bundle(cfg, out)
    print(f"bundle: {out}")
    return dataclasses.asdict(parity)


def write_new_bundle(cfg: ExportCfg, out: Path) -> ReplayError:
    """Write the bundle to `out`, in place of an older one; return its deviation from the checkpoint."""
    checkpoint = load_checkpoint(registry.find_policy(cfg.policy, kind="checkpoint").path)
    if checkpoint.stage != "student":
        raise ValueError(
            f"{checkpoint.path} is a teacher, which observes contacts and the true object: export a student"
        )
    wrist = wrist_on(cfg.mount, checkpoint.hand, checkpoint.task.wrist)
    checkpoint = replace(checkpoint, task=replace(checkpoint.task, wrist=wrist))
    if cfg.sign:
        check_private_key(cfg.sign)
    _check_trials(checkpoint, cfg)
    with atomic_folder(out, own=OWN_FILES) as partial:
        parity = write(checkpoint, cfg, partial)
    worst = max(parity.error.values())
    cut = f" ({counted(parity.ties, 'episode')} cut by equally near points)" if parity.ties else ""
    log.info("parity: %d steps within %.2g%s", parity.steps, worst, cut)
    return parity


def _check_trials(checkpoint: Checkpoint, cfg: ExportCfg) -> None:
    """Raise ValueError if the trials cannot give the steps over which a bundle is compared."""
    steps = replace(checkpoint.task, hold_s=TaskCfg().hold_s).phase_steps[-1]
    if cfg.trials * steps < MIN_PARITY_STEPS:
        raise ValueError(
            f"trials={cfg.trials} of {steps} steps each give {cfg.trials * steps} recorded steps, "
            f"{MIN_PARITY_STEPS} are needed: give trials={math.ceil(MIN_PARITY_STEPS / steps)} or more"
        )


def write(checkpoint: Checkpoint, cfg: ExportCfg, folder: Path) -> ReplayError:
    """Write a bundle into an empty folder and verify it."""
    actor = checkpoint.actor
    assert isinstance(actor, StudentActor)
    controller = DeployableController(actor, checkpoint.hand, checkpoint.task, POINTS).eval()
    log.info("export: writing the policy as ONNX (about a minute)")
    write_graph(controller, folder / GRAPH)
    contract = make_contract(checkpoint, controller)
    write_bundle(folder, contract, _golden(controller, []))
    recording = record_episodes(checkpoint, make_task(checkpoint, cfg), range(cfg.trials))
    parity, feeds = replay(Policy.load(folder, checkpoint.hand.joint_names), recording, controller)
    if parity.steps < MIN_PARITY_STEPS:
        raise ValueError(f"parity was compared over {parity.steps} steps, {MIN_PARITY_STEPS} are needed: raise trials")
    contract = replace(contract, parity=ParityContract(**dataclasses.asdict(parity)))
    write_bundle(folder, contract, _golden(controller, feeds))
    Policy.load(folder, checkpoint.hand.joint_names)
    if cfg.sign:
        sign_bundle(folder, cfg.sign)
    return parity


def make_task(checkpoint: Checkpoint, cfg: ExportCfg) -> GraspTask:
    """Return the task of the recorded episodes.

    It is the checkpoint's own with exact readings and the hold of an evaluation.
    """
    return task_class(checkpoint.task)(
        replace(checkpoint.task, hold_s=TaskCfg().hold_s, randomization=RandomizationCfg()),
        checkpoint.hand,
        open_library(cfg.objects),
        cfg.physics,
        num_envs=cfg.trials,
        num_threads=1,
        seed=cfg.seed,
        auto_reset=False,
        in_order=True,
    )


def make_contract(checkpoint: Checkpoint, controller: DeployableController) -> Contract:
    """Return the contract of a checkpoint's bundle, in full precision; parity and files are still empty."""
    facts = collect_facts(None)
    return Contract(
        hand=_hand(checkpoint.hand),
        control=_control(checkpoint.task, checkpoint.hand),
        camera=_camera(checkpoint.task.camera, controller.points),
        grasp=grasp_contract(checkpoint.hand),
        graph=_graph(controller),
        training=TrainingContract(stage=checkpoint.stage, checkpoint=checkpoint.path.name, **checkpoint.training),  # pyright: ignore[reportArgumentType]
        export={name: fact for name, fact in facts.items() if name != "command"},  # it holds paths of this machine
    )


def _hand(hand: HandSpec) -> HandContract:
    return HandContract(
        name=hand.name,
        side="left" if hand.side == "left" else "right",
        joint_names=tuple(hand.joint_names),
        joint_lower_rad=tuple(hand.joint_lower.tolist()),
        joint_upper_rad=tuple(hand.joint_upper.tolist()),
        effort_limit_nm=tuple(hand.effort_limit.tolist()),
        speed_limit_rad_s=tuple(hand.speed_limit.tolist()),
        kp_nm_rad=tuple(hand.kp.tolist()),
        kd_nms_rad=tuple(hand.kd.tolist()),
        palm_pos_b=tuple(hand.palm_pos_b.tolist()),
        palm_quat_b=tuple(hand.palm_quat_b.tolist()),
        kinematics=configs.from_dict(KinematicsContract, hand.kinematics().to_dict(), "hand.kinematics"),
        conventions="SI units; quaternions wxyz; world z up, the table at z = 0; palm frame: +x normal, +z fingers",
        coupled=hand.coupled,
    )


def _script(script: ScriptedGraspCfg) -> ScriptedGraspContract:
    """Return what a robot needs of the scripted grasp: its numbers for one hand."""
    values = configs.as_dict(script)
    return ScriptedGraspContract(**{name: values[name] for name in values if name != "keypoint_floor_fingers"})


def _control(cfg: TaskCfg, hand: HandSpec) -> ControlContract:
    grasp, lift, _ = cfg.phase_steps
    script = cfg.active_scripted_grasp(hand)
    return ControlContract(
        rate_hz=cfg.rate_hz,
        grasp_steps=grasp,
        lift_steps=lift,
        hold="from then on, until the caller ends it",
        min_rise_fraction=MIN_RISE_FRACTION,
        min_visible_fraction=MIN_VISIBLE_FRACTION,
        grip_threshold_unseen=GRIP_THRESHOLD_UNSEEN,
        grip_threshold_hold=GRIP_THRESHOLD_HOLD,
        lift_m=cfg.lift_m,
        vector_frame=cfg.vector_frame,
        palm_action_m_s=cfg.palm_action_m_s,
        palm_action_rad_s=cfg.palm_action_rad_s,
        finger_action_rad=cfg.finger_action_rad,
        action_clip=cfg.action_clip,
        wrist=WristContract(
            offset_m=cfg.wrist.offset_m, clearance_m=cfg.wrist.clearance_m, max_turn_rad=cfg.wrist.max_turn_rad
        ),
        scripted_grasp=_script(script) if script else None,
    )


def _camera(view: CameraCfg, points: int) -> CameraContract:
    return CameraContract(
        mode=CAMERA_MODES.get(view.mode, view.mode),  # pyright: ignore[reportArgumentType]
        move_with_palm=view.move_with_palm,
        model=CAMERA_MODELS.get(view.model, view.model),  # pyright: ignore[reportArgumentType]
        frame_interval_steps=view.frame_interval_steps,
        hold_frame_interval_steps=view.hold_frame_interval_steps,
        latency_steps=view.latency_steps,
        disparity_sd_px=view.disparity_sd_px,
        depth_unit_m=view.depth_unit_m,
        edge_dropout=view.edge_dropout,
        flying_pixel_rate=view.flying_pixel_rate,
        include_grazing_angles=view.include_grazing_angles,
        hand_margin_m=view.hand_margin_m,
        min_points=view.min_points,
        points=points,
    )


def grasp_contract(hand: HandSpec) -> GraspContract:
    """Return the hand's grasp styles and the parameters of the pre-grasp rule."""
    rule = inspect.signature(planner.plan_pregrasp).parameters
    return GraspContract(
        power=_style(hand.power),
        pinch=_style(hand.pinch),
        pinch_m=hand.style_heights_m[1],
        power_m=hand.style_heights_m[0],
        pregrasp=PregraspContract(**{name: rule[name].default for name in ("standoff_m", "clearance_m", "rolls")}),
        finger_m=hand.finger_m,
    )


def _style(style: GraspStyle) -> GraspStyleContract:
    values = {item.name: getattr(style, item.name).tolist() for item in dataclasses.fields(style)}
    return configs.from_dict(GraspStyleContract, values, "grasp style")


def _graph(controller: DeployableController) -> GraphContract:
    inputs = {
        name: TensorContract(size=shape.size, dtype=str(shape.dtype).removeprefix("torch."))  # pyright: ignore[reportArgumentType]
        for name, shape in controller.inputs.items()
    }
    return GraphContract(
        opset=OPSET,
        inputs=inputs,
        outputs=tuple(controller.outputs),
        readings=tuple(name for name in (*READINGS, *CAMERA_READINGS) if name in inputs),
        plan=PLAN,
        state=STATE,
        initial="target_*: the start pose; joint_target: as commanded; all else: 0",
        normaliser="inside the graph, from `actor.normaliser` of the checkpoint",
    )


def _golden(controller: DeployableController, feeds: list[dict[str, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
    """Return inputs spread over time and environments, and the torch module's outputs.

    Inputs are zeros without `feeds`.
    """
    if not feeds:
        picked = dict(zip(controller.inputs, (value.numpy() for value in example_inputs(controller)), strict=True))
    else:
        rows = len(next(iter(feeds[0].values())))
        places = [(round(i * (len(feeds) - 1) / (GOLDEN_PAIRS - 1)), i % rows) for i in range(GOLDEN_PAIRS)]
        picked = {name: np.stack([feeds[t][name][row] for t, row in places]) for name in controller.inputs}
    with torch.no_grad():
        found = controller(*(torch.from_numpy(value) for value in picked.values()))
    outputs = {f"out/{name}": value.numpy() for name, value in zip(controller.outputs, found, strict=True)}
    return {f"in/{name}": value for name, value in picked.items()} | outputs
