"""Objects as data: model (ObjectModel), manifest row (ObjectEntry), folder (ObjectLibrary).

A library is a folder with manifest.json and objects/NAME.npz. The manifest is written last and atomically, so that a
folder with a manifest is complete. Models are loaded on demand.
"""

import copy
import hashlib
import io
import json
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from dexgrasp.utils.files import write_bytes
from dexgrasp.utils.text import comma_separated, did_you_mean

PIECE_POINTS = 64
"""Points of one convex piece; all lie on its hull, so that every compiled model has one layout."""
MAX_PIECES = 24
"""Most convex pieces of one object."""
SURFACE_POINTS = 1024
"""Surface samples of one object."""
SPLITS = ("train", "validation", "test", "imported")
"""Splits an object may belong to; "imported" objects come from meshes."""
UPRIGHT_RAD = np.deg2rad(20)
"""Most tilt of an object that counts as upright."""
MANIFEST = "manifest.json"
FORMAT = 1
_ARRAYS = {
    "vertices": np.float32,
    "faces": np.int32,
    "pieces": np.float32,
    "points": np.float32,
    "normals": np.float32,
    "inertia": np.float64,
    "rest_height": np.float64,
    "rest_quat": np.float64,
    "rest_prob": np.float64,
}


@dataclass(frozen=True)
class ObjectEntry:
    """Manifest row of one object, readable without loading the model."""

    name: str
    family: str
    split: str
    seed: int
    file: str
    sha256: str
    """SHA-256 of the file; empty for objects that are built when they are used."""
    extents: tuple[float, float, float]
    """Side lengths of the axis-aligned box [m]."""
    mass: float
    """[kg]"""
    friction: float
    pieces: int
    """Number of convex pieces."""
    poses: int
    """Number of resting poses."""
    volume: float
    """Volume of the visual mesh [m^3]."""
    hull_volume: float
    """Volume of its convex hull [m^3]."""
    piece_volume_ratio: float
    """Sum of the pieces' volumes / volume of the mesh; far above 1 means walls thicker than the mesh's."""
    thickness: float
    """Mean part or wall thickness, 2 volume / area [m]."""
    thinness: float
    """0 (as thick as the hand likes) .. 1 (as thin as a sheet): thinnest extent and wall."""
    size: float
    """Middle extent / opening of the hand (0.1 m); above 1 it can only be held at an edge."""
    concavity: float
    """1 - volume / hull volume, 0 .. 1."""
    difficulty: float
    """0 (easy) .. 1, mean of the four aspects above and mass."""
    proportion: float
    """Position of the object in its family's range of proportions, 0 .. 1; it decides the split."""
    source: str = ""
    """Mesh file that an imported object came from, relative to its folder."""


def entry_from_dict(values: dict[str, object]) -> ObjectEntry:
    """Return one manifest row as an ObjectEntry; an unknown or missing key is an error."""
    known = {f.name for f in fields(ObjectEntry)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"manifest: unknown keys {unknown} in '{values.get('name')}'; known: {sorted(known)}")
    return ObjectEntry(**{**values, "extents": tuple(values["extents"])})  # type: ignore[arg-type]


