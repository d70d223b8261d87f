"""Trials of a policy in the simulated task, pushes and moves on request, a count of results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dexgrasp.perception.transforms import quat_rotate
from dexgrasp.policies.agents.registry import Agent
from dexgrasp.policies.evaluation.episodes import ATTEMPTS, RegraspRunner
from dexgrasp.sim.task.disturbances import DISTURBANCES, PUSH_S, free_shift
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.sim.task.regrasp import grip_confidence
from dexgrasp.utils.text import comma_separated, did_you_mean

Preset = Literal["policy", "perception"]
PRESETS: tuple[Preset, ...] = ("policy", "perception")
MAX_ENVS = 16
"""Largest number of environments side by side."""
MAX_TRIAL = 2**31
"""Bound of trial numbers."""
AGAIN_S = 1.0
"""Time for which the end of a recording or trial stays visible before the next one starts [s]."""
REWARD = "reward: "
"""Prefix of a reward term's name in the history."""
DIRECTIONS = 12
"""Directions in the table plane among which a move of the object clear of the hand is searched."""


@dataclass(frozen=True)
class Choice:
    """Preset, policy, trials and objects to play in simulation; a wrong value raises ValueError."""

    preset: Preset = "policy"
    policy: str = "synergy"
    disturbance: str = "none"
    num_envs: int = 1
    trial: int = 0
    """Trial of the first environment."""
    object: str = ""
    """Object of all environments; empty: each trial's own."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {comma_separated(PRESETS)}, got '{self.preset}'")
        if self.disturbance not in DISTURBANCES:
            raise ValueError(f"disturbance must be one of {comma_separated(DISTURBANCES)}, got '{self.disturbance}'")
        if not 1 <= self.num_envs <= MAX_ENVS:
            raise ValueError(f"num_envs must lie in 1..{MAX_ENVS}, got {self.num_envs}")
        if not 0 <= self.trial < MAX_TRIAL:
            raise ValueError(f"trial must lie in 0..{MAX_TRIAL - 1}, got {self.trial}")

    def trials(self, objects: Sequence[str]) -> list[int]:
        """Return the trial of each environment; trial i uses object i modulo the number of `objects`."""
        if not self.object:
            return [self.trial + row for row in range(self.num_envs)]
        if self.object not in objects:
            near = did_you_mean(self.object, objects)
            raise ValueError(f"object: no object '{self.object}' among the {len(objects)} of the library.{near}")
        first = self.trial + (list(objects).index(self.object) - self.trial) % len(objects)
        return [first + row * len(objects) for row in range(self.num_envs)]


@dataclass(frozen=True)
class Result:
    """Counts of the trials of one policy and disturbance."""

    policy: str
    disturbance: str
    trials: int
    successes: int
    first_attempt: int
    """Successes with a single grasp."""
    by_hand: int
    """Trials that a push or a move from the page changed; not among `trials`."""


class Results:
    """Counts the results of the session; a trial that is played again counts once."""

    def __init__(self) -> None:
        self._outcomes: dict[tuple[str, str], dict[int, Outcome]] = {}
        self._by_hand: dict[tuple[str, str], int] = {}

    def add(self, policy: str, outcome: Outcome, by_hand: bool) -> None:
        """Add the outcome of a trial; `by_hand`: the page pushed or moved its object."""
        key = policy, outcome.disturbance
        trials = self._outcomes.setdefault(key, {})
        if by_hand:
            self._by_hand[key] = self._by_hand.get(key, 0) + 1
        else:
            trials[outcome.trial] = outcome

    def rows(self) -> list[Result]:
        """Return one row per policy and disturbance, in the order of their first trials."""
        rows = []
        for (policy, disturbance), outcomes in self._outcomes.items():
            won = [outcome.attempts for outcome in outcomes.values() if outcome.success]
            rows.append(
                Result(
                    policy=policy,
                    disturbance=disturbance,
                    trials=len(outcomes),
                    successes=len(won),
                    first_attempt=won.count(1),
                    by_hand=self._by_hand.get((policy, disturbance), 0),
                )
            )
        return rows


@dataclass
class _Push:
    """Push from the page that is under way, and the drawn push that follows it."""

    steps_left: int
    drawn: torch.Tensor
    """(3,) drawn force [N]."""
    drawn_at: torch.Tensor
    """() its time, relative to the lift and hold."""


class TrialHistory:
    """Records quantities of all environments over the time of their present trials, for the plots."""

    def __init__(self) -> None:
        self.time_s: list[float] = []
        self._values: dict[str, list[NDArray[np.float32]]] = {}

    def clear(self) -> None:
        """Forget the past, at the start of new trials."""
        self.time_s, self._values = [], {}

    def append(self, time_s: float, values: dict[str, torch.Tensor]) -> None:
        """Append one step: quantities (env,) by name, the same names every time."""
        self.time_s.append(time_s)
        for name, value in values.items():
            self._values.setdefault(name, []).append(value.detach().cpu().numpy().astype(np.float32))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the recorded quantities; none before the first step."""
        return tuple(self._values)

    def series(self, names: Sequence[str], row: int) -> tuple[NDArray[np.float64], ...]:
        """Return time [s] and the quantities `names` of one environment, each (step,)."""
        columns = [np.array([step[row] for step in self._values[name]], np.float64) for name in names]
        return np.array(self.time_s, np.float64), *columns

    def last(self, name: str, row: int) -> float:
        """Return the last value of a quantity in one environment, or NaN."""
        values = self._values.get(name)
        return float(values[-1][row]) if values else float("nan")


