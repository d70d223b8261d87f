"""Objects as data: model (ObjectModel), manifest row (ObjectEntry), folder (ObjectLibrary).

A library is a folder with manifest.json and objects/NAME.npz. The manifest is written last and atomically, so that a
folder with a manifest is complete. Models are loaded on demand.
"""

import copy
import hashlib
import io
import json
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np

from dexgrasp.configs.schema import build
from dexgrasp.sim.objects.mesh_files import (
    check_density,
    check_mass_properties,
    check_pieces,
    check_rest,
    check_samples,
    mass_properties,
)
from dexgrasp.utils.bounds import Bounds, Share, bounded
from dexgrasp.utils.files import write_bytes
from dexgrasp.utils.number_arrays import parse_npz
from dexgrasp.utils.readers import (
    HEAD_BYTES,
    foreign_file,
    foreign_kind,
    parse_json,
    read_json_object,
    regular_bytes,
)
from dexgrasp.utils.text import comma_separated, counted, did_you_mean, one_line, safe_name, shown

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
MAX_FILE_BYTES = 2**28
"""Largest manifest, and largest object file before and after decompression."""
MAX_EXTENT_M = 2.0
"""Largest coordinate of an object."""
HAND_OPENING_M = 0.10
"""Unit of the size of objects: about the width that a large hand closes around. A part of the files' format."""
Length = Annotated[float, Bounds(1e-6, MAX_EXTENT_M)]
"""Positive length [m]."""
Volume = Annotated[float, Bounds(1e-15, 8.0)]
"""Positive volume [m^3]."""
Mass = Annotated[float, Bounds(1e-5, 100.0)]
"""Mass [kg]."""
Friction = Annotated[float, Bounds(0.0, 10.0)]
"""Sliding friction coefficient."""
MAX_POSES = 64
"""Most resting poses of an object."""


@dataclass(frozen=True)
class _ArrayType:
    """Type and shape of a stored array; a range of lengths where these differ between objects."""

    dtype: type
    shape: tuple[int | tuple[int, int], ...]

    def check(self, name: str, array: np.ndarray) -> None:
        """Raise ValueError for another shape, or for values that are not finite."""
        ranges = [size if isinstance(size, tuple) else (size, size) for size in self.shape]
        sizes = list(array.shape)
        if len(sizes) != len(ranges) or not all(a <= n <= b for (a, b), n in zip(ranges, sizes, strict=True)):
            wanted = ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in ranges)
            raise ValueError(f"{name} must be ({wanted}), got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has values that are not finite")


_ARRAYS = {
    "vertices": _ArrayType(np.float32, ((4, 2_000_000), 3)),
    "faces": _ArrayType(np.int32, ((4, 4_000_000), 3)),
    "pieces": _ArrayType(np.float32, ((1, MAX_PIECES), PIECE_POINTS, 3)),
    "points": _ArrayType(np.float32, (SURFACE_POINTS, 3)),
    "normals": _ArrayType(np.float32, (SURFACE_POINTS, 3)),
    "inertia": _ArrayType(np.float64, (3, 3)),
    "rest_height": _ArrayType(np.float64, ((1, MAX_POSES),)),
    "rest_quat": _ArrayType(np.float64, ((1, MAX_POSES), 4)),
    "rest_prob": _ArrayType(np.float64, ((1, MAX_POSES),)),
}


