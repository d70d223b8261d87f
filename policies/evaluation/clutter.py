"""Trials among other objects: tables that are cleared, and counts of what happened to the others.

A table is cleared by one grasp after another. Each is an episode of one attempt in what the grasp before has left, and
the hand starts anew; a grasped object is taken away, the others fall to rest. There are two grasps for each object.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dexgrasp.policies.agents.registry import Agent
from dexgrasp.policies.evaluation.episodes import play_to_end
from dexgrasp.policies.evaluation.statistics import rate_with_interval, success_summary
from dexgrasp.sim.clutter import CONTACT_CLASSES, PlacedObject, let_fall
from dexgrasp.sim.task.grasp_task import GraspTask
from dexgrasp.sim.task.neighbours import off_table
from dexgrasp.sim.task.outcomes import Outcome

GRASPS_PER_OBJECT = 2
"""Grasps on a table that is cleared, for each object that stands there at the start."""
GRASP_STRIDE = 10_000_000
"""Distance between the trial numbers of successive grasps on one table."""
DISTURBED = ("moved", "toppled", "fallen")
"""What is counted of the neighbours; one of them may be counted in each."""
HEAD = (
    "wanted object",
    "trials",
    "first attempt (95 % interval)",
    "success (95 % interval)",
    "neighbours",
    "moved > 5 cm",
    "toppled",
    "fell off",
    "trials without any of these",
)


def count_neighbours(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return counts of all trials and by contact of the wanted object; empty where it always stood alone."""
    among = [outcome for outcome in outcomes if outcome.contact and outcome.removed < 0]
    if not among:
        return {}
    by_contact = {name: [one for one in among if one.contact == name] for name in CONTACT_CLASSES}
    return {
        "all": _counts(among),
        "by_contact": {name: _counts(trials) for name, trials in by_contact.items() if trials},
    }


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    disturbed = {key: [getattr(one, f"neighbours_{key}") for one in outcomes] for key in DISTURBED}
    return {
        "trials": len(outcomes),
        "first_attempt": sum(one.success and one.attempts == 1 for one in outcomes),
        "successes": sum(one.success for one in outcomes),
        "neighbours": sum(one.neighbours for one in outcomes),
        **{key: sum(counts) for key, counts in disturbed.items()},
        "undisturbed_trials": sum(not any(counts) for counts in zip(*disturbed.values(), strict=True)),
    }


