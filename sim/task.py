"""The grasping task: an object on a table, a hand above it, one camera's view of it; grasp, lift, hold.

    step     act -> physics -> judge -> reward -> reset the finished -> observe
    phases   grasp (the policy moves palm and fingers) -> lift (the palm rises) -> hold; the fingers always are its own

An action is a correction of a scripted prior: a palm increment in the palm frame and finger targets about the measured
joint positions, so that a constant action on a blocked finger is a constant torque.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from perception.features import nearest_vectors
from perception.geometry import quat_rotate, quat_rotate_inverse
from perception.observation import History, student_layout
from perception.tracking import middle_xy
from sim import starts
from sim.actions import HandControl, Phases
from sim.disturbances import Disturber
from sim.engine import Engine
from sim.engine_cfg import EngineName, WarpCfg
from sim.engines import make_engine
from sim.guard import Guard
from sim.hands import HandSpec
from sim.objects import ObjectLibrary
from sim.observations import hand_terms, privileged_terms, progress_terms, teacher_layout
from sim.outcomes import Judge, Outcome
from sim.randomize import Episode, draw_episode, draw_object
from sim.retreat import Retreat
from sim.rewards import Rewards
from sim.scene import ModelPool, PhysicsCfg
from sim.sensing import Commanding, Sensing, exact
from sim.step import Step
from sim.task_cfg import TaskCfg, check_rates
from sim.trial_random import TrialRandom
from sim.view import POINTS, make_view

KEPT_OBJECTS = 8192
"""Most objects that are held in memory on a GPU's behalf; 0.1 MB each."""
WORKSPACE_M = 0.35
"""An object that strays further than this from the origin, or below the table, ends the episode."""


