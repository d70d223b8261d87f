"""The grasping task: an object on a table, a hand above it, one camera's view of it; grasp, lift, hold.

    step     act -> physics -> judge -> reward -> reset the finished -> observe
    phases   grasp (the policy moves palm and fingers) -> lift (the palm rises) -> hold; the fingers are always the policy's

An action is a correction of a scripted prior: a palm increment in the palm frame and finger targets about the measured
joint positions, so that a constant action on a blocked finger is a constant torque.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from perception.features import nearest_vectors
from perception.geometry import (
    quat_conjugate,
    quat_from_rotvec,
    quat_multiply,
    quat_rotate,
    quat_rotate_inverse,
    rotvec_from_quat,
)
from perception.observation import student_layout
from perception.prior import Advance, PriorCfg, prior_step
from sim import rewards, starts
from sim.cpu import CpuEngine
from sim.disturbances import FORCE_TURN_S, SHIFT_TRIGGER_M, disturbance_named, free_shift
from sim.engine import Engine
from sim.guard import Guard
from sim.hands import HandSpec
from sim.objects import ObjectLibrary
from sim.observations import teacher_layout
from sim.outcomes import Judge, Outcome
from sim.randomize import Episode, RandomizeCfg, draw_episode, draw_object, trial_generator
from sim.scene import ModelPool, PhysicsCfg

WORKSPACE_M = 0.35
"""An object that strays further than this from the origin, or below the table, ends the episode."""


@dataclass(frozen=True)
class TaskCfg:
    """Rates, phases and scales of the task."""

    rate_hz: float = 20.0
    """Control rate, 10 to 50 Hz."""
    grasp_s: float = 1.8
    """Length of the grasp phase [s]."""
    lift_s: float = 0.8
    """Length of the lift [s]."""
    hold_s: float = 3.0
    """Length of the hold [s]."""
    lift_m: float = 0.15
    """How far the palm rises."""
    prior: str = "on"
    """on: actions correct the scripted prior; off: the published method's plain residual."""
    palm_action_m_s: float = 0.1
    """Palm speed per unit of action."""
    palm_action_rad_s: float = 0.6
    """Palm angular speed per unit of action."""
    finger_action_rad: float = 0.15
    """Finger target ahead of the measured position per unit of action."""
    action_clip: float = 3.0
    """Actions are clipped to this magnitude."""
    scripted: PriorCfg = field(default_factory=PriorCfg)
    randomize: RandomizeCfg = field(default_factory=RandomizeCfg)
    reward: rewards.RewardCfg = field(default_factory=rewards.RewardCfg)

    def __post_init__(self) -> None:
        if not 10 <= self.rate_hz <= 50:
            raise ValueError(f"task.rate_hz must lie in 10..50 Hz, got {self.rate_hz}")
        if self.prior not in ("on", "off"):
            raise ValueError(f"task.prior must be 'on' or 'off', got '{self.prior}'")
        if min(self.grasp_s, self.lift_s, self.hold_s) <= 0:
            raise ValueError("task.grasp_s, lift_s and hold_s must be positive")
        if self.lift_m <= 0.1:
            raise ValueError(f"task.lift_m must exceed the 0.1 m that success asks for, got {self.lift_m}")

    def steps(self, seconds: float) -> int:
        """Control steps in a phase of that length."""
        return round(seconds * self.rate_hz)