def neighbour_rows(counts: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows under HEAD: each class of contact, then all."""
    return [_row(name, row) for name, row in counts["by_contact"].items()] + [_row("all", counts["all"])]


def _row(name: str, row: Mapping[str, int]) -> list[str]:
    rates = [success_summary(row[key], row["trials"]) for key in ("first_attempt", "successes")]
    shares = [f"{row[key]} ({row[key] / max(row['neighbours'], 1):.0%})" for key in DISTURBED]
    calm = f"{row['undisturbed_trials']} ({row['undisturbed_trials'] / row['trials']:.0%})"
    return [name, str(row["trials"]), *map(rate_with_interval, rates), str(row["neighbours"]), *shares, calm]


class Table:
    """Objects that are still on a table that is cleared, and the grasps made there."""

    def __init__(self, scene: Sequence[PlacedObject]) -> None:
        self.scene = list(scene)
        """Objects that are left, at rest."""
        self.total, self.grasps, self.removed, self.fallen = len(scene), 0, 0, 0
        self.last: Outcome | None = None
        """Outcome of the last grasp."""
        self._failed: Counter[str] = Counter()

    @property
    def is_open(self) -> bool:
        """Return whether there are both an object to take and a grasp left."""
        return bool(self.scene) and self.grasps < GRASPS_PER_OBJECT * self.total

    def next_scene(self) -> list[PlacedObject]:
        """Return the objects; first, of those that failed least, the one that reaches highest."""
        return sorted(self.scene, key=lambda one: (self._failed[one.model.name], -top_m(one)))

    def record(self, outcome: Outcome, names: Sequence[str], poses: NDArray[np.float64]) -> None:
        """Take a grasped object away and let the others fall to rest from their poses (object, 7)."""
        self.grasps, self.last = self.grasps + 1, outcome
        self.removed += outcome.success
        self._failed[outcome.object] += not outcome.success
        models = {one.model.name: one.model for one in self.scene}
        there = [i for i, name in enumerate(names) if not (outcome.success and name == outcome.object)]
        rest = let_fall([models[names[i]] for i in there], poses[there]) if there else []
        self.scene = [one for one in rest if not off_table(torch.from_numpy(one.pos_w))]
        self.fallen += len(rest) - len(self.scene)


def top_m(placed: PlacedObject) -> float:
    """Return the height of the highest point of an object at rest [m]."""
    turn = Rotation.from_quat(placed.quat_w, scalar_first=True).as_matrix()
    return float((placed.model.vertices @ turn[2]).max() + placed.pos_w[2])


def clear_tables(
    task: GraspTask, policy: Agent, trials: Sequence[int], watch: Callable[[], None] | None = None
) -> list[Outcome]:
    """Take the objects off the table of each row one after another; return one outcome per table.

    Row i is table `trials[i]`: the scene that the trial of that number draws. Success: every object was taken.
    """
    assert task.scenes is not None
    task.scenes.given.clear()
    task.reset(list(trials))
    contacts, tables = [outcome.contact for outcome in task.outcomes()], []
    for row in range(task.num_envs):
        names, poses = task.objects_on_table(row)
        tables.append(Table(let_fall([task.library[name] for name in names], poses)))
    while open_rows := [row for row, table in enumerate(tables) if table.is_open]:
        task.scenes.given |= {row: tables[row].next_scene() for row in open_rows}
        numbers = [trial + GRASP_STRIDE * table.grasps for trial, table in zip(trials, tables, strict=True)]
        obs = task.reset(numbers)  # all rows, as the policy is; those that are done stand still
        done = torch.tensor([not table.is_open for table in tables])
        task.engine.freeze(done.nonzero().squeeze(1))
        outcomes = play_to_end(task, policy, obs, numbers, watch=watch)
        for row in open_rows:
            tables[row].record(outcomes[numbers[row]], *task.objects_on_table(row))
    task.scenes.given.clear()
    names = [task.library.names[trial % len(task.library)] for trial in trials]
    columns = zip(tables, trials, names, contacts, strict=True)
    return [table_outcome(table, trial, name, contact) for table, trial, name, contact in columns]


def table_outcome(table: Table, trial: int, name: str, contact: str) -> Outcome:
    """Return the outcome of a whole table; its lengths and its failure are those of the last grasp.

    `name` and `contact`: of the object by which the trial drew the table.
    """
    assert table.last is not None
    cleared = table.removed == table.total
    return replace(
        table.last,
        trial=trial,
        object=name,
        success=cleared,
        failure="" if cleared else table.last.failure or "pushed_away",  # the last one fell off
        attempts=table.grasps,
        contact=contact,
        neighbours=table.total - 1,
        neighbours_moved=0,
        neighbours_toppled=0,
        neighbours_fallen=table.fallen,
        removed=table.removed,
    )


def count_cleared(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return counts of tables, objects and grasps; empty where no table was to be cleared."""
    tables = [outcome for outcome in outcomes if outcome.removed >= 0]
    if not tables:
        return {}
    return {
        "tables": len(tables),
        "cleared": sum(one.success for one in tables),
        "objects": sum(one.neighbours + 1 for one in tables),
        "removed": sum(one.removed for one in tables),
        "grasps": sum(one.attempts for one in tables),
        "fallen": sum(one.neighbours_fallen for one in tables),
    }


def cleared_in_words(counts: Mapping[str, int]) -> str:
    """Return counts of `count_cleared` as one sentence."""
    tables = success_summary(counts["cleared"], counts["tables"])
    share = counts["removed"] / counts["objects"]
    return (
        f"{counts['removed']} of {counts['objects']} objects removed ({share:.1%}) by {counts['grasps']} grasps; "
        f"{counts['fallen']} fell off; {counts['cleared']} of {counts['tables']} tables empty, "
        f"{rate_with_interval(tables)}"
    )
