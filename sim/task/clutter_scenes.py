"""Scenes of an episode's object among others: drawn when they are first asked for, then kept.

Drawing one takes 0.04 to 0.4 s of physics, a reset asks for one. Therefore each object has a limited number of scenes,
which all trials share: the random numbers of a trial choose among them.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from dexgrasp.sim.clutter import ContactClass, Layout, PlacedObject, draw_around
from dexgrasp.sim.engine.base import Neighbours
from dexgrasp.sim.engine.state import parked_neighbours
from dexgrasp.sim.objects import ObjectLibrary
from dexgrasp.sim.randomization.episode_draws import EpisodeDraws
from dexgrasp.sim.randomization.trial_rng import TrialRandom
from dexgrasp.utils.bounds import Bounds, bounded

VARIANTS = 64
"""Scenes of each object."""


@dataclass(frozen=True)
@bounded
class SceneCfg:
    """Configure what stands on the table."""

    name: Literal["single", "clutter"] = "single"
    """single: the object alone, at a drawn place near the middle. clutter: the wanted object among others of its
    library, at rest where physics left them; it is at most 0.28 m from the middle."""
    objects: Annotated[tuple[int, int], Bounds(1, 8, ordered=True)] = (3, 8)
    """Least and greatest number of objects of a scene of clutter, the wanted one included."""
    layout: Layout = "packed"
    """spread: apart; packed: side by side, pushed together; piled: half of the objects dropped on the others."""

    def __post_init__(self) -> None:
        if self.is_clutter and self.objects[1] < 2:
            raise ValueError(
                "task.scene.objects=[1,1] gives the wanted object no neighbour: give a greatest number of 2 to 8, or "
                "scene=single"
            )

    @property
    def is_clutter(self) -> bool:
        """Return whether the wanted object may have neighbours."""
        return self.name == "clutter"

    @property
    def neighbours(self) -> int:
        """Return the greatest number of neighbours."""
        return self.objects[1] - 1 if self.is_clutter else 0

    def check_library(self, library: ObjectLibrary) -> None:
        """Raise ValueError where the library has too few objects for a scene."""
        if self.is_clutter and len(library) < self.objects[1]:
            raise ValueError(
                f"{library.spec} has {len(library)} objects, clutter takes up to {self.objects[1]} different ones: "
                f"set task.scene.objects=[{min(self.objects[0], len(library))},{len(library)}] or take more objects"
            )


class ClutterScenes:
    """Holds the scenes of a library's objects that were asked for."""

    def __init__(self, cfg: SceneCfg, library: ObjectLibrary) -> None:
        cfg.check_library(library)
        self._cfg, self._library = cfg, library
        self.given: dict[int, list[PlacedObject]] = {}
        """Scenes by row that resets take instead of drawn ones, the wanted object first."""
        self._scenes: dict[tuple[str, float, int], list[PlacedObject]] = {}

    def scene(self, name: str, size: float, variant: int) -> list[PlacedObject]:
        """Return a scene by number, the object `name` first; `size`: factor on its lengths."""
        key = name, size, variant
        if key not in self._scenes:
            rng = np.random.default_rng([variant, zlib.crc32(name.encode())])
            wanted = self._library[name].scaled(size)
            self._scenes[key] = draw_around(wanted, self._library, self._cfg.objects, self._cfg.layout, rng)
        return self._scenes[key]

    def place(
        self, rows: Sequence[int], names: Sequence[str], draws: EpisodeDraws
    ) -> tuple[Tensor, Tensor, Neighbours, list[ContactClass]]:
        """Return where the objects `names` of `rows` and their neighbours rest, in scenes that `draws` choose.

        Positions (row, 3) [m] and orientations (row, 4) wxyz of the objects; their neighbours; the class of contact of
        each object.
        """
        variants = TrialRandom(draws.key).integers("clutter", VARIANTS).tolist()
        drawn = zip(rows, names, draws.size.tolist(), variants, strict=True)
        scenes = [self.given.get(row) or self.scene(name, size, variant) for row, name, size, variant in drawn]
        poses = [torch.tensor(np.stack([[*one.pos_w, *one.quat_w] for one in scene])) for scene in scenes]
        first = torch.stack([pose[0] for pose in poses])
        around, places = parked_neighbours(len(scenes), self._cfg.neighbours), []
        for row, (scene, pose) in enumerate(zip(scenes, poses, strict=True)):
            count = len(scene) - 1
            around.pos_w[row, :count], around.quat_w[row, :count] = pose[1:, :3], pose[1:, 3:]
            places.append((*(one.model.name for one in scene[1:]), *around.names[row][count:]))
        neighbours = Neighbours(names=places, pos_w=around.pos_w, quat_w=around.quat_w)
        return first[:, :3], first[:, 3:], neighbours, [scene[0].contact for scene in scenes]
