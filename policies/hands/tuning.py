"""`dexgrasp hands tune`: search the numbers of a hand's grasp styles on generated training objects.

RUN/generations.json   vectors and scores of every generation; the command repeated with its `out` goes on from there
RUN/hand.yaml          the hand with the numbers found: hand=RUN takes it
RUN/result.json        successes before and after, on objects that the search did not use

CMA-ES (Hansen and Ostermeier, Evolutionary Computation 9 (2001) 159-195) searches both styles at once: a trial counts
for the power grasp by the share that its object's height gives to it, and for the pinch grasp by the rest.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from cmaes import CMA
from numpy.typing import NDArray

from dexgrasp.perception.grasp_planning.grasp_style import GraspStyle, power_share
from dexgrasp.policies.agents.registry import ZeroAgent
from dexgrasp.policies.evaluation.episodes import play
from dexgrasp.policies.evaluation.statistics import success_summary
from dexgrasp.policies.evaluation.summary import rate_with_interval
from dexgrasp.policies.input_identity import identify_inputs
from dexgrasp.policies.run_directory import Run
from dexgrasp.sim.hand_setup.hand_yaml import hand_yaml_text, with_styles
from dexgrasp.sim.hand_setup.style_space import StyleSpace
from dexgrasp.sim.objects import ObjectLibrary, open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.hand_file import STYLES
from dexgrasp.sim.robots.models.model_sources import find_hand
from dexgrasp.sim.scene import PhysicsCfg
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg
from dexgrasp.sim.task.outcomes import Outcome
from dexgrasp.utils.bounds import Bounds, NumTrials, Seed, Threads, bounded
from dexgrasp.utils.files import atomic_path, write_json
from dexgrasp.utils.progress import Progress
from dexgrasp.utils.readers import DamagedFileError, read_json_object
from dexgrasp.utils.text import print_table

PART_OF_A_SUCCESS = {"dropped_in_hold": 0.5, "dropped_in_lift": 0.25}
"""Score of a failed trial; other failures score 0, a success 1."""
HOLD_S = 1.0
"""Longest hold during the search; most objects that fall do so in the lift."""
START_SIGMA = 0.5
"""Standard deviation of the first generation, in units of StyleSpace."""

log = logging.getLogger("dexgrasp")
Styles = dict[str, GraspStyle]


@dataclass(frozen=True)
@bounded
class TuneHandCfg:
    """Search open poses, closing directions and offsets of a hand's grasp styles for the most successes."""

    hand: str = "allegro"
    """Hand to tune, by name or path."""
    side: Literal["right", "left"] = "right"
    """Side of the hand."""
    objects: str = "generated:96"
    """Training objects of the search."""
    validation_objects: str = "generated:72:validation"
    """Objects on which the numbers before and after are compared."""
    generations: Annotated[int, Bounds(1, 1000)] = 20
    """Number of generations."""
    population: Annotated[int, Bounds(4, 256)] = 16
    """Candidates in a generation."""
    trials: NumTrials = 64
    """Trials of each candidate in the search; the comparison has `validation_trials` before and as many after."""
    validation_trials: NumTrials = 288
    """Trials of the comparison, before and after each, on the same objects and seeds."""
    seed: Seed = 0
    """Seed of the search and of its trials."""
    num_threads: Threads = 0
    """Threads of the physics; 0 = all cores."""
    out: str = ""
    """Run directory; empty = a new one under runs/."""
    task: TaskCfg = field(default_factory=TaskCfg)
    """Phases, control rate, reset noise."""
    physics: PhysicsCfg = field(default_factory=PhysicsCfg)
    """Physics settings of the search and of the comparison."""
    plugins: tuple[str, ...] = ()
    """Modules or .py files imported first, comma-separated: they may register tasks."""


def tune(cfg: TuneHandCfg) -> dict[str, Any]:
    """Search, compare before and after, write hand.yaml and result.json; return the content of the latter."""
    torch.set_num_threads(1)  # the batch is small; the physics has its own threads
    with Run.claim(cfg.out, TuneHandCfg, resumes=True) as run:
        hand, library = HandSpec.load(cfg.hand, side=cfg.side), open_library(cfg.objects)
        validation = open_library(cfg.validation_objects)
        begun = (run.path / "generations.json").is_file()
        run.record(cfg, inputs=identify_inputs(cfg), may_differ=MAY_DIFFER if begun else None)
        before = {name: getattr(hand, name) for name in STYLES}
        found = Search(cfg, hand, library, run).best()
        result, better = compare(cfg, hand, validation, before=before, after=found)
        kept = found if better else before
        file = find_hand(cfg.hand)
        with atomic_path(run.path / "hand.yaml") as partial:
            partial.write_text(hand_yaml_text(with_styles(file, hand, kept, run.path)), encoding="utf-8")
        write_json(run.path / "result.json", result)
        show(result, better, run)
    return result


MAY_DIFFER = ("out", "num_threads", "generations")
"""Options that may differ when a search goes on."""