@dataclass(frozen=True)
class Step:
    """What one control step returns; first dimension: environment."""

    obs: dict[str, Tensor]
    """Observation groups "teacher" and "student", float32."""
    reward: Tensor
    """(env,) float32."""
    terminated: Tensor
    """(env,) bool: the episode ended because physics failed or the object left the workspace."""
    truncated: Tensor
    """(env,) bool: the episode reached its full length."""
    info: dict
    """"terms": mean of each weighted reward term; "outcomes": list of Outcome of the episodes that ended; "final_obs":
    observations before the reset, where episodes ended and the task resets them itself."""


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
    ) -> None:
        """`in_order`: trial i is about object i modulo the library's size; else objects are drawn evenly."""
        _check_rates(cfg, physics)
        self.cfg, self.hand, self.library, self.seed = cfg, hand, library, seed
        self.num_envs, self.auto_reset, self.in_order = num_envs, auto_reset, in_order
        self.disturbance_name, self.disturbance = disturbance, disturbance_named(disturbance)
        self.engine: Engine = CpuEngine(ModelPool(hand, library, physics, mount), num_envs, num_threads)
        self.step_s = 1.0 / cfg.rate_hz
        self.grasp_steps, self.lift_steps = cfg.steps(cfg.grasp_s), cfg.steps(cfg.lift_s)
        self.episode_steps = self.grasp_steps + self.lift_steps + cfg.steps(cfg.hold_s)
        joints, keypoints, bodies = len(hand.joint_names), len(hand.keypoint_names), len(hand.contact_bodies)
        self.num_actions = 6 + joints
        self.layouts = {
            "teacher": teacher_layout(joints, keypoints, self.num_actions, bodies),
            "student": student_layout(joints, keypoints, self.num_actions),
        }
        self.judge = Judge(num_envs, self.step_s)
        self.guard = Guard(num_envs, self.episode_steps, self.num_actions)
        self._load_hand()
        self._allocate()

    def _load_hand(self) -> None:
        hand = self.hand
        self._lower, self._upper = torch.tensor(hand.joint_lower), torch.tensor(hand.joint_upper)
        self._closing = torch.tensor(hand.closing)
        self._keypoint_weights = torch.tensor(hand.keypoint_weights).float()
        self._contact_weights = torch.tensor(hand.contact_weights).float()
        self._thumb = torch.tensor([body in hand.thumb_bodies for body in hand.contact_bodies])
        self._fingers = ~self._thumb
        self._fingers[0] = False  # the palm is neither

    def _allocate(self) -> None:
        n, f64 = self.num_envs, torch.float64
        self.trial = torch.full((n,), -1, dtype=torch.int64)
        self._next_trial = 0
        self.objects = [""] * n
        self.step_index = torch.zeros(n, dtype=torch.int64)
        self.draws = Episode.empty(n, len(self.hand.joint_names))
        self._palm_start_pos, self._palm_start_quat = torch.zeros(n, 3, dtype=f64), torch.zeros(n, 4, dtype=f64)
        self._palm_pos, self._palm_quat = torch.zeros(n, 3, dtype=f64), torch.zeros(n, 4, dtype=f64)  # targets
        self._last_palm_pos = torch.zeros(n, 3, dtype=f64)
        self._depth, self._travelled = torch.zeros(n, dtype=f64), torch.zeros(n, dtype=f64)
        self._shifted, self._gripped = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
        self._action = torch.zeros(n, self.num_actions)
        self.visible_w = torch.zeros(n, starts.POINTS, 3)
        """(env, point, 3) what the camera saw of the object when the episode began, world frame [m]."""
        self._points = torch.zeros(n, starts.POINTS, 3)  # the whole surface, object frame

    def reset(self, trials: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Start an episode in every environment; `trials` (one number per environment) makes each reproducible alone."""
        if trials is not None and len(trials) != self.num_envs:
            raise ValueError(f"reset needs one trial per environment ({self.num_envs}), got {len(trials)}")
        self._begin(torch.arange(self.num_envs), trials)
        return self._observe()

    def _begin(self, rows: Tensor, trials: Sequence[int] | None = None) -> None:
        """Open new episodes in `rows` (sorted) and leave the other rows alone."""
        if trials is None:
            trials = range(self._next_trial, self._next_trial + len(rows))
            self._next_trial += len(rows)
        for row, trial in zip(rows.tolist(), trials, strict=True):
            rng = trial_generator(self.seed, trial)
            drawn = draw_object(rng, self.library)
            self.objects[row] = self.library.names[trial % len(self.library)] if self.in_order else drawn
            self.trial[row] = trial
            self.draws.write(row, draw_episode(rng, self.cfg.randomize, len(self.hand.joint_names)))
        draws = self.draws.rows(rows)
        draws.mass_scale = draws.mass_scale * self.disturbance.mass_scale
        if self.disturbance.friction is not None:
            draws.friction = torch.full_like(draws.friction, self.disturbance.friction)
        names = [self.objects[row] for row in rows.tolist()]
        pos, quat = starts.place_objects(self.library, names, draws)
        camera = torch.cat([pos[:, :2], torch.zeros_like(pos[:, 2:])], dim=1) + draws.camera_offset
        self.visible_w[rows] = starts.see(self.library, names, pos, quat, camera)
        palm = starts.plan(self.hand, self.visible_w[rows], camera, draws)
        self.engine.reset(rows, starts.start(self.hand, names, pos, quat, palm, draws))
        self._points[rows] = starts.surface(self.library, names)
        self._palm_start_pos[rows] = self._palm_pos[rows] = self._last_palm_pos[rows] = palm.palm_pos_w
        self._palm_start_quat[rows] = self._palm_quat[rows] = palm.palm_quat_w
        self._depth[rows], self._travelled[rows] = palm.depth_m, 0.0
        self._shifted[rows], self._gripped[rows] = False, False
        self._action[rows], self.step_index[rows] = 0.0, 0
        self.judge.reset(rows, self.engine.state)
        self.guard.reset(rows)
        self._measure()

    def step(self, action: Tensor) -> Step:
        """One control step with actions (env, num_actions); see the module docstring for what they mean."""
        self._action = action.detach().float().clamp(-self.cfg.action_clip, self.cfg.action_clip)
        self.guard.record(self.step_index, self._action)
        self._disturb()
        self.engine.step(*self._act(), self.step_s)
        terminated, truncated = self._settle_step()
        self._measure()
        reward, terms = self._reward()
        info: dict = {"terms": terms, "outcomes": self._ended(terminated | truncated)}
        if self.auto_reset and (terminated | truncated).any():
            info["final_obs"] = self._observe()
            self._begin((terminated | truncated).nonzero().squeeze(1))
        return Step(self._observe(), reward, terminated, truncated, info)

    def _act(self) -> tuple[Tensor, Tensor, Tensor]:
        """Finger targets (env, joint) and palm target pose from the prior and the current action."""
        cfg, state = self.cfg, self.engine.state
        grasping = self.step_index < self.grasp_steps
        lifting = ~grasping & (self.step_index < self.grasp_steps + self.lift_steps)
        increment = self._action[:, :3].double() * (cfg.palm_action_m_s * self.step_s)
        fingers = self._action[:, 6:].double() * cfg.finger_action_rad
        if cfg.prior == "on":
            script = self._script()
            increment[:, 0] += script.palm_m
            fingers = fingers + script.finger_rad
            self._travelled += torch.where(grasping, script.palm_m, 0.0)
        turn = quat_from_rotvec(self._action[:, 3:6].double() * (cfg.palm_action_rad_s * self.step_s))
        self._palm_pos += torch.where(grasping[:, None], quat_rotate(self._palm_quat, increment), 0.0)
        self._palm_pos[:, 2] += torch.where(lifting, cfg.lift_m / self.lift_steps, 0.0)
        turned = quat_multiply(self._palm_quat, turn)
        turned = turned / turned.norm(dim=1, keepdim=True)
        self._palm_quat = torch.where(grasping[:, None], turned, self._palm_quat)
        return (state.joint_pos + fingers).clamp(self._lower, self._upper), self._palm_pos, self._palm_quat

    def _script(self) -> Advance:
        normal_w = quat_rotate(self._palm_quat, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
        return prior_step(
            self.cfg.scripted,
            closing=self._closing,
            floor_m=self.hand.grasp.floor_m,
            step_s=self.step_s,
            phase_s=self.step_index * self.step_s,
            grasp_s=self.grasp_steps * self.step_s,
            travelled_m=self._travelled,
            depth_m=self._depth,
            palm_height_m=self._palm_pos[:, 2],
            palm_down=-normal_w[:, 2],
            keypoint_height_m=self.engine.state.keypoints_w[..., 2],
        )

    def _disturb(self) -> None:
        """Move or push objects as the disturbance says."""
        state = self.engine.state
        if self.disturbance.shift_m > 0:
            near = self._object_vectors_p.norm(dim=-1).amin(dim=1) < SHIFT_TRIGGER_M
            rows = (near & ~self._shifted & (self.step_index < self.grasp_steps)).nonzero().squeeze(1)
            if len(rows):
                self._shift(rows)
        if self.disturbance.force_n > 0:
            turn = (self.step_index * self.step_s / FORCE_TURN_S).long() % self.draws.force.shape[1]
            direction = self.draws.force[torch.arange(self.num_envs), turn]
            thumb, finger = state.object_contact & self._thumb, state.object_contact & self._fingers
            self._gripped |= thumb.any(dim=1) & finger.any(dim=1)
            self.engine.push(direction * self.disturbance.force_n * self._gripped[:, None])

    def _shift(self, rows: Tensor) -> None:
        state = self.engine.state
        pos = state.object_pos_w[rows]
        points = quat_rotate(state.object_quat_w[rows][:, None], self._points[rows].double()) + pos[:, None]
        offset = free_shift(self.draws.shift[rows], self.disturbance.shift_m, points, state.keypoints_w[rows])
        pos[:, :2] += offset
        self.engine.move_object(rows, pos)
        self._shifted[rows] = True

    def _settle_step(self) -> tuple[Tensor, Tensor]:
        """After physics: advance the clock, judge the episodes, say which terminated and which reached their end."""
        state, step = self.engine.state, self.step_index
        broken = ~self.engine.finite()
        pos = state.object_pos_w
        strayed = (pos[:, :2].abs().amax(dim=1) > WORKSPACE_M) | (pos[:, 2] < -0.05)
        lift_end = self.grasp_steps + self.lift_steps
        self.judge.update(
            state,
            lifting=(step >= self.grasp_steps) & (step < lift_end),
            lift_ends=step == lift_end - 1,
            holding=step >= lift_end,
            unstable=broken,
        )
        self.guard.count(broken, strayed)
        for row in broken.nonzero().squeeze(1).tolist():
            self.guard.dump(row, int(self.trial[row]), self.seed, self.objects[row], int(step[row]) + 1)
        self.step_index = step + 1
        terminated = broken | strayed
        return terminated, (self.step_index >= self.episode_steps) & ~terminated

    def _measure(self) -> None:
        """Hand-centric vectors of the new state, in the palm frame."""
        state = self.engine.state
        object_pos, object_quat = state.object_pos_w[:, None], state.object_quat_w[:, None]
        keypoints_o = quat_rotate_inverse(object_quat, state.keypoints_w - object_pos)
        to_object_w = quat_rotate(object_quat.float(), nearest_vectors(keypoints_o.float(), self._points))
        to_visible_w = nearest_vectors(state.keypoints_w.float(), self.visible_w)
        palm = state.palm_quat_w[:, None].float()
        self._object_vectors_p = quat_rotate_inverse(palm, to_object_w)
        self._visible_vectors_p = quat_rotate_inverse(palm, to_visible_w)

    def _reward(self) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of the named terms (env,), and the mean of each weighted term."""
        state, cfg = self.engine.state, self.cfg.reward
        step = self.step_index - 1
        grasping = (step < self.grasp_steps).float()
        lifted = ((step - self.grasp_steps + 1) / self.lift_steps).clamp(0, 1)
        velocity = (state.palm_pos_w - self._last_palm_pos) / self.step_s
        self._last_palm_pos.copy_(state.palm_pos_w)
        offset = state.object_pos_w - self.judge.start_pos_w
        terms = {
            "reach": grasping * rewards.reach(self._object_vectors_p.norm(dim=-1), self._keypoint_weights),
            "contact": rewards.contact(state.object_contact, self._contact_weights),
            "force": rewards.force(state.object_force_w.norm(dim=-1), self._contact_weights),
            "opposition": rewards.opposition(state.object_contact, self._thumb, self._fingers),
            "table_contact": grasping * rewards.table_contact(state.table_contact),
            "displacement": grasping * rewards.displacement(offset[:, :2]),
            "object_speed": grasping * rewards.object_speed(state.object_linvel_w),
            "object_spin": grasping * rewards.object_spin(state.object_angvel_w),
            "palm_speed": grasping * rewards.palm_speed(velocity),
            "lift": (1 - grasping) * rewards.lift(offset[:, 2], lifted * self.cfg.lift_m),
            "success": (self.step_index == self.episode_steps) & self.judge.held,
            "action": rewards.action(self._action),
        }
        weighted = {name: getattr(cfg, name) * value.float() for name, value in terms.items()}
        return torch.stack(list(weighted.values())).sum(dim=0), {k: float(v.mean()) for k, v in weighted.items()}

    def _observe(self) -> dict[str, Tensor]:
        """Both observation groups of the current state."""
        state, f32 = self.engine.state, torch.float32
        palm = state.palm_quat_w
        start_quat = quat_conjugate(self._palm_start_quat)
        up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        time = self.step_index.to(f32)
        values = {
            "joint_pos": state.joint_pos,
            "tracking_error": state.joint_target - state.joint_pos,
            "palm_displacement": quat_rotate(start_quat, state.palm_pos_w - self._palm_start_pos),
            "palm_rotation": rotvec_from_quat(quat_multiply(start_quat, palm)),
            "palm_lag": quat_rotate_inverse(palm, self._palm_pos - state.palm_pos_w),
            "palm_lag_rotation": rotvec_from_quat(quat_multiply(quat_conjugate(palm), self._palm_quat)),
            "visible_vectors": self._visible_vectors_p,
            "heights": state.keypoints_w[..., 2],
            "up": quat_rotate_inverse(palm, up),
            "remaining_depth": self._depth - self._travelled,
            "phase": torch.stack(
                [
                    (time / self.grasp_steps).clamp(0, 1),
                    ((time - self.grasp_steps) / self.lift_steps).clamp(0, 1),
                    (time >= self.grasp_steps).to(f32),
                ],
                dim=1,
            ),
            "last_action": self._action,
            "contact": state.object_contact,
            "contact_force": state.object_force_w.norm(dim=-1).clamp(max=30.0),
            "object_vectors": self._object_vectors_p,
            "object_linvel": quat_rotate_inverse(palm, state.object_linvel_w),
            "object_angvel": quat_rotate_inverse(palm, state.object_angvel_w),
            "object_displacement": quat_rotate_inverse(palm, state.object_pos_w - self.judge.start_pos_w),
            "object_in_palm": quat_rotate_inverse(palm, state.object_pos_w - state.palm_pos_w),
            "object_mass": state.object_mass,
            "object_friction": state.object_friction,
        }
        return {group: layout.assemble(values) for group, layout in self.layouts.items()}

    def _ended(self, done: Tensor) -> list[Outcome]:
        rows = done.nonzero().squeeze(1).tolist()
        return [self.judge.outcome(r, int(self.trial[r]), self.objects[r], self.disturbance_name) for r in rows]

    def outcomes(self) -> list[Outcome]:
        """Outcomes of all environments' episodes as they stand."""
        return self._ended(torch.ones(self.num_envs, dtype=torch.bool))


def _check_rates(cfg: TaskCfg, physics: PhysicsCfg) -> None:
    substeps = 1.0 / cfg.rate_hz / physics.timestep_s
    if abs(substeps - round(substeps)) > 1e-3:
        raise ValueError(
            f"physics.timestep_s={physics.timestep_s} does not divide the control period {1 / cfg.rate_hz:.4f} s "
            f"(task.rate_hz={cfg.rate_hz}): take a timestep of period / n"
        )