@dataclass(frozen=True)
@bounded
class ObjectEntry:
    """Manifest row of one object, readable without loading the model."""

    name: str
    family: str
    split: str
    seed: Annotated[int, Bounds(0, 2**63 - 1)]
    file: str
    sha256: str
    """SHA-256 of the file; empty for objects that are built when they are used."""
    extents: Annotated[tuple[float, float, float], Bounds(1e-6, MAX_EXTENT_M)]
    """Side lengths of the axis-aligned box [m]."""
    mass: Mass
    """[kg]"""
    friction: Friction
    pieces: Annotated[int, Bounds(1, MAX_PIECES)]
    """Number of convex pieces."""
    poses: Annotated[int, Bounds(1, MAX_POSES)]
    """Number of resting poses."""
    volume: Volume
    """Volume of the visual mesh [m^3]."""
    hull_volume: Volume
    """Volume of its convex hull [m^3]."""
    piece_volume_ratio: Annotated[float, Bounds(0.0, 1e4)]
    """Sum of the pieces' volumes / volume of the mesh; far above 1 means walls thicker than the mesh's."""
    thickness: Length
    """Mean part or wall thickness, 2 volume / area [m]."""
    thinness: Share
    """0 (as thick as the hand likes) .. 1 (as thin as a sheet): thinnest extent and wall."""
    size: Annotated[float, Bounds(0.0, 100.0)]
    """Middle extent / opening of the hand (0.1 m); above 1 it can only be held at an edge."""
    concavity: Share
    """1 - volume / hull volume, 0 .. 1."""
    difficulty: Share
    """0 (easy) .. 1, mean of the four aspects above and mass."""
    proportion: Share
    """Position of the object in its family's range of proportions, 0 .. 1; it decides the split."""
    source: str = ""
    """Mesh file that an imported object came from, relative to its folder."""

    def __post_init__(self) -> None:
        _check_names(self.name, self.family, self.split)
        path = PurePosixPath(self.file)
        self._check_numbers()
        if not 1 <= len(self.file) <= 255 or "\0" in self.file or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"file must be a path inside the library, got {shown(self.file)}")
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, got {shown(self.sha256)}")

    def _check_numbers(self) -> None:
        """Raise ValueError for numbers that contradict each other; they were rounded to five digits."""
        box = float(np.prod(self.extents))
        if self.hull_volume > 1.001 * box:
            raise ValueError(
                f"hull_volume of {self.name} is {self.hull_volume:g} m^3, expected at most {box:.5g}: extents"
            )
        middle = sorted(self.extents)[1] / HAND_OPENING_M
        if abs(self.size - middle) > 1e-3 * middle:
            raise ValueError(
                f"size of {self.name} is {self.size:g}, expected {middle:.5g}: the middle one of extents / "
                f"{HAND_OPENING_M:g} m"
            )
        try:
            check_density(self.mass, self.volume)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error


def _check_names(name: str, family: str, split: str) -> None:
    safe_name(name, "name")
    if not family or not family.isprintable():
        raise ValueError(f"family must be a word, got {shown(family)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {shown(split)}; splits: {', '.join(SPLITS)}")


def entry_from_dict(values: Mapping[str, Any]) -> ObjectEntry:
    """Return one manifest row as an ObjectEntry; raise ConfigError for a wrong, unknown or missing key."""
    return build(ObjectEntry, values, "manifest row")


@dataclass(frozen=True)
class _Manifest:
    """Content of manifest.json."""

    format: int
    objects: tuple[ObjectEntry, ...]
    command: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.objects:
            raise ValueError("objects: the library holds none")
        twice = [name for name, count in Counter(entry.name for entry in self.objects).items() if count > 1]
        if twice:
            raise ValueError(f"objects: {comma_separated(twice[:3])} occurs more than once")
        if unhashed := [entry.name for entry in self.objects if not entry.sha256]:
            raise ValueError(
                f"objects: sha256 of {comma_separated(unhashed[:3])} is empty, expected the 64 digits of its file; "
                "make the library anew"
            )


