"""The grasping task: an object on a table, a hand above it, a camera that sees it; grasp, lift, hold.

    step     apply action -> step physics -> outcome -> measure -> reward -> reset -> observe
    phases   grasp (the policy moves palm and fingers) -> lift (the palm rises) -> hold (the palm stays)

An action corrects a scripted grasp: a palm increment in the palm frame, and finger targets about the measured joint
positions, so that a constant action on a blocked finger is a constant torque. Fingers obey the policy in all phases.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle
from dexgrasp.perception.hand_features import nearest_vectors
from dexgrasp.perception.observations import History, Layout, student_layout
from dexgrasp.perception.tracking.icp import centroid_xy
from dexgrasp.perception.transforms import quat_rotate, quat_rotate_inverse
from dexgrasp.sim.engine.base import Engine, Neighbours
from dexgrasp.sim.engine.config import EngineName, WarpCfg
from dexgrasp.sim.engine.cuda_graph import GraphedFunction
from dexgrasp.sim.engine.factory import make_engine
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws, RandomizationCfg, ResetCfg, draw_episode, draw_object
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.scene import ModelPool, PhysicsCfg
from dexgrasp.sim.sensors.config import CameraCfg
from dexgrasp.sim.sensors.object_camera import POINTS, make_object_camera
from dexgrasp.sim.sensors.proprioception import CommandDelay, ProprioceptionModel, exact_readings
from dexgrasp.sim.sensors.surface_table import SurfaceTable
from dexgrasp.sim.task import reset as starts
from dexgrasp.sim.task.actions import ActionScales, HandController, Phases, Targets, WristCfg
from dexgrasp.sim.task.clutter_scenes import ClutterScenes, SceneCfg
from dexgrasp.sim.task.disturbances import DisturbanceCfg, Disturber
from dexgrasp.sim.task.episode_clock import EpisodeClock
from dexgrasp.sim.task.nan_guard import NanGuard
from dexgrasp.sim.task.neighbours import NeighbourTracker, off_table
from dexgrasp.sim.task.observations import hand_terms, privileged_terms, progress_terms, teacher_layout
from dexgrasp.sim.task.outcomes import Outcome, OutcomeTracker
from dexgrasp.sim.task.registry import Registry
from dexgrasp.sim.task.regrasp import Regrasp
from dexgrasp.sim.task.rewards import RewardCfg, RewardContext, Rewards, TermMeans
from dexgrasp.sim.task.scripted_grasp import ScriptedGraspCfg, scripted_grasp_of
from dexgrasp.utils.bounds import Bounds, bounded
from dexgrasp.utils.rows import where_rows

MAX_CACHED_OBJECTS = 8192
"""Most objects that are cached in memory for engine=warp; 0.1 MB each."""


@dataclass(frozen=True)
class StepResult:
    """Hold the result of one control step; first dimension: environment."""

    obs: dict[str, Tensor]
    """Observation groups "teacher" and "student", float32."""
    reward: Tensor
    """(env,) float32."""
    terminated: Tensor
    """(env,) bool: the episode ended because physics failed or the object left the workspace."""
    truncated: Tensor
    """(env,) bool: the episode reached its full length."""
    info: dict
    """"terms": mean of each weighted reward term; "outcomes": list of Outcome of the episodes that ended (on a GPU only
    where the task resets them itself, otherwise see `GraspTask.outcomes`: a step does not wait for the device);
    "final_obs": observations before the reset, where episodes ended and the task resets them itself."""


@dataclass(frozen=True)
@bounded
class TaskCfg:
    """Configure rates, phases and scales of the task."""

    class_name: str = "GraspTask"
    """Class of the task: GraspTask, or a subclass by the name under which a plugin registered it."""
    rate_hz: Annotated[float, Bounds(10, 50)] = 20.0
    """Control rate, 10 to 50 Hz."""
    grasp_s: Annotated[float, Bounds(0.01, 60)] = 1.8
    """Length of the grasp phase [s]."""
    lift_s: Annotated[float, Bounds(0.01, 60)] = 0.8
    """Length of the lift [s]."""
    hold_s: Annotated[float, Bounds(0.01, 600)] = 3.0
    """Length of the hold [s]."""
    lift_m: Annotated[float, Bounds(0.1, 1)] = 0.15
    """Height by which the palm rises in the lift [m]."""
    vector_frame: Literal["palm", "world"] = "palm"
    """Frame of the vectors from keypoints to the object: palm, or world as in the published method."""
    use_scripted_grasp: bool = True
    """true: actions correct the scripted grasp. false: actions alone move hand and palm, as in the published method."""
    palm_action_m_s: Annotated[float, Bounds(0, 5)] = 0.1
    """Palm speed per unit of action."""
    palm_action_rad_s: Annotated[float, Bounds(0, 20)] = 0.6
    """Palm angular speed per unit of action."""
    finger_action_rad: Annotated[float, Bounds(0, 3)] = 0.3
    """Finger target ahead of the measured position per unit of action."""
    action_clip: Annotated[float, Bounds(0.01, 100)] = 3.0
    """Actions are clipped to this magnitude."""
    object_mass_kg: Annotated[float, Bounds(0, 10)] = 0.0
    """Mass of every object before randomisation and disturbance [kg]; 0: the masses of the library."""
    scripted_grasp: ScriptedGraspCfg = field(default_factory=ScriptedGraspCfg)
    wrist: WristCfg = field(default_factory=WristCfg)
    disturbance: DisturbanceCfg = field(default_factory=DisturbanceCfg)
    reset: ResetCfg = field(default_factory=ResetCfg)
    randomization: RandomizationCfg = field(default_factory=RandomizationCfg)
    reward: RewardCfg = field(default_factory=RewardCfg)
    camera: CameraCfg = field(default_factory=CameraCfg)
    scene: SceneCfg = field(default_factory=SceneCfg)

    def __post_init__(self) -> None:
        if min(map(self.steps, (self.grasp_s, self.lift_s, self.hold_s))) < 1:
            raise ValueError("task.grasp_s, lift_s and hold_s must each last at least one control step")
        if self.lift_m <= 0.1:
            raise ValueError(f"task.lift_m must exceed the 0.1 m that success asks for, got {self.lift_m}")

    @property
    def scales(self) -> ActionScales:
        """Return the scales of a unit of action."""
        return ActionScales(
            palm_m_s=self.palm_action_m_s,
            palm_rad_s=self.palm_action_rad_s,
            finger_rad=self.finger_action_rad,
            lift_m=self.lift_m,
        )

    def active_scripted_grasp(self, hand: HandSpec) -> ScriptedGraspCfg | None:
        """Return the scripted grasp that actions correct, with the numbers of a hand; None: actions act alone.

        The scripted grasp follows the object only where it is tracked.
        """
        if not self.use_scripted_grasp:
            return None
        script = scripted_grasp_of(hand.finger_m, self.scripted_grasp)
        return script if self.camera.tracks else replace(script, follow_m_s=0.0)

    def steps(self, seconds: float) -> int:
        """Return the number of control steps in a time."""
        return round(seconds * self.rate_hz)

    @property
    def phase_steps(self) -> tuple[int, int, int]:
        """Return the control steps of the grasp, of the lift, and of the whole episode."""
        grasp, lift, hold = map(self.steps, (self.grasp_s, self.lift_s, self.hold_s))
        return grasp, lift, grasp + lift + hold


def check_rates(cfg: TaskCfg, physics: PhysicsCfg) -> None:
    """Raise ValueError if the control period is not a whole number of physics steps."""
    substeps = 1.0 / cfg.rate_hz / physics.timestep_s
    if abs(substeps - round(substeps)) > 1e-3:
        raise ValueError(
            f"physics.timestep_s={physics.timestep_s} does not divide the control period {1 / cfg.rate_hz:.4f} s "
            f"(task.rate_hz={cfg.rate_hz}): take a timestep of period / n"
        )


def check_engine(cfg: TaskCfg, engine: str) -> None:
    """Raise ValueError if the engine cannot simulate the scenes of a task."""
    if engine == "warp" and cfg.scene.is_clutter:
        raise ValueError("engine=warp does not hold clutter yet: use engine=cpu, or scene=single")


class GraspTask:
    """Simulate `num_envs` grasp episodes at once; docstrings give shapes and frames.

    A subclass changes the task by overriding `make_layouts` and `observation_terms` (observations), `compute_reward`
    or `reset_scene`, and is chosen by `register_task` and task.class_name.
    """

    def __init__(
        self,
        cfg: TaskCfg,
        hand: HandSpec,
        library: ObjectLibrary,
        physics: PhysicsCfg,
        num_envs: int,
        num_threads: int = 0,
        seed: int = 0,
        mount: str = "floating",
        disturbance: str = "none",
        auto_reset: bool = True,
        in_order: bool = False,
        engine: EngineName = "cpu",
        warp: WarpCfg | None = None,
    ) -> None:
        """`in_order`: trial i uses object i modulo the library's size; otherwise objects are drawn at random.

        `warp` sizes the buffers of engine=warp. All tensors are on the engine's `device`.
        """
        check_rates(cfg, physics)
        self.cfg, self.hand, self.library, self.seed = cfg, hand, library, seed
        self.num_envs, self.auto_reset, self.in_order = num_envs, auto_reset, in_order
        check_engine(cfg, engine)
        self.scenes = ClutterScenes(cfg.scene, library) if cfg.scene.is_clutter else None
        """Scenes of clutter; None: objects stand alone."""
        if engine == "warp":  # thousands of environments start at once: reading files again would dominate
            library.keep(min(len(library), MAX_CACHED_OBJECTS))
        rendered, neighbours = cfg.camera.model == "rendered", cfg.scene.neighbours
        pool = ModelPool(hand, library, physics, mount, rendered=rendered, neighbours=neighbours)
        self.engine: Engine = make_engine(engine, pool, num_envs, num_threads, warp)
        self.device = device = self.engine.device
        """Device of all tensors."""
        self._surfaces = SurfaceTable(library, device)
        self.step_s = 1.0 / cfg.rate_hz
        self.grasp_steps, self.lift_steps, self.episode_steps = cfg.phase_steps
        self.num_actions = hand.num_actions
        self.layouts = self.make_layouts()
        self.control = HandController(
            hand,
            scales=cfg.scales,
            scripted_grasp=cfg.active_scripted_grasp(hand),
            wrist=cfg.wrist,
            step_s=self.step_s,
            num_envs=num_envs,
            device=device,
        )
        self.proprioception = ProprioceptionModel(cfg.randomization, hand, num_envs, device)
        self.object_camera = make_object_camera(cfg.camera, cfg.randomization, pool, self.engine, self._surfaces)
        self.command_delay = CommandDelay(cfg.randomization, len(hand.motors.names), num_envs, device)
        self.disturber = Disturber(disturbance, hand, num_envs, self.step_s, device, cfg.disturbance)
        self.rewards = Rewards(cfg.reward, hand, device)
        self.outcome_tracker = OutcomeTracker(num_envs, self.step_s, hand, device)
        self.neighbour_tracker = NeighbourTracker(num_envs, neighbours)
        """What happened to the objects beside the wanted one; none where that stands alone."""
        self.nan_guard = NanGuard(num_envs, self.episode_steps, self.num_actions, device)
        self.history = History(num_envs, self.layouts["student"], device)
        self._terms: Mapping[str, float] = {}
        graphs = warp is not None and warp.cuda_graphs and device.type != "cpu"
        self.graphed_step = GraphedFunction(self._advance, device, self, (library, self._surfaces)) if graphs else None
        """Control step by CUDA graphs; None: every step is a plain one."""
        self._allocate()
        self._planner = starts.PregraspPlanner(hand, mount, cfg.reset)
        self.regrasp = Regrasp(
            control=self.control,
            planner=self._planner,
            object_camera=self.object_camera,
            engine=self.engine,
            objects=self.objects,
            draws=self.draws,
            clock=self.clock,
            episode_steps=self.episode_steps,
            step_s=self.step_s,
        )

    def _allocate(self) -> None:
        """Allocate the per-environment tensors; they are changed in place from then on."""
        n, device = self.num_envs, self.device
        self.seeds = torch.full((n,), self.seed, dtype=torch.int64, device=device)
        """(env,) seed of all random numbers of a trial, beside its number; may be written between episodes."""
        self.object_weights: np.ndarray | None = None
        """(object,) probabilities of the objects, see dexgrasp.policies.training.callbacks; None: uniform."""
        self.trial = torch.full((n,), -1, dtype=torch.int64, device=device)
        """(env,) number of the current trial."""
        self.objects, self._next_trial = [""] * n, 0
        self.clock = EpisodeClock(n, device)
        """Control steps of each episode, also on the host."""
        self.steps_since_reset = self.clock.since_reset
        """(env,) control steps since the reset."""
        self.steps_since_pregrasp = self.clock.since_pregrasp
        """(env,) control steps since the palm was at its latest pre-grasp; negative while it moves there."""
        self.draws = EpisodeDraws.empty(n, len(self.hand.motors.names), device)
        self._last_palm_pos_w, self._palm_linvel_w = (
            torch.zeros(n, 3, dtype=torch.float64, device=device) for _ in range(2)
        )
        self._action = torch.zeros(n, self.num_actions, device=device)
        self._points_o = torch.zeros(n, POINTS, 3, device=device)  # the whole surface, object frame

    @property
    def phases(self) -> Phases:
        """Phases of all environments."""
        return Phases(
            step=self.steps_since_pregrasp,
            grasp_steps=self.grasp_steps,
            lift_steps=self.lift_steps,
            episode_steps=self.episode_steps,
        )

    def reset(self, trials: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Start an episode in every environment and return the observations.

        `trials`: one number per environment; seed and number decide a trial. None: the next numbers.
        """
        if trials is not None and len(trials) != self.num_envs:
            raise ValueError(f"reset needs one trial per environment ({self.num_envs}), got {len(trials)}")
        self._new_episodes(torch.arange(self.num_envs, device=self.device), trials)
        return self.observe()

    def reset_rows(self, rows: Tensor, trials: Sequence[int]) -> dict[str, Tensor]:
        """Start episodes `trials` in `rows` (sorted) alone; return the observations of all environments."""
        self._new_episodes(rows.to(self.device), trials)
        return self.observe()

    def step(self, action: Tensor, grip: Tensor | None = None) -> StepResult:
        """Advance every environment by one control period.

        `action` (env, action), clipped to task.action_clip. `grip` (env,): confidence of the policy that thumb and
        another finger touch the object, 0 to 1; None: zero. Raises RuntimeError before the first reset, ValueError
        for an action of another shape.
        """
        self._check_action(action)
        given = {"action": action.detach().to(self.device, torch.float32)} | ({} if grip is None else {"grip": grip})
        shown = self.graphed_step(given, self._graph_key()) if self.graphed_step else self._advance(given)
        obs = {group: shown[group] for group in self.layouts}
        terminated, truncated = shown["terminated"], shown["truncated"]
        done = terminated | truncated
        terms = self._terms.read(shown) if isinstance(self._terms, TermMeans) else self._terms
        info: dict = {"terms": terms, "outcomes": []}
        if self.auto_reset or self.device.type == "cpu":
            info["outcomes"] = self._collect_outcomes(done)
        if self.auto_reset and done.any():
            info["final_obs"] = obs
            self._new_episodes(done.nonzero().squeeze(1))
            obs = self.observe()
        return StepResult(obs=obs, reward=shown["reward"], terminated=terminated, truncated=truncated, info=info)

    def _advance(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Advance by `given` "action" and, perhaps, "grip"; return observation groups, reward, ends, and its terms.

        With warp.cuda_graphs a GPU repeats its operations: it asks the host nothing but what `_graph_key` tells.
        """
        targets = self._apply_action(given["action"], given.get("grip"))
        self._step_physics(targets)
        broken = self._reset_broken_scenes()
        terminated = self._update_outcomes(broken)
        self.clock.tick()
        truncated = (self.steps_since_pregrasp >= self.episode_steps) & ~terminated
        self.regrasp.finish_motions()
        self._measure()
        reward, self._terms = self.compute_reward()
        tensors = self._terms.tensors() if isinstance(self._terms, TermMeans) else {}
        return self.observe() | {"reward": reward, "terminated": terminated, "truncated": truncated} | tensors

    def _graph_key(self) -> Hashable:
        """Return what the host decides a control step by; None where that differs between environments."""
        clock = self.clock
        steps = torch.stack([clock.host_since_reset, clock.host_since_pregrasp])
        alike = bool((steps == steps[:, :1]).all()) and int(steps[1, 0]) < self.episode_steps
        if self.auto_reset or self.regrasp.any_moving or not alike:
            return None
        return (*steps[:, 0].tolist(), self.disturber.kinds)

    def set_grasp_styles(self, *, power: GraspStyle, pinch: GraspStyle) -> None:
        """Set the grasp styles of the hand; they hold from the next reset on."""
        self._planner.styles = (power.to(self.device), pinch.to(self.device))

    def start_regrasp(self, rows: Tensor) -> None:
        """Abort the grasps of `rows` (sorted) and start a regrasp.

        The palm moves aside, the camera takes a new view, and the palm moves to a new pre-grasp.

        Actions are ignored while `steps_since_pregrasp` is negative. `dexgrasp.policies.evaluation.episodes` decides
        when to call it.
        """
        self.regrasp.start(rows)
        self.outcome_tracker.restart_attempt(rows)
        self.disturber.start_attempt(rows, self.draws, self.outcome_tracker.attempts)

    def _new_episodes(self, rows: Tensor, trials: Sequence[int] | None = None) -> None:
        """Start new episodes in `rows` (sorted); the other rows do not change."""
        if self.device.type != "cpu":
            self._check()
        if trials is None:
            trials = range(self._next_trial, self._next_trial + len(rows))
            self._next_trial += len(rows)
        self.trial[rows] = torch.tensor(trials, device=self.device)
        random = TrialRandom.of_trials(self.seeds[rows], self.trial[rows])
        for row, number in zip(rows.tolist(), self._object_numbers(rows, random).tolist(), strict=True):
            given = None if self.scenes is None else self.scenes.given.get(row)
            self.objects[row] = given[0].model.name if given else self.library.names[number]
        self.library.prepare(self.objects[row] for row in rows.tolist())
        motors = len(self.hand.motors.names)
        self.draws.write(rows, draw_episode(random, self.cfg.reset, self.cfg.randomization, motors))
        self.reset_scene(rows)
        self._action[rows] = 0.0
        self.clock.reset(rows)
        self.outcome_tracker.reset(rows, self.engine.state)
        self.nan_guard.reset(rows)
        self._read_sensors()
        self._update_vectors()
        self.history.reset(rows, self._proprioceptive_terms)

    def _object_numbers(self, rows: Tensor, random: TrialRandom) -> Tensor:
        """Return the number of each trial's object in the library (row,)."""
        if self.in_order:
            return self.trial[rows] % len(self.library)
        weights = None if self.object_weights is None else torch.from_numpy(self.object_weights).to(self.device)
        return draw_object(random, len(self.library), weights)

    def reset_scene(self, rows: Tensor) -> None:
        """Place object and hand of `rows` where their trials start, from `self.draws`; plan the first grasp."""
        draws, names = self.draws.rows(rows), [self.objects[row] for row in rows.tolist()]
        if self.cfg.object_mass_kg:
            draws.mass_scale *= draws.mass_scale.new_tensor(
                [self.cfg.object_mass_kg / self.library[name].mass for name in names]
            )
        self.disturber.reset(rows, draws)
        pos, quat, neighbours = self._place_objects(rows, names, draws)
        camera = self.object_camera.observe_first(rows, names, pos, quat, draws, neighbours)
        palm = self._planner(self.object_camera.points_w[rows], camera, draws)
        if neighbours is not None:
            around_w = starts.neighbour_surface_points(self._surfaces, neighbours)
            palm = starts.start_clear_of_neighbours(palm, self.hand, around_w)
        self.regrasp.reset(rows, palm)
        start = starts.initial_state(self.hand, names, pos, quat, palm, draws)
        self.engine.reset(rows, replace(start, neighbours=neighbours))
        self._points_o[rows] = starts.object_surface_points(self._surfaces, names, draws.size)
        state = self.engine.state  # an arm may not reach the planned pose
        palm = replace(palm, palm_pos_w=state.palm_pos_w[rows].double(), palm_quat_w=state.palm_quat_w[rows].double())
        self.control.reset(rows, palm)
        self._last_palm_pos_w[rows] = palm.palm_pos_w
        self.proprioception.reset(rows, state)
        self.command_delay.reset(rows, state)

    def _place_objects(
        self, rows: Tensor, names: Sequence[str], draws: EpisodeDraws
    ) -> tuple[Tensor, Tensor, Neighbours | None]:
        """Return resting poses of the objects of `rows`, and their neighbours; None: they stand alone."""
        if self.scenes is None:
            return *starts.place_objects(self._surfaces, names, draws), None
        pos, quat, neighbours, contacts = self.scenes.place(rows.tolist(), names, draws)
        self.neighbour_tracker.reset(rows, neighbours, contacts)
        return pos, quat, neighbours

    def _check_action(self, action: Tensor) -> None:
        if not hasattr(self, "_object_vectors"):
            raise RuntimeError("call reset before the first step")
        if tuple(action.shape) != (self.num_envs, self.num_actions):
            raise ValueError(f"action must be {(self.num_envs, self.num_actions)}, got {tuple(action.shape)}")

    def _apply_action(self, action: Tensor, grip: Tensor | None) -> Targets:
        """Clip and record the actions; return the targets of the next control period, before their delay."""
        self._action = action.clamp(-self.cfg.action_clip, self.cfg.action_clip)
        self.nan_guard.record(self.steps_since_reset, self._action)
        object_xy_w = centroid_xy(self.object_camera.points_w)
        targets = self.control.compute_targets(self._action, self.sensed, object_xy_w, self.phases, grip)
        return self.regrasp.override_targets(targets)

    def _step_physics(self, targets: Targets) -> None:
        """Disturb the objects and simulate one control period with the delayed targets."""
        distance_m = self._object_vectors.norm(dim=-1).amin(dim=1)
        grasping = bool((self.clock.host_since_pregrasp < self.grasp_steps).any())
        self.disturber.apply(self.engine, self.draws, self.phases, distance_m, self._points_o, may_shift=grasping)
        (joints, palm_pos, palm_quat), late = self.command_delay.apply(targets, self.draws, self.steps_since_reset)
        self.engine.step(joints, palm_pos, palm_quat, self.step_s, late)
        self.proprioception.push(self.engine.state)

    def _reset_broken_scenes(self) -> Tensor:
        """Reset scenes whose physics is not finite, before rewards and observations read them.

        Return their mask (env,); the first one is dumped for replay. A GPU is not waited for: its scenes go back to
        their start as they are, and the dump is written by `_check`.
        """
        broken = ~self.engine.finite()
        if self.device.type == "cpu" and not broken.any():
            return broken
        running = (self.outcome_tracker.attempts == 1) & (self.phases.step < self.episode_steps)
        self.nan_guard.note(broken & running, self.steps_since_reset + 1)
        if self.device.type == "cpu":
            self._dump_broken()
            self.reset_scene(broken.nonzero().squeeze(1))
        else:
            self.engine.recover(broken)
            self.proprioception.restart(broken, self.engine.state)
            self._last_palm_pos_w = where_rows(broken, self.engine.state.palm_pos_w.double(), self._last_palm_pos_w)
        return broken

    def _dump_broken(self) -> None:
        """Dump the first running episode whose physics failed for replay, once; waits for the device."""
        for row in self.nan_guard.broken_at.nonzero().squeeze(1).tolist():
            trial, seed, steps = (int(x[row]) for x in (self.trial, self.seeds, self.nan_guard.broken_at))
            self.nan_guard.dump(row, trial, seed, self.objects[row], steps)

    def _check(self) -> None:
        """Report what the steps since the last call left on the device; waits for it.

        Raise BufferError where physics dropped contacts or constraints, FloatingPointError for a wrong action.
        """
        self.engine.check()
        self._dump_broken()
        self.control.check()

    def _update_outcomes(self, broken: Tensor) -> Tensor:
        """Update the outcomes after a control step; return the mask (env,) of terminated episodes."""
        phases, strayed = self.phases, off_table(self.engine.state.object_pos_w)
        self.outcome_tracker.update(
            self.engine.state,
            lifting=phases.lifting,
            lift_ends=phases.lift_ends,
            holding=phases.holding,
            unstable=broken,
            strayed=strayed,
            shift_xy_w=self.disturber.shift_xy_w,
        )
        state = self.engine.state
        self.neighbour_tracker.update(state.neighbour_pos_w, state.neighbour_quat_w)
        self.nan_guard.count(broken, strayed)
        return broken | strayed

    def _measure(self) -> None:
        """Update everything that observations and rewards read, after a control step."""
        self._read_sensors()
        self._update_camera()
        self._update_palm_velocity()
        self._update_history()
        self._update_vectors()

    def _read_sensors(self) -> None:
        """Update the proprioceptive readings and their observation terms."""
        state = self.engine.state
        self.sensed = self.proprioception.measure(state, self.draws, self.steps_since_reset)
        trajectory, motors = self.control.palm_trajectory, self.hand.motors
        self._proprioceptive_terms = hand_terms(self.sensed, state.joint_target, trajectory, motors)

    def _update_camera(self) -> None:
        """Update the object points after a control step: motion of the palm, new frames."""
        clock = self.clock
        self.object_camera.step(
            self.engine.state,
            self.draws,
            clock.since_reset,
            sensed=self.sensed,
            held=clock.host_since_pregrasp > self.grasp_steps,
            resting=clock.host_since_pregrasp > self.grasp_steps + self.lift_steps,
            host_step=clock.host_since_reset,
        )

    def _update_palm_velocity(self) -> None:
        """Update the mean palm velocity of the control step."""
        palm_pos_w = self.engine.state.palm_pos_w
        self._palm_linvel_w = (palm_pos_w - self._last_palm_pos_w) / self.step_s
        self._last_palm_pos_w.copy_(palm_pos_w)

    def _update_history(self) -> None:
        """Append the readings to the history; where a regrasp reached its pre-grasp, last action and history
        restart."""
        at_pregrasp = (self.steps_since_pregrasp == 0)[:, None]
        self._action = self._action.masked_fill(at_pregrasp, 0.0)
        self.history.push(self._proprioceptive_terms, at_pregrasp)

    def _update_vectors(self) -> None:
        """Update the vectors from the keypoints to the nearest points of the true object and of the visible points."""
        state, sensed = self.engine.state, self.sensed
        object_pos, object_quat = state.object_pos_w[:, None], state.object_quat_w[:, None]
        keypoints_o = quat_rotate_inverse(object_quat, state.keypoints_w - object_pos)
        to_object_w = quat_rotate(object_quat.float(), nearest_vectors(keypoints_o.float(), self._points_o))
        to_visible_w = nearest_vectors(sensed.keypoints_w.float(), self.object_camera.points_w)
        if self.cfg.vector_frame == "world":
            self._object_vectors, self._visible_vectors = to_object_w, to_visible_w
        else:
            self._object_vectors = quat_rotate_inverse(state.palm_quat_w[:, None].float(), to_object_w)
            self._visible_vectors = quat_rotate_inverse(sensed.palm_quat_w[:, None].float(), to_visible_w)

    def compute_reward(self) -> tuple[Tensor, Mapping[str, float]]:
        """Return the reward (env,) of the step that was just taken, and the mean of each weighted term."""
        return self.rewards(self._reward_context())

    def _reward_context(self) -> RewardContext:
        """Return the inputs of the reward terms for the step that was just taken."""
        state = self.engine.state
        return RewardContext(
            state=state,
            phases=replace(self.phases, step=self.steps_since_pregrasp - 1),
            object_vectors_p=self._object_vectors,
            palm_linvel_w=self._palm_linvel_w,
            object_offset_w=state.object_pos_w - self.outcome_tracker.start_pos_w,
            success=(self.steps_since_pregrasp == self.episode_steps) & self.outcome_tracker.held,
            action=self._action,
            hand=self.hand,
            lift_m=self.cfg.lift_m,
            step_s=self.step_s,
        )

    def make_layouts(self) -> dict[str, Layout]:
        """Return the terms of each observation group, in order."""
        joints, keypoints = len(self.hand.joint_names), len(self.hand.keypoint_names)
        bodies, actions = len(self.hand.contact_bodies), self.num_actions
        return {
            "teacher": teacher_layout(joints, keypoints, actions, bodies),
            "student": student_layout(joints, keypoints, actions, self.cfg.camera.live),
        }

    def observation_terms(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the values of each observation group's terms, first dimension: environment."""
        state, trajectory = self.engine.state, self.control.palm_trajectory
        common = progress_terms(self.phases, trajectory.remaining_m, self._action)
        measured = common | self._proprioceptive_terms
        exact_hand = (
            self._proprioceptive_terms
            if self.proprioception.exact
            else hand_terms(exact_readings(state), state.joint_target, trajectory, self.hand.motors)
        )
        camera = self.object_camera.terms() | {"visible_vectors": self._visible_vectors}
        privileged = privileged_terms(state, self.outcome_tracker.start_pos_w, self._object_vectors)
        return {
            "student": measured | camera | {"history": self.history.frames},
            "teacher": common | exact_hand | privileged,
        }

    def observe(self) -> dict[str, Tensor]:
        """Return the observation groups of the current state, (env, size) float32 each."""
        terms = self.observation_terms()
        return {group: layout.assemble(terms[group]) for group, layout in self.layouts.items()}

    def _collect_outcomes(self, done: Tensor) -> list[Outcome]:
        """Return the outcomes of the environments in the mask `done` (env,)."""
        ended = done.nonzero().squeeze(1)
        if not len(ended):
            return []
        rows, trials = torch.stack([ended, self.trial[ended]]).tolist()
        names = [self.objects[row] for row in rows]
        outcomes = self.outcome_tracker.outcomes(rows, trials, names, self.disturber.name)
        return self.neighbour_tracker.added_to(outcomes, rows)

    def objects_on_table(self, row: int) -> tuple[list[str], NDArray[np.float64]]:
        """Return names and poses (object, 7) of all objects of an environment, the wanted one first.

        Position [m] and orientation, wxyz.
        """
        state, others = self.engine.state, [name for name in self.neighbour_tracker.names[row] if name]
        wanted = torch.cat([state.object_pos_w[row], state.object_quat_w[row]])
        around = torch.cat([state.neighbour_pos_w[row], state.neighbour_quat_w[row]], dim=-1)[: len(others)]
        return [self.objects[row], *others], torch.cat([wanted[None], around]).double().cpu().numpy().copy()

    def object_mesh(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return the visual mesh of an environment's object in its true size.

        Vertices (v, 3) [m] and faces (f, 3).
        """
        shape = self.library[self.objects[row]]
        return shape.vertices * np.float32(float(self.draws.size[row])), shape.faces

    def outcomes(self, mask: Tensor | None = None) -> list[Outcome]:
        """Return the outcomes as they stand, of the environments in `mask` (env,) or of all."""
        self._check()
        return self._collect_outcomes(torch.ones_like(self.outcome_tracker.held) if mask is None else mask)


_REGISTRY: Registry[type[GraspTask]] = Registry("task", "register_task")


def register_task(name: str, task: type[GraspTask]) -> None:
    """Make a subclass of GraspTask available as task.class_name=NAME."""
    if not (isinstance(task, type) and issubclass(task, GraspTask)):
        raise TypeError(f"task '{name}' must be a subclass of dexgrasp.sim.task.grasp_task.GraspTask, got {task!r}")
    _REGISTRY.register(name, task)


def task_class(cfg: TaskCfg) -> type[GraspTask]:
    """Return the class that `cfg.class_name` names. Raise ValueError where it is not registered."""
    return _REGISTRY.get(cfg.class_name)


register_task("GraspTask", GraspTask)