@dataclass(frozen=True)
class ObjectModel:
    """One rigid object in its own frame: origin at the centre of mass, axes of its mesh; SI units."""

    name: str
    family: str
    split: str
    seed: int
    vertices: np.ndarray
    """(v, 3) float32, visual mesh [m]."""
    faces: np.ndarray
    """(f, 3) int32, outward counter-clockwise."""
    pieces: np.ndarray
    """(p, 64, 3) float32, convex pieces, each by points that all lie on its hull [m]."""
    points: np.ndarray
    """(1024, 3) float32, surface samples in farthest-point order: any prefix is well spread [m]."""
    normals: np.ndarray
    """(1024, 3) float32, outward unit normals of the samples."""
    mass: float
    """[kg]"""
    inertia: np.ndarray
    """(3, 3) about the centre of mass [kg m^2]."""
    rest_height: np.ndarray
    """(r,) height of the origin over the table at rest [m]."""
    rest_quat: np.ndarray
    """(r, 4) wxyz, object to world at rest, up to yaw."""
    rest_prob: np.ndarray
    """(r,) probabilities of the resting poses; they sum to 1."""
    friction: float = 0.8
    """Sliding friction coefficient of the surface, drawn with the object; a task may draw its own."""
    proportion: float = 0.0
    """Position of the object in its family's range of proportions, 0 .. 1; it decides the split."""

    def __post_init__(self) -> None:
        if self.pieces.ndim != 3 or self.pieces.shape[1:] != (PIECE_POINTS, 3):
            raise ValueError(f"{self.name}: pieces must be (p, {PIECE_POINTS}, 3), got {self.pieces.shape}")
        if not 1 <= len(self.pieces) <= MAX_PIECES:
            raise ValueError(f"{self.name}: expected 1 to {MAX_PIECES} convex pieces, got {len(self.pieces)}")
        if self.split not in SPLITS:
            raise ValueError(f"{self.name}: unknown split '{self.split}'; splits: {', '.join(SPLITS)}")
        for field in _ARRAYS:
            if not np.isfinite(getattr(self, field)).all():
                raise ValueError(f"{self.name}: {field} has values that are not finite")

    def upright(self, tilt_rad: float = UPRIGHT_RAD) -> "ObjectModel":
        """Return the model with only its upright resting poses, or the most upright one."""
        up = 1 - 2 * (self.rest_quat[:, 1] ** 2 + self.rest_quat[:, 2] ** 2)  # z of the turned z axis
        keep = up >= min(np.cos(tilt_rad), up.max())
        prob = self.rest_prob[keep] / self.rest_prob[keep].sum()
        return replace(self, rest_height=self.rest_height[keep], rest_quat=self.rest_quat[keep], rest_prob=prob)

    @property
    def extents(self) -> np.ndarray:
        """Return (3,) side lengths of the axis-aligned box around the mesh [m]."""
        return np.ptp(self.vertices, axis=0)

    def scaled(self, size: float) -> "ObjectModel":
        """Return a copy with all lengths multiplied by `size` and an unchanged mass."""
        if size == 1.0:
            return self
        lengths = {key: getattr(self, key) * size for key in ("vertices", "pieces", "points", "rest_height")}
        return replace(self, **lengths, inertia=self.inertia * size**2)

    def to_bytes(self) -> bytes:
        """Return the model as the bytes of an .npz file; equal models give equal bytes."""
        scalars = {key: getattr(self, key) for key in ("mass", "friction", "seed", "proportion")}
        text = {"name": self.name, "family": self.family, "split": self.split}
        arrays = {key: np.ascontiguousarray(getattr(self, key), dtype) for key, dtype in _ARRAYS.items()}
        arrays["meta"] = np.frombuffer(json.dumps({**text, **scalars}, sort_keys=True).encode(), np.uint8)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for key in sorted(arrays):
                entry = zipfile.ZipInfo(f"{key}.npy")  # its default date is fixed, the clock plays no part
                entry.compress_type = zipfile.ZIP_DEFLATED
                body = io.BytesIO()
                np.lib.format.write_array(body, arrays[key])
                archive.writestr(entry, body.getvalue())
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> "ObjectModel":
        """Return the model that `to_bytes` wrote."""
        with np.load(io.BytesIO(data)) as archive:
            arrays = {key: archive[key] for key in _ARRAYS}
            meta = json.loads(bytes(archive["meta"]))
        return ObjectModel(**meta, **arrays)

    def save(self, path: str | Path) -> None:
        """Write one .npz in one step: after a kill the file is old, new or absent, never half."""
        write_bytes(Path(path), self.to_bytes())

    @staticmethod
    def load(path: str | Path) -> "ObjectModel":
        """Read a file that `save` wrote."""
        return ObjectModel.from_bytes(Path(path).read_bytes())