@dataclass(frozen=True)
@bounded
class ObjectModel:
    """One rigid object in its own frame: origin at the centre of mass, axes of its mesh; SI units."""

    name: str
    family: str
    split: str
    seed: Annotated[int, Bounds(0, 2**63 - 1)]
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
    mass: Mass
    """[kg]"""
    inertia: np.ndarray
    """(3, 3) about the centre of mass [kg m^2]."""
    rest_height: np.ndarray
    """(r,) height of the origin over the table at rest [m]."""
    rest_quat: np.ndarray
    """(r, 4) wxyz, object to world at rest, up to yaw."""
    rest_prob: np.ndarray
    """(r,) probabilities of the resting poses; they sum to 1."""
    friction: Friction = 0.8
    """Sliding friction coefficient of the surface, drawn with the object; a task may draw its own."""
    proportion: Share = 0.0
    """Position of the object in its family's range of proportions, 0 .. 1; it decides the split."""

    def __post_init__(self) -> None:
        try:
            _check_names(self.name, self.family, self.split)
            for key, kind in _ARRAYS.items():
                kind.check(key, getattr(self, key))
        except ValueError as error:
            raise ValueError(f"{self.name[:80]}: {error}") from error

    def _check_geometry(self) -> None:
        for key in ("vertices", "pieces", "points"):
            if np.abs(getattr(self, key)).max() > MAX_EXTENT_M:
                raise ValueError(
                    f"{key} lie farther than {MAX_EXTENT_M} m from the centre of mass; metres are expected"
                )
        if self.faces.min() < 0 or self.faces.max() >= len(self.vertices):
            raise ValueError(f"faces name a vertex that is not among the {len(self.vertices)} vertices")
        if np.abs(np.linalg.norm(self.normals, axis=1) - 1).max() > 0.01:
            raise ValueError("normals must have length 1")
        centred = self.pieces - self.pieces.mean(axis=1, keepdims=True)
        if np.linalg.svd(centred, compute_uv=False)[:, 2].min() < 1e-6:
            raise ValueError("pieces must be solid: the points of one lie in a plane")

    def _check_physics(self) -> None:
        if not np.allclose(self.inertia, self.inertia.T, rtol=1e-6, atol=1e-15):
            raise ValueError("inertia must be symmetric")
        low, middle, high = np.linalg.eigvalsh(self.inertia)
        if not (low >= 1e-12 and low + middle >= 0.999 * high):
            raise ValueError(
                f"inertia must belong to a body: principal moments positive, none above the sum of the others, got "
                f"{low:.3g}, {middle:.3g}, {high:.3g} kg m^2"
            )
        if len({len(self.rest_height), len(self.rest_quat), len(self.rest_prob)}) > 1:
            raise ValueError("rest_height, rest_quat and rest_prob must have one row per resting pose")
        if not (self.rest_height.min() > 0 and self.rest_height.max() <= MAX_EXTENT_M):
            raise ValueError(f"rest_height must lie in 0..{MAX_EXTENT_M} m, got {self.rest_height.tolist()}")
        if np.abs(np.linalg.norm(self.rest_quat, axis=1) - 1).max() > 1e-3:
            raise ValueError("rest_quat must hold unit quaternions")
        if self.rest_prob.min() < 0 or abs(self.rest_prob.sum() - 1) > 1e-3:
            raise ValueError(f"rest_prob must be positive and sum to 1, got {self.rest_prob.tolist()}")

    def check(self) -> None:
        """Raise ValueError unless the numbers are those of a uniform rigid body; name key and range."""
        self._check_geometry()
        self._check_physics()
        check_mass_properties(self.mass_properties, float(self.extents.max()), self.mass, self.inertia)
        check_pieces(self.vertices, self.pieces, self.points)
        check_samples(self.vertices, self.faces, self.points, self.normals)
        check_rest(self.pieces, self.rest_height, self.rest_quat)

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

    @cached_property
    def mass_properties(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return volume [m^3], centre (3,) [m] and inertia (3, 3) at density 1 [m^5] of the mesh."""
        return mass_properties(self.vertices, self.faces)

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
        arrays = {key: np.ascontiguousarray(getattr(self, key), kind.dtype) for key, kind in _ARRAYS.items()}
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
    def from_bytes(data: bytes, name: str = "object file") -> "ObjectModel":
        """Return the model that `to_bytes` wrote; raise ValueError where the bytes are damaged.

        `name`: origin of the bytes, for the message.
        """
        try:
            arrays, meta = _typed(parse_npz(data, MAX_FILE_BYTES))
            scalars = build(_Scalars, parse_json(meta, "meta"), "meta")
            model = ObjectModel(**asdict(scalars), **arrays)  # pyright: ignore[reportArgumentType]
            model.check()
            return model
        except Exception as error:  # damaged archives raise many kinds
            said = one_line(error, 300) or type(error).__name__
            reason = foreign_kind(data[:HEAD_BYTES], is_zip=True) or said
            raise ValueError(f"{name} is damaged: {reason}; make the library anew") from error

    def save(self, path: str | Path) -> None:
        """Write one .npz in one step: after a kill the file is old, new or absent, never half."""
        write_bytes(Path(path), self.to_bytes())

    @staticmethod
    def load(path: str | Path) -> "ObjectModel":
        """Read a file that `save` wrote."""
        return ObjectModel.from_bytes(_read_inside(Path(path).parent, Path(path).name), str(path))


@dataclass(frozen=True)
class _Scalars:
    """Numbers and words of an object file, stored as JSON."""

    name: str
    family: str
    split: str
    seed: int
    mass: float
    friction: float = 0.8
    proportion: float = 0.0


def _typed(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], bytes]:
    """Return the arrays of an object file and its words; raise ValueError for another set or type of arrays."""
    if set(arrays) != {*_ARRAYS, "meta"}:
        raise ValueError(f"expected the arrays {comma_separated([*_ARRAYS, 'meta'])}, got {comma_separated(arrays)}")
    for key, dtype in {**{key: kind.dtype for key, kind in _ARRAYS.items()}, "meta": np.uint8}.items():
        if arrays[key].dtype != dtype:
            raise ValueError(f"{key} must be {np.dtype(dtype)}, got {arrays[key].dtype}")
    return {key: arrays[key] for key in _ARRAYS}, arrays["meta"].tobytes()


def _read_inside(folder: Path, file: str) -> bytes:
    """Return the content of a regular file inside a folder; raise ValueError for a link out of it or a pipe."""
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} leads out of the library")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; make the library anew")
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, at most {MAX_FILE_BYTES}")
    return regular_bytes(path)


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
        self.manifest: dict[str, Any] = read_manifest(manifest)
        self._fill(build(_Manifest, self.manifest, str(manifest)).objects, cache)

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
        self._cache[name] = model = ObjectModel.from_bytes(data, f"{self.path / entry.file} (object '{name}')")
        _check_row(entry, model, self.path)
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
        return self._contents[name] if name in self._contents else _read_inside(self.path, self.entry(name).file)


def _check_row(entry: ObjectEntry, model: ObjectModel, folder: Path) -> None:
    """Raise ValueError unless the manifest row is that of the model."""
    found = {"pieces": len(model.pieces), "poses": len(model.rest_prob)}
    found |= {key: getattr(model, key) for key in ("name", "family", "split", "seed")}
    numbers = {"mass": model.mass, "friction": model.friction, "proportion": model.proportion}
    numbers |= {"extents": model.extents, "volume": model.mass_properties[0]}
    wrong = {key: value for key, value in found.items() if getattr(entry, key) != value}
    wrong |= {key: value for key, value in numbers.items() if not _are_near(getattr(entry, key), value)}
    for key, value in wrong.items():
        expected = ", ".join(f"{number:.5g}" for number in np.ravel(value)) if key in numbers else shown(value)
        raise ValueError(
            f"{folder / MANIFEST}: object '{entry.name}': {key} is {shown(getattr(entry, key))}, expected {expected}, "
            f"as {entry.file} has it; make the library anew"
        )


def _are_near(stated: Any, found: Any) -> bool:
    """Return whether numbers of a manifest row, rounded to five digits, are those found."""
    pairs = zip(np.ravel(stated).tolist(), np.ravel(found).tolist(), strict=True)
    return all(abs(a - b) <= 1e-3 * abs(b) + 1e-9 for a, b in pairs)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the content of a manifest.json; raise ValueError where it is damaged or of another format."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, at most {MAX_FILE_BYTES}")
    if kind := foreign_file(path):
        raise ValueError(f"{path}: {kind}")
    tree = read_json_object(path)
    if tree.get("format") != FORMAT or isinstance(tree["format"], bool):
        raise ValueError(f"{path}: format {shown(tree.get('format'))}, this version reads {FORMAT}: make it anew")
    return tree


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
            "objects that it has learnt. Take others, for instance validation_objects=generated:216:validation"
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
    return f"{counted(len(names), 'object')} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def write_library(
    path: Path, entries: Sequence[ObjectEntry], request: dict[str, object], command: str
) -> ObjectLibrary:
    """Write the manifest over the models in path/objects, which completes the library.

    `request` is what was asked for, `command` the command line that asks for the same again.
    """
    manifest = {"format": FORMAT, "command": command, "request": request, "objects": [asdict(e) for e in entries]}
    write_bytes(path / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return ObjectLibrary(path)
