"""Libraries of generated objects: drawn from families by seed, built in parallel, safe against kills."""

import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dexgrasp.sim.objects import model_builder
from dexgrasp.sim.objects import model_builder as surface
from dexgrasp.sim.objects.families import FAMILIES
from dexgrasp.sim.objects.library import MANIFEST, MAX_PIECES, ObjectEntry, ObjectLibrary, ObjectModel, write_library
from dexgrasp.sim.objects.parameter_draws import ParameterSampler, stripe_owner
from dexgrasp.utils import files, process_pool
from dexgrasp.utils.progress import track

VERSION = 1
"""Raised when a seed gives other objects than before, so that old caches are not used."""
LONGEST_M = (0.05, 0.20)
"""Allowed longest side."""
THINNEST_M = 0.015
"""Least shortest side: things under 1.5 cm are beyond these hands (Zhang et al. 2025, limitations)."""
MASS_KG = (0.030, 0.500)
DENSITY = (120.0, 2500.0)
"""Range of apparent densities [kg/m^3], foam to stone; the mass is drawn log-uniformly within both ranges."""
FRICTION = (0.5, 1.0)
GENERATED_SPLITS = ("train", "validation", "test")
_MAX_TRIES = 50
_MIN_PER_PROCESS = 30
"""Objects that take as long as starting a process."""


@dataclass(frozen=True)
class ObjectRequest:
    """Request for one generated object; equal requests give equal bytes."""

    family: str
    split: str
    seed: int
    index: int

    @property
    def name(self) -> str:
        """Return the object name: family, split, seed and running number."""
        return f"{self.family}_{self.split}_s{self.seed}_{self.index:05d}"


def generate(
    n: int,
    out: str | Path,
    seed: int = 0,
    families: Sequence[str] | None = None,
    split: str = "train",
    workers: int | None = None,
    progress: bool = True,
) -> ObjectLibrary:
    """Return a library of n objects in folder `out`, generated only if it is not there yet.

    The families are used in turn.

    The same arguments give the same bytes, with any number of workers.  A killed run leaves complete files and no
    manifest; the next run goes on with them.  Two processes may ask for the same folder: one builds, one waits.
    """
    names = checked_families(families)
    if split not in GENERATED_SPLITS:
        raise ValueError(f"unknown split '{split}'; splits: {', '.join(GENERATED_SPLITS)}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    out = Path(out)
    request = {"n": n, "seed": seed, "split": split, "families": names}
    wanted = [ObjectRequest(family=names[k % len(names)], split=split, seed=seed, index=k) for k in range(n)]
    with files.folder_lock(out):
        if (out / MANIFEST).is_file():
            return _same_request(ObjectLibrary(out), request)
        files.remove_partials(out)
        few = -(-n // _MIN_PER_PROCESS)
        entries = _build_all(wanted, out, workers or min(process_pool.available_cores(), few), progress)
        files.remove_partials(out)  # of processes whose parent was killed, and that outlived the first sweep
        command = f"dexgrasp objects generate n={n} seed={seed} split={split} out=DIR"
        if families is not None:
            command += f" families={','.join(names)}"
        return write_library(out, [entries[r.name] for r in wanted], request, command)


def build(request: ObjectRequest) -> ObjectModel:
    """Return the object of a request: drawn again until it has the size that a hand can hold."""
    stream = [request.seed, request.index, GENERATED_SPLITS.index(request.split), zlib.crc32(request.family.encode())]
    rng = np.random.default_rng(stream)
    for _ in range(_MAX_TRIES):
        draw = ParameterSampler(rng, request.split)
        shape = FAMILIES[request.family](draw)
        mesh = shape.mesh()
        if not _fits(np.ptp(mesh[0], axis=0)) or len(shape.pieces) > MAX_PIECES:
            continue
        mass = _draw_mass(surface.mass_properties(*mesh)[0], draw)
        model = model_builder.assemble(
            name=request.name,
            family=request.family,
            split=request.split,
            seed=request.seed,
            mesh=mesh,
            pieces=list(shape.pieces),
            mass=mass,
            friction=draw.uniform(*FRICTION),
            rng=rng,
        )
        check_split(request, draw.proportions)
        return replace(model, proportion=draw.proportions[0])
    raise RuntimeError(
        f"family '{request.family}' gave no object of {LONGEST_M[0]} to {LONGEST_M[1]} m, at least {THINNEST_M} m thin "
        f"and of at most {MAX_PIECES} pieces in {_MAX_TRIES} draws: narrow its ranges"
    )


def check_split(request: ObjectRequest, proportions: Sequence[float]) -> None:
    """Raise ValueError unless the object has proportions, all in the stripes of its split."""
    if not proportions:
        raise ValueError(
            f"family '{request.family}' draws no proportion, so its splits would overlap: draw one with "
            "ParameterSampler.proportion"
        )
    strays = [p for p in proportions if stripe_owner(p) != request.split]
    if strays:
        raise ValueError(f"{request.name}: proportions {strays} belong to other splits than '{request.split}'")


def checked_families(families: Sequence[str] | None) -> list[str]:
    """Return the family names, all of them for None; unknown ones are an error that lists what there is."""
    names = list(FAMILIES if families is None else families)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names:
        raise ValueError(f"unknown families {unknown}; families: {', '.join(sorted(FAMILIES))}")
    return names


def _build_all(wanted: list[ObjectRequest], out: Path, workers: int, progress: bool) -> dict[str, ObjectEntry]:
    jobs = [(request, out) for request in wanted]
    entries = {}
    with closing(process_pool.run_in_processes(_write_one, jobs, workers)) as finished:
        for (request, _), entry in track(finished, len(jobs), "generate", progress):
            if isinstance(entry, process_pool.TaskFailure):
                raise ChildProcessError(f"{request.name} could not be built: {entry.reason}; try workers=1")
            files.check_place(out)  # the processes that write do not hold its lock
            entries[request.name] = entry
    return entries


def _write_one(job: tuple[ObjectRequest, Path]) -> ObjectEntry:
    request, out = job
    file = f"objects/{request.name}.npz"
    if (out / file).is_file():  # left by a run that was stopped: whole, for files appear in one step
        data = (out / file).read_bytes()
        return model_builder.make_entry(ObjectModel.from_bytes(data), file, data)
    model = build(request)
    data = model.to_bytes()
    files.write_bytes(out / file, data)
    return model_builder.make_entry(model, file, data)


def _fits(extents: np.ndarray) -> bool:
    return LONGEST_M[0] <= extents.max() <= LONGEST_M[1] and extents.min() >= THINNEST_M


def _draw_mass(volume: float, draw: ParameterSampler) -> float:
    low = max(MASS_KG[0], DENSITY[0] * volume)
    high = min(MASS_KG[1], DENSITY[1] * volume)
    if high <= low:  # a sheet lighter than the lightest, or a block heavier than the heaviest
        return float(np.clip(DENSITY[1] * volume, *MASS_KG))
    return float(np.exp(draw.uniform(np.log(low), np.log(high))))


def _same_request(library: ObjectLibrary, request: dict[str, object]) -> ObjectLibrary:
    if library.manifest["request"] != request:
        raise ValueError(
            f"{library.path} holds another library ({library.manifest['request']}), asked for {request}: "
            f"choose another folder or remove that one"
        )
    return library
