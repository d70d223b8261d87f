"""Public object sets of `dexgrasp benchmark`, and the protocol of each.

assets/benchmarks/object_sets.yaml names the meshes; the meshes themselves are not part of the repository.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dexgrasp import assets
from dexgrasp.utils.files import expand_user
from dexgrasp.utils.readers import read_yaml, regular_bytes
from dexgrasp.utils.text import comma_separated, counted, did_you_mean

PROTOCOL = (
    "camera=d435",
    "randomization=off",
    "attempts=3",
    "seed=0",
    "task.hold_s=3.0",
    "task.object_mass_kg=0.0",
    "task.disturbance.per=attempt",
    "task.disturbance.force_n=2.5",
    "task.disturbance.force_weights=0.0",
    "task.reset.palm_xy_range_m=0.012",
    "task.reset.standoff_range_m=0.02",
    "task.reset.tilt_sd_rad=0.06",
    "task.reset.finger_range_rad=0.05",
    "task.reset.object_xy_range_m=0.05",
)
"""Options of `evaluate` that are equal in every benchmark; a quick run has other physics and fewer trials."""
PHYSICS = {False: "reference", True: "balanced"}
"""Physics preset of a whole run, and of a quick one."""
DISTURBANCES = {False: ("none", "shift5", "force"), True: ("none", "shift5")}
"""Disturbances of a whole run, and of a quick one."""
QUICK_OBJECTS = 24
"""Number of objects of a quick run, spread evenly over the names; each has one trial."""


@dataclass(frozen=True, kw_only=True)
class ObjectSet:
    """A public set of meshes and how it is measured."""

    name: str
    source: str
    """Where the meshes come from."""
    files: tuple[str, ...]
    """Places of an object's mesh in the folder, with {name}; the first that exists."""
    scales: tuple[float, ...]
    """Factors from the unit of the files to metres; each is measured."""
    mass_kg: tuple[float, float]
    """Range to which the mass at the density of an import is clipped."""
    decomposition: str
    """Convex decomposition of the import."""
    trials_per_object: int
    """Number of trials of each object, at each scale and disturbance."""
    names: tuple[str, ...]
    """Objects of the set."""
    unnamed: int = 0
    """Number of objects beside `names`."""

    def measured_scales(self, quick: bool) -> tuple[float, ...]:
        """Return the scales of a run: of a quick one the middle scale alone."""
        return (self.scales[len(self.scales) // 2],) if quick else self.scales

    def protocol(self, quick: bool) -> dict[str, Any]:
        """Return all conditions that decide the numbers, apart from policy, meshes and code."""
        facts = {key: value for key, value in asdict(self).items() if key != "source"}
        return facts | {
            "options": [*PROTOCOL, f"physics={PHYSICS[quick]}"],
            "disturbances": list(DISTURBANCES[quick]),
            "scales": list(self.measured_scales(quick)),
            "trials_per_object": 1 if quick else self.trials_per_object,
            "objects": self.count(quick),
        }

    def protocol_sha256(self, quick: bool) -> str:
        """Return the SHA-256 of the protocol; another protocol has another one, whatever its name."""
        return hashlib.sha256(json.dumps(self.protocol(quick), sort_keys=True).encode()).hexdigest()

    def count(self, quick: bool) -> int:
        """Return the number of objects that a run imports."""
        whole = len(self.names) + self.unnamed
        return min(whole, QUICK_OBJECTS) if quick else whole

    def meshes(self, folder: str | Path) -> dict[str, Path]:
        """Return the mesh of each object in `folder`, relative to it, by name.

        Raises FileNotFoundError where `folder` is not the whole set, with what is missing.
        """
        root = expand_user(folder)
        if not str(folder) or not root.is_dir():
            raise FileNotFoundError(f"no folder '{folder}': expected the meshes of {self.name}, from {self.source}")
        found = {name: place for name in self.names if (place := self._mesh(root, name))}
        if missing := [name for name in self.names if name not in found]:
            raise FileNotFoundError(
                f"{folder} is not {self.name}: {counted(len(missing), 'mesh', 'meshes')} of {len(self.names)} missing, "
                f"as {', '.join(str(self._places(name)[0]) for name in missing[:3])}; expected {self.source}"
            )
        others = [path.name for path in sorted(root.iterdir()) if path.name not in found] if self.unnamed else []
        more = {name: place for name in others if (place := self._mesh(root, name))}
        if len(more) != self.unnamed:
            raise FileNotFoundError(
                f"{folder} is not {self.name}: {counted(len(found) + len(more), 'object')}, expected "
                f"{len(self.names) + self.unnamed}; take {self.source}"
            )
        return dict(sorted((found | more).items()))

    def _places(self, name: str) -> list[Path]:
        return [Path(place.format(name=name)) for place in self.files]

    def _mesh(self, root: Path, name: str) -> Path | None:
        return next((place for place in self._places(name) if (root / place).is_file()), None)


def meshes_sha256(folder: str | Path, meshes: Mapping[str, Path]) -> str:
    """Return the SHA-256 of the names and bytes of meshes, wherever the folder lies."""
    digest = hashlib.sha256()
    for name, place in sorted(meshes.items()):
        content = hashlib.sha256(regular_bytes(expand_user(folder) / place)).hexdigest()
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def spread(meshes: Mapping[str, Path], count: int) -> dict[str, Path]:
    """Return `count` of the meshes, spread evenly over them."""
    names = list(meshes)
    return {names[i * len(names) // count]: meshes[names[i * len(names) // count]] for i in range(count)}


@cache
def object_sets() -> dict[str, ObjectSet]:
    """Return the public object sets by name."""
    table = read_yaml(assets.path("benchmarks/object_sets.yaml"))
    return {name: _object_set(name, facts) for name, facts in table.items()}


def find_set(name: str) -> ObjectSet:
    """Return an object set by name. Raises ValueError, with the known ones."""
    known = object_sets()
    if name not in known:
        hint = did_you_mean(name, known) if name else " Give `dexgrasp benchmark SET DIR`."
        raise ValueError(f"unknown object set '{name}'.{hint} Known: {comma_separated(known)}")
    return known[name]


def _object_set(name: str, facts: Mapping[str, Any]) -> ObjectSet:
    names: Sequence[str] | str = facts["names"]
    if isinstance(names, str):  # "000 to 999"
        first, last = names.split(" to ")
        names = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    lists = {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
    return ObjectSet(**{**facts, **lists, "name": name, "names": tuple(names)})