class Search:
    """Search of both grasp styles; goes on from the generations that the run holds."""

    def __init__(self, cfg: TuneHandCfg, hand: HandSpec, library: ObjectLibrary, run: Run) -> None:
        self._cfg, self._run = cfg, run
        self._spaces = {name: StyleSpace.of(hand, getattr(hand, name)) for name in STYLES}
        self._optimisers = {
            name: CMA(
                mean=np.zeros(space.size), sigma=START_SIGMA, seed=_seed(cfg.seed, i), population_size=cfg.population
            )
            for i, (name, space) in enumerate(self._spaces.items())
        }
        self._run_trials = trial_runner(cfg, hand, library, cfg.trials, hold_s=min(cfg.task.hold_s, HOLD_S))

    def best(self) -> Styles:
        """Run the remaining generations; return the styles at the centre of the last one."""
        stored = self._stored()
        cfg = self._cfg
        if stored:
            log.info("going on from generation %d of %d", len(stored), cfg.generations)
        done = min(len(stored), cfg.generations) * cfg.population
        with Progress(cfg.generations * cfg.population, "tune: candidates", done=done) as progress:
            for number in range(cfg.generations):
                vectors = {
                    name: np.stack([cma.ask() for _ in range(cfg.population)]) for name, cma in self._optimisers.items()
                }
                if number < len(stored):
                    entry = self._replayed(stored[number], vectors, number)
                else:
                    entry = self._generation(vectors, number, progress)
                    stored.append(entry)
                    write_json(self._run.path / "generations.json", {"generations": stored})
                for name, cma in self._optimisers.items():
                    cma.tell([(x, -score) for x, score in zip(vectors[name], entry["scores"][name], strict=True)])
        return {name: space.style(self._optimisers[name].mean) for name, space in self._spaces.items()}

    def _generation(self, vectors: dict[str, NDArray[np.float64]], number: int, progress: Progress) -> dict[str, Any]:
        """Return the scores of the candidates, each for both styles, and their success rates."""
        trials = range(number * self._cfg.trials, (number + 1) * self._cfg.trials)
        scores: dict[str, list[float]] = {name: [] for name in STYLES}
        success = []
        for i in range(self._cfg.population):
            styles = {name: space.style(vectors[name][i]) for name, space in self._spaces.items()}
            outcomes, share = self._run_trials(styles, trials)
            value = np.array([PART_OF_A_SUCCESS.get(outcome.failure, float(outcome.success)) for outcome in outcomes])
            for name, weight in (("power", share), ("pinch", 1.0 - share)):
                scores[name].append(float((weight * value).sum() / max(weight.sum(), 1e-9)))
            success.append(float(np.mean([outcome.success for outcome in outcomes])))
            progress.advance(note=f"generation {number + 1}: {100 * np.mean(success):.0f} % success")
        return {"vectors": {name: x.tolist() for name, x in vectors.items()}, "scores": scores, "success": success}

    def _stored(self) -> list[dict[str, Any]]:
        """Return the generations that the run holds."""
        file = self._run.path / "generations.json"
        return list(read_json_object(file)["generations"]) if file.is_file() else []

    def _replayed(self, entry: dict[str, Any], vectors: dict[str, NDArray[np.float64]], number: int) -> dict[str, Any]:
        """Return a stored generation. Raise DamagedFileError where it is not the one that this search makes."""
        for name, made in vectors.items():
            if not np.allclose(np.array(entry["vectors"][name]), made, atol=1e-9):
                file = self._run.path / "generations.json"
                raise DamagedFileError(file, "search", f"generation {number} differs from the one of this seed")
        return entry


RunTrials = Callable[[Styles, Sequence[int]], tuple[list[Outcome], NDArray[np.float64]]]
"""Runs trials with given styles; returns the outcomes and each object's share of the power grasp."""


def trial_runner(cfg: TuneHandCfg, hand: HandSpec, library: ObjectLibrary, rows: int, hold_s: float) -> RunTrials:
    """Return a function that runs `rows` trials of the scripted grasp with given styles."""
    task = GraspTask(
        replace(cfg.task, hold_s=hold_s),
        hand,
        library,
        cfg.physics,
        rows,
        cfg.num_threads,
        cfg.seed,
        auto_reset=False,
        in_order=True,
    )
    agent = ZeroAgent(task)

    def run(styles: Styles, trials: Sequence[int]) -> tuple[list[Outcome], NDArray[np.float64]]:
        task.set_grasp_styles(power=styles["power"], pinch=styles["pinch"])
        shares: list[NDArray[np.float64]] = []

        def note_shares() -> None:
            if not shares:  # before the first step the objects lie on the table
                height_m = task.object_camera.points_w[..., 2].amax(dim=1)
                shares.append(power_share(height_m, hand.style_heights_m).double().numpy())

        return play(task, agent, trials, watch=note_shares), shares[0]

    return run


def compare(
    cfg: TuneHandCfg, hand: HandSpec, library: ObjectLibrary, before: Styles, after: Styles
) -> tuple[dict[str, Any], bool]:
    """Return the successes before and after on the same trials, and whether there are more after."""
    rows = min(cfg.validation_trials, 96)
    run = trial_runner(cfg, hand, library, rows, hold_s=cfg.task.hold_s)
    won = {}
    for name, styles in (("before", before), ("after", after)):
        outcomes: list[Outcome] = []
        with Progress(cfg.validation_trials, f"compare: trials {name}") as progress:
            for first in range(0, cfg.validation_trials, rows):
                outcomes += run(styles, range(first, first + rows))[0]
                progress.advance(rows)
        won[name] = sum(outcome.success for outcome in outcomes[: cfg.validation_trials])
    result = {name: success_summary(count, cfg.validation_trials) for name, count in won.items()}
    return result, won["after"] > won["before"]


def show(result: dict[str, Any], better: bool, run: Run) -> None:
    """Print successes before and after, and what was written."""
    rows: list[Sequence[str]] = [("numbers", "success (95 % interval)", "trials")]
    for name, row in result.items():
        rows.append((name, rate_with_interval(row), str(row["trials"])))
    print_table(rows)
    if better:
        print(f"written: {run.path / 'hand.yaml'}; try it with hand={run.path}")
    else:
        print(f"no better numbers found: {run.path / 'hand.yaml'} holds those of before; try generations=40")


def _seed(seed: int, style: int) -> int:
    """Return a seed of 32 bits for the search of one style."""
    return int(np.random.SeedSequence([seed, style]).generate_state(1)[0])