class ObjectLibrary:
    """A folder of objects, read lazily; keeps the last `cache` loaded models."""

    def __init__(self, path: str | Path, cache: int = 512) -> None:
        self.path = Path(path)
        manifest = self.path / MANIFEST
        if not manifest.is_file():
            raise FileNotFoundError(
                f"no object library at {self.path}: it has no {MANIFEST}. Make one with "
                f"'dexgrasp objects generate n=200 out={self.path}' or 'dexgrasp objects import DIR out={self.path}'"
            )
        self.manifest: dict[str, object] = json.loads(manifest.read_text())
        if self.manifest.get("format") != FORMAT:
            raise ValueError(
                f"{manifest}: format {self.manifest.get('format')}, this version reads {FORMAT}: make it anew"
            )
        self._fill([entry_from_dict(entry) for entry in self.manifest["objects"]], cache)  # type: ignore[attr-defined]

    @property
    def spec(self) -> str:
        """Return what opens the whole library again by `open_library`."""
        return str(self.path)

    def _fill(self, entries: Sequence[ObjectEntry], cache: int) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self.most_pieces = max((entry.pieces for entry in self._entries.values()), default=1)
        """Convex pieces of the object that has most of them; a part keeps the number of the whole."""
        self._contents: dict[str, bytes] = {}
        self._cache: OrderedDict[str, ObjectModel] = OrderedDict()
        self._cache_size = cache

    def keep(self, models: int) -> None:
        """Hold at least so many loaded models from now on."""
        self._cache_size = max(self._cache_size, models)

    def prepare(self, names: Iterable[str]) -> None:
        """Make the objects `names` ready to be read; those of a complete library are."""

    @property
    def names(self) -> list[str]:
        """Return the names of all objects, in the order of the manifest."""
        return list(self._entries)

    @property
    def entries(self) -> list[ObjectEntry]:
        """Return all entries, in the order of the manifest."""
        return list(self._entries.values())

    def entry(self, name: str) -> ObjectEntry:
        """Return the manifest row of one object."""
        if name not in self._entries:
            hint = did_you_mean(name, self._entries, most=3) or f" It has {comma_separated(self.names[:5])}"
            raise KeyError(f"no object '{name}' in {self.path} ({len(self)} objects).{hint}")
        return self._entries[name]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> ObjectModel:
        if name in self._cache:
            self._cache.move_to_end(name)
            return self._cache[name]
        entry = self.entry(name)
        data = self._read(name)
        if entry.sha256 and hashlib.sha256(data).hexdigest() != entry.sha256:
            raise ValueError(f"{self.path / entry.file}: contents differ from the manifest's sha256; make it anew")
        self._cache[name] = model = ObjectModel.from_bytes(data)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return model

    def part(self, names: Sequence[str]) -> "ObjectLibrary":
        """Return a library of the objects `names`, in this order, with their files in memory.

        Another process can use it without a disk.

        Their scenes are laid out as those of the whole library, so that trials repeat bit by bit.
        """
        self.prepare(names)
        part = copy.copy(self)
        part.manifest = {key: value for key, value in self.manifest.items() if key != "objects"}
        part._entries = {name: self.entry(name) for name in names}
        part._contents = {name: self._read(name) for name in names}
        part._cache = OrderedDict()
        return part

    def _read(self, name: str) -> bytes:
        return self._contents[name] if name in self._contents else (self.path / self.entry(name).file).read_bytes()


def refuse_test_objects(library: ObjectLibrary, option: str) -> None:
    """Raise ValueError if `library`, which `option` of a training names, holds objects of the test split."""
    held_out = [entry.name for entry in library.entries if entry.split == "test"]
    if held_out:
        raise ValueError(
            f"{option}: {_few(held_out)} of the test split, which is kept for evaluation: success on objects that a "
            "policy or the choice of its checkpoint has seen says nothing. Take generated:N to train on, "
            "generated:N:validation to validate on, or a folder of your own meshes"
        )


def refuse_overlap(training: ObjectLibrary, validation: ObjectLibrary) -> None:
    """Raise ValueError if the libraries share an object, by its name or by its mesh under whatever name."""
    if shared := shared_objects(training, validation):
        raise ValueError(
            f"validation: {_few(shared)} of the training: the best checkpoint would be chosen on "
            "objects that it has learnt. Take others, for instance validation=generated:216:validation"
        )


def shared_objects(training: ObjectLibrary, other: ObjectLibrary) -> list[str]:
    """Return the names of the objects in `other` that are in `training`, by name or by mesh."""
    shared = [name for name in other.names if name in training]
    shapes: dict[tuple[object, ...], list[str]] = {}
    for entry in training.entries:
        shapes.setdefault(_shape(entry), []).append(entry.name)
    for entry in other.entries:
        alike = shapes.get(_shape(entry), [])  # meshes are read only where the manifests agree
        if any(_mesh_sha256(training[name]) == _mesh_sha256(other[entry.name]) for name in alike):
            shared.append(entry.name)
    return list(dict.fromkeys(shared))


def _shape(entry: ObjectEntry) -> tuple[object, ...]:
    return entry.extents, entry.volume, entry.hull_volume


def _mesh_sha256(model: ObjectModel) -> str:
    return hashlib.sha256(model.vertices.tobytes() + model.faces.tobytes()).hexdigest()


def _few(names: Sequence[str]) -> str:
    """Return the number of objects and their first names."""
    count = "1 object" if len(names) == 1 else f"{len(names)} objects"
    return f"{count} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def write_library(
    path: Path, entries: Sequence[ObjectEntry], request: dict[str, object], command: str
) -> ObjectLibrary:
    """Write the manifest over the models in path/objects, which completes the library.

    `request` is what was asked for, `command` the command line that asks for the same again.
    """
    manifest = {"format": FORMAT, "command": command, "request": request, "objects": [asdict(e) for e in entries]}
    write_bytes(path / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return ObjectLibrary(path)