class GraspTask:
    """`num_envs` episodes at once. Quantities of the method keep its names; docstrings give shapes and frames."""

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
        """`in_order`: trial i is about object i modulo the library's size; else objects are drawn evenly.

        All tensors that come and go lie on `device`, the engine's; `warp`: buffers of engine=warp.
        """
        check_rates(cfg, physics)
        self.cfg, self.hand, self.library, self.seed = cfg, hand, library, seed
        self.num_envs, self.auto_reset, self.in_order = num_envs, auto_reset, in_order
        if engine == "warp":  # thousands of environments begin at once: files read again would take longer than they
            library.keep(min(len(library), KEPT_OBJECTS))
        pool = ModelPool(hand, library, physics, mount)
        self.engine: Engine = make_engine(engine, pool, num_envs, num_threads, warp)
        self.device = device = self.engine.device
        """Where the task lives."""
        self._plan = starts.Planner(hand, mount, cfg.reset)
        self.step_s = 1.0 / cfg.rate_hz
        self.grasp_steps, self.lift_steps, self.episode_steps = cfg.phase_steps
        joints, keypoints, bodies = len(hand.joint_names), len(hand.keypoint_names), len(hand.contact_bodies)
        self.num_actions = 6 + joints
        self.layouts = {
            "teacher": teacher_layout(joints, keypoints, self.num_actions, bodies),
            "student": student_layout(joints, keypoints, self.num_actions, cfg.view.live),
        }
        self.control = HandControl(hand, cfg.scales, cfg.corrected, cfg.wrist, self.step_s, num_envs, device)
        self.sensing = Sensing(cfg.randomize, hand, num_envs, device)
        self.view = make_view(cfg.view, cfg.randomize, pool, self.engine)
        self.commanding = Commanding(cfg.randomize, joints, num_envs, device)
        self.disturber = Disturber(disturbance, hand, num_envs, self.step_s, device)
        self.rewards = Rewards(cfg.reward, hand, cfg.lift_m, device)
        self.judge = Judge(num_envs, self.step_s, device)
        self.guard = Guard(num_envs, self.episode_steps, self.num_actions, device)
        self._retreat = Retreat(num_envs, joints, self.step_s, device)
        self.history = History(num_envs, self.layouts["student"], device)
        self._allocate()

    def _allocate(self) -> None:
        n, device = self.num_envs, self.device
        self.seeds = torch.full((n,), self.seed, dtype=torch.int64, device=device)
        """(env,) with the trial's number, the source of all that is random; may be written between episodes."""
        self.object_weights: np.ndarray | None = None
        """(object,) probabilities with which objects are drawn, see sim.weighting; None: evenly."""
        self.trial = torch.full((n,), -1, dtype=torch.int64, device=device)
        self.objects, self._next_trial = [""] * n, 0
        self.step_index = torch.zeros(n, dtype=torch.int64, device=device)
        """(env,) control steps since the reset."""
        self.clock = torch.zeros_like(self.step_index)
        """(env,) the same, but since the palm was at its last pre-grasp; negative on the way there."""
        self.draws = Episode.empty(n, len(self.hand.joint_names), device)
        self._last_palm_pos_w = torch.zeros(n, 3, dtype=torch.float64, device=device)
        self._action = torch.zeros(n, self.num_actions, device=device)
        self._points_o = torch.zeros(n, POINTS, 3, device=device)  # the whole surface, object frame

    @property
    def phases(self) -> Phases:
        """Where the episodes are."""
        return Phases(self.clock, self.grasp_steps, self.lift_steps, self.episode_steps)

    def reset(self, trials: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Start an episode in every environment; `trials`, one number each, make them reproducible alone."""
        if trials is not None and len(trials) != self.num_envs:
            raise ValueError(f"reset needs one trial per environment ({self.num_envs}), got {len(trials)}")
        self._begin(torch.arange(self.num_envs, device=self.device), trials)
        return self.observe()

    def restart(self, rows: Tensor, trials: Sequence[int]) -> dict[str, Tensor]:
        """Start episodes `trials` in `rows` (sorted), leave the others alone; observations of all environments."""
        self._begin(rows.to(self.device), trials)
        return self.observe()

    def _begin(self, rows: Tensor, trials: Sequence[int] | None = None) -> None:
        """Open new episodes in `rows` (sorted) and leave the other rows alone."""
        if trials is None:
            trials = range(self._next_trial, self._next_trial + len(rows))
            self._next_trial += len(rows)
        self.trial[rows] = torch.tensor(trials, device=self.device)
        random = TrialRandom.of_trials(self.seeds[rows], self.trial[rows])
        for row, number in zip(rows.tolist(), self._object_numbers(rows, random).tolist(), strict=True):
            self.objects[row] = self.library.names[number]
        self.draws.write(rows, draw_episode(random, self.cfg.reset, self.cfg.randomize, len(self.hand.joint_names)))
        self._place(rows)
        self._action[rows], self.step_index[rows], self.clock[rows] = 0.0, 0, 0
        self.judge.reset(rows, self.engine.state)
        self.guard.reset(rows)
        self._measure()
        self.history.begin(rows, self._felt)

    def _object_numbers(self, rows: Tensor, random: TrialRandom) -> Tensor:
        """Which object of the library (row,) each trial is about."""
        if self.in_order:
            return self.trial[rows] % len(self.library)
        weights = None if self.object_weights is None else torch.from_numpy(self.object_weights).to(self.device)
        return draw_object(random, len(self.library), weights)

    def _place(self, rows: Tensor) -> None:
        """Put the scenes of `rows` where their trials start."""
        draws = self.draws.rows(rows)
        self.disturber.reset(rows, draws)
        names = [self.objects[row] for row in rows.tolist()]
        pos, quat = starts.place_objects(self.library, names, draws)
        camera = self.view.look(rows, names, pos, quat, draws)
        palm = self._plan(self.view.points_w[rows], camera, draws)
        self._retreat.begin(rows, palm)
        self.engine.reset(rows, starts.start(self.hand, names, pos, quat, palm, draws))
        self._points_o[rows] = starts.surface(self.library, names, draws.size)
        state = self.engine.state  # an arm may not reach the planned pose
        palm = replace(palm, palm_pos_w=state.palm_pos_w[rows].double(), palm_quat_w=state.palm_quat_w[rows].double())
        self.control.reset(rows, palm)
        self._last_palm_pos_w[rows] = palm.palm_pos_w
        self.sensing.begin(rows, state)
        self.commanding.begin(rows, state)

    def step(self, action: Tensor, grip: Tensor | None = None) -> Step:
        """One control step with actions (env, num_actions), see the module; `grip` (env,): what whoever acts feels."""
        self._action = action.detach().to(self.device, torch.float32).clamp(-self.cfg.action_clip, self.cfg.action_clip)
        self.guard.record(self.step_index, self._action)
        distance = self._object_vectors.norm(dim=-1).amin(dim=1)
        self.disturber.act(self.engine, self.draws, self.phases, distance, self._points_o)
        targets = self.control.act(self._action, self.sensed, middle_xy(self.view.points_w), self.phases, grip)
        targets = self._retreat.steer(self.control, self.clock, targets)
        (joints, palm_pos, palm_quat), late = self.commanding.send(targets, self.draws, self.step_index)
        self.engine.step(joints, palm_pos, palm_quat, self.step_s, late)
        self.sensing.advance(self.engine.state)
        terminated, truncated = self._advance_clock()
        arrived = self._arrive() if self._retreat.under_way else None
        self._measure(look=True)
        self.history.push(self._felt)
        if arrived is not None:
            self.history.begin(arrived, self._felt)
        reward, terms = self._reward()
        info: dict = {"terms": terms, "outcomes": self._ended(terminated | truncated)}
        if self.auto_reset and (terminated | truncated).any():
            info["final_obs"] = self.observe()
            self._begin((terminated | truncated).nonzero().squeeze(1))
        return Step(self.observe(), reward, terminated, truncated, info)

    def try_again(self, rows: Tensor) -> None:
        """Give up the grasps of `rows` (sorted): palms go aside, the camera looks, another grasp is planned and begun.

        Until the clock stands at zero actions count for nothing there. `policies.attempts` decides when.
        """
        self.clock[rows] = -self._retreat.aside(rows, self.control)
        self.judge.try_again(rows)
        self.disturber.let_go(rows)

    def _arrive(self) -> Tensor:
        """Palms that went aside go on to a new pre-grasp; where others have come to theirs (row,) a grasp begins."""
        there = ((self.clock == 0) & (self.step_index > 0)).nonzero().squeeze(1)
        if (looks := self._retreat.looks[there]).any():
            self._plan_again(there[looks])
        self._retreat.under_way = bool((self.clock < 0).any())
        begun = there[~looks]
        self.control.start(begun)
        self._action[begun] = 0.0
        return begun

    def _plan_again(self, rows: Tensor) -> None:
        """A look and a plan; the trial ends where the object is not seen or out of reach."""
        seen = self.view.look_again(rows, self.objects, self.engine.state, self.draws, self.step_index)
        gone = ~seen | (middle_xy(self.view.points_w[rows]).abs() > WORKSPACE_M).any(dim=1)
        self.clock[rows[gone]] = self.episode_steps - 1
        if len(rows := rows[~gone]):
            points_w, draws = self.view.points_w[rows], self.draws.rows(rows)
            place_w = torch.nn.functional.pad(middle_xy(points_w), (0, 1))
            plan = self._plan(points_w, place_w + draws.approach_offset, draws, self._retreat.tried.marks[rows])
            self.clock[rows] = -self._retreat.on(rows, self.control, plan)
            self.control.reset(rows, plan)

    def _advance_clock(self) -> tuple[Tensor, Tensor]:
        """After physics: judge the episodes; which (env,) terminated, and which reached their full length."""
        phases, broken = self.phases, ~self.engine.finite()
        rows = broken.nonzero().squeeze(1)
        if len(rows):  # nothing that is not finite may reach rewards and observations
            for row in rows[(self.judge.attempts[rows] == 1) & (phases.step[rows] < self.episode_steps)].tolist():
                trial, seed = int(self.trial[row]), int(self.seeds[row])
                self.guard.dump(row, trial, seed, self.objects[row], int(self.step_index[row]) + 1)
            self._place(rows)
        pos = self.engine.state.object_pos_w
        strayed = (pos[:, :2].abs().amax(dim=1) > WORKSPACE_M) | (pos[:, 2] < -0.05)
        self.judge.update(self.engine.state, phases.lifting, phases.lift_ends, phases.holding, broken, strayed)
        self.guard.count(broken, strayed)
        self.step_index += 1
        self.clock += 1
        terminated = broken | strayed
        return terminated, (self.clock >= self.episode_steps) & ~terminated

    def _measure(self, look: bool = False) -> None:
        """Readings, after a step a look, and hand-centric vectors in the palm frame: true ones, those of the view."""
        state = self.engine.state
        self.sensed = sensed = self.sensing.read(state, self.draws, self.step_index)
        self._felt = hand_terms(sensed, state.joint_target, self.control.course)
        if look:  # in lift and hold the object goes along with the palm
            held, resting = (self.clock > first for first in (self.grasp_steps, self.grasp_steps + self.lift_steps))
            self.view.update(state, self.draws, self.step_index, sensed, held, resting)
        object_pos, object_quat = state.object_pos_w[:, None], state.object_quat_w[:, None]
        keypoints_o = quat_rotate_inverse(object_quat, state.keypoints_w - object_pos)
        to_object_w = quat_rotate(object_quat.float(), nearest_vectors(keypoints_o.float(), self._points_o))
        to_visible_w = nearest_vectors(sensed.keypoints_w.float(), self.view.points_w)
        if self.cfg.vectors == "world":
            self._object_vectors, self._visible_vectors = to_object_w, to_visible_w
        else:
            self._object_vectors = quat_rotate_inverse(state.palm_quat_w[:, None].float(), to_object_w)
            self._visible_vectors = quat_rotate_inverse(sensed.palm_quat_w[:, None].float(), to_visible_w)

    def _reward(self) -> tuple[Tensor, dict[str, float]]:
        state, just_done = self.engine.state, replace(self.phases, step=self.clock - 1)
        palm_velocity = (state.palm_pos_w - self._last_palm_pos_w) / self.step_s
        self._last_palm_pos_w.copy_(state.palm_pos_w)
        offset = state.object_pos_w - self.judge.start_pos_w
        success = (self.clock == self.episode_steps) & self.judge.held
        return self.rewards(state, just_done, self._object_vectors, palm_velocity, offset, success, self._action)

    def observe(self) -> dict[str, Tensor]:
        """Both observation groups of the current state."""
        state, course = self.engine.state, self.control.course
        common = progress_terms(self.phases, course.remaining_m, self._action)
        seen = common | self._felt
        true = seen if self.sensing.exact else common | hand_terms(exact(state), state.joint_target, course)
        sight = self.view.terms() | {"visible_vectors": self._visible_vectors}
        values = {
            "student": seen | sight | {"history": self.history.frames},
            "teacher": true | privileged_terms(state, self.judge.start_pos_w, self._object_vectors),
        }
        return {group: layout.assemble(values[group]) for group, layout in self.layouts.items()}

    def _ended(self, done: Tensor) -> list[Outcome]:
        ended = done.nonzero().squeeze(1)
        if not len(ended):
            return []
        rows, trials = torch.stack([ended, self.trial[ended]]).tolist()
        names = [self.objects[row] for row in rows]
        return self.judge.outcomes(rows, trials, names, self.disturber.name)

    def outcomes(self, mask: Tensor | None = None) -> list[Outcome]:
        """Outcomes of the episodes as they stand, of those in `mask` (env,) or of all."""
        self.engine.check()
        return self._ended(torch.ones_like(self.judge.held) if mask is None else mask)