class Rollout:
    """Plays trials of a policy in all environments of a task, block after block."""

    def __init__(self, task: GraspTask, policy: Agent, name: str, results: Results, choice: Choice) -> None:
        """`task` resets nothing itself and takes objects in order; `name`: the policy in `results`."""
        self.task, self._policy, self._name, self._results = task, policy, name, results
        self.history = TrialHistory()
        self.outcomes: list[Outcome | None] = []
        """Outcome of each environment's trial; None before its end."""
        self._rng = np.random.default_rng(choice.trial)
        self.start(choice)

    @property
    def step(self) -> int:
        """Return the control steps since the start of the trials."""
        return int(self.task.steps_since_reset[0])

    @property
    def finished(self) -> bool:
        """Return whether the trials of all environments have ended."""
        return None not in self.outcomes

    def start(self, choice: Choice) -> None:
        """Start the trials of `choice`; raise ValueError, without any change, where its object does not exist."""
        self._begin(choice.trials(self.task.library.names))
        self._stride = len(self.task.library.names) if choice.object else 1

    def restart(self) -> None:
        """Start the present trials again."""
        self._begin(self.task.trial.tolist())

    def next(self) -> None:
        """Start the next trials: of the same object, where one was chosen."""
        last = int(self.task.trial[-1])
        self._begin([last + (row + 1) * self._stride for row in range(self.task.num_envs)])

    def advance(self) -> float:
        """Run one control step, or start the next trials after the last one; return the time it takes [s].

        The end of the trials is kept for one call, so that a pause or restart meanwhile finds it.
        """
        if self.finished and not self._end_shown:
            self._end_shown = True
            return AGAIN_S
        if self.finished:
            self.next()
            return 0.0
        step = self._runner.step(self.obs)
        self.obs = step.obs
        self._end_pushes()
        self._record(step.info["terms"], step.reward)
        done = (self.task.steps_since_pregrasp == self.task.episode_steps).nonzero().squeeze(1)
        if len(done):
            self._finish(done)
        return self.task.step_s

    def push(self, row: int, force_n: float) -> NDArray[np.float64]:
        """Push the object of one environment for PUSH_S, horizontally at random; return the force (3,) [N]."""
        if not np.isfinite(force_n) or not 0 < force_n <= 50:
            raise ValueError(f"push: the force must lie above 0 and not above 50 N, got {force_n}")
        task, angle = self.task, self._rng.uniform(0, 2 * np.pi)
        force_w = force_n * np.array([np.cos(angle), np.sin(angle), 0.0])
        if row not in self._pushes:
            self._pushes[row] = _Push(0, drawn=task.draws.push[row].clone(), drawn_at=task.draws.push_at[row].clone())
        self._pushes[row].steps_left = round(PUSH_S / task.step_s)
        held_steps = task.episode_steps - task.grasp_steps
        task.draws.push[row] = torch.from_numpy(force_w)
        task.draws.push_at[row] = (int(task.phases.step[row]) - task.grasp_steps + 0.5) / held_steps
        self._by_hand.add(row)
        return force_w

    def move(self, row: int, distance_m: float) -> NDArray[np.float64]:
        """Move the object of one environment across the table; return the displacement (2,) [m].

        The move is clear of the hand, and the policy is not told.
        """
        if not np.isfinite(distance_m) or not 0 < distance_m <= 0.2:
            raise ValueError(f"move: the distance must lie above 0 and not above 20 cm, got {100 * distance_m:g}")
        state, rows = self.task.engine.state, torch.tensor([row])
        angles = self._rng.uniform(0, 2 * np.pi) + np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
        tries = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], axis=-1))[None]
        pos = state.object_pos_w[rows].double()
        vertices = torch.from_numpy(self.task.object_mesh(row)[0]).double()
        points_w = quat_rotate(state.object_quat_w[rows][:, None].double(), vertices[None]) + pos[:, None]
        distance = torch.tensor([distance_m], dtype=torch.float64)
        shift = free_shift(tries, distance, points_w, state.keypoints_w[rows].double())
        pos[:, :2] += shift
        self.task.engine.move_object(rows, pos)
        self.task.disturber.shift_xy_w[row] += shift[0]
        self._by_hand.add(row)
        return shift[0].numpy()

    def _begin(self, trials: list[int]) -> None:
        self.obs = self.task.reset(trials=trials)
        self._policy.reset(trials)
        self._runner = RegraspRunner(self.task, self._policy, ATTEMPTS)
        self.outcomes = [None] * self.task.num_envs
        self._end_shown = False
        self.history.clear()
        self._by_hand: set[int] = set()
        self._pushes: dict[int, _Push] = {}

    def _end_pushes(self) -> None:
        """Restore the drawn push of environments where a push from the page is over."""
        for row, push in list(self._pushes.items()):
            push.steps_left -= 1
            if not push.steps_left:
                self.task.draws.push[row], self.task.draws.push_at[row] = push.drawn, push.drawn_at
                del self._pushes[row]

    def _record(self, means: dict[str, float], reward: torch.Tensor) -> None:
        task, state = self.task, self.task.engine.state
        terms = task.rewards.weighted or {name: reward.new_full(reward.shape, mean) for name, mean in means.items()}
        touch = grip_confidence(state.object_contact.float(), task.hand)
        values = {
            "reward": reward,
            **{REWARD + name: term for name, term in terms.items()},
            "touch": touch,
            "rise": 100 * (state.object_pos_w - task.outcome_tracker.start_pos_w)[:, 2],
            "palm": 100 * state.palm_pos_w[:, 2],
            "force": state.object_force_w.norm(dim=-1).sum(dim=1),
        }
        if self._policy.grip is not None:
            values["grip"] = self._policy.grip
        self.history.append(self.step * task.step_s, values)

    def _finish(self, rows: torch.Tensor) -> None:
        """Store the outcomes of trials that ended; their environments stand still until all have ended."""
        done = torch.zeros(self.task.num_envs, dtype=torch.bool)
        done[rows] = True
        for row, outcome in zip(rows.tolist(), self.task.outcomes(done), strict=True):
            self.outcomes[row] = outcome
            self._results.add(self._name, outcome, by_hand=row in self._by_hand)
        self.task.engine.freeze(rows)
