"""Public benchmark: the 1,000 objects `random_urdfs` of PyBullet, from its wheel.

CACHE/random_urdfs/*.obj, LICENSE.txt     the meshes, in their own unit
CACHE/random_urdfs-v1-n1000/              the library made from them

The wheel (zlib licence) is fetched once by pip and unpacked, never installed; beside the meshes nothing of it is kept.
"""

import hashlib
import logging
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from dexgrasp.sim.objects import importer
from dexgrasp.sim.objects.library import MANIFEST, ObjectLibrary
from dexgrasp.utils import files, process_pool

COUNT = 1000
RELEASE = "pybullet==3.2.7"
WHEEL = "pybullet-3.2.7-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
"""One wheel for every machine: only its data are used."""
PLATFORM = (
    "--platform",
    "manylinux2014_x86_64",
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
)
SHA256 = "5d858abf7c12a21ef3ed351cf81dac1b5e486ec25c9ab59bfc84beb89034edff"
SCALE = "0.015 0.015 0.015"
"""Factor to metres in every URDF of the set."""
MASS_KG = 0.1
"""Mass in every URDF of the set."""

MIN_PER_PROCESS = 50
"""Objects that take as long as starting a process."""

log = logging.getLogger("dexgrasp")


def cached_library(n: int = COUNT) -> ObjectLibrary:
    """Return the library of the first n objects, kept under the user's cache folder.

    Objects that are unfit for physics are left out.

    Works offline once the meshes are there.
    """
    if not 1 <= n <= COUNT:
        raise ValueError(f"objects=random_urdfs:N needs N from 1 to {COUNT}, got {n}")
    out = files.cache_folder() / f"random_urdfs-v{importer.VERSION}-n{n}"
    if (out / MANIFEST).is_file():
        return ObjectLibrary(out)
    settings = importer.ImportSettings(
        scale=float(SCALE.split()[0]), mass_min=MASS_KG, mass_max=MASS_KG, decomposition="parts"
    )
    folder = meshes(files.cache_folder() / "random_urdfs")
    workers = min(process_pool.available_cores(), -(-n // MIN_PER_PROCESS))
    report = importer.import_meshes(folder, out, settings, workers, most=n, one_per_thing=False)
    if report.refused:
        log.warning(report.summary())
    return report.library


def meshes(folder: Path) -> Path:
    """Return the folder with the meshes, which are fetched if they are not there."""
    if (folder / "LICENSE.txt").is_file():  # it comes last
        return folder
    with files.folder_lock(folder):
        if not (folder / "LICENSE.txt").is_file():
            files.remove_partials(folder)
            with tempfile.TemporaryDirectory() as place:
                wheel = folder / WHEEL if (folder / WHEEL).is_file() else fetch(Path(place), folder)
                unpack(wheel, folder)
    return folder


def fetch(place: Path, folder: Path) -> Path:
    """Return the wheel, loaded into `place`; `folder` is named in messages."""
    log.warning(
        f"random_urdfs: loading {RELEASE} (103 MB, zlib licence) from the package index, once; its {COUNT} meshes "
        f"(20 MB) are kept in {folder}"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--only-binary", ":all:", *PLATFORM, "--dest", str(place), RELEASE], capture_output=True, text=True
    )
    if done.returncode != 0 or not (place / WHEEL).is_file():
        reason = (done.stderr.strip().splitlines() or ["no such wheel"])[-1]
        raise OSError(f"random_urdfs: pip could not load {RELEASE} ({reason}); or put {WHEEL} into {folder} yourself")
    return place / WHEEL


def unpack(wheel: Path, folder: Path) -> None:
    """Write the meshes of the wheel into `folder`, and its licence at the end.

    Raise ValueError for another wheel.
    """
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{wheel}: sha256 {found}, expected {SHA256}: remove it and load {RELEASE} again")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        licence = next(name for name in names if re.fullmatch(r"pybullet-[\d.]+\.dist-info/LICENSE.txt", name))
        urdfs = [name for name in names if re.fullmatch(r"pybullet_data/random_urdfs/(\d+)/\1\.urdf", name)]
        if len(urdfs) != COUNT:
            raise ValueError(f"{wheel} has {len(urdfs)} objects under random_urdfs, expected {COUNT}")
        for name in urdfs:
            check_urdf(archive.read(name).decode(), name)
            number = Path(name).stem
            files.write_bytes(folder / f"random_{number}.obj", archive.read(name.replace(".urdf", ".obj")))
        files.write_bytes(folder / "LICENSE.txt", archive.read(licence))


def check_urdf(text: str, name: str) -> None:
    """Raise ValueError unless the URDF shows and collides its own mesh, at the scale and mass of the set."""
    root, mesh = ElementTree.fromstring(text), {"filename": f"{Path(name).stem}.obj", "scale": SCALE}
    shapes = [root.find(f"./link/{use}/geometry/mesh") for use in ("visual", "collision")]
    mass = root.find("./link/inertial/mass")
    if any(shape is None or shape.attrib != mesh for shape in shapes):
        raise ValueError(f"{name}: expected the mesh {mesh} as visual and collision")
    if mass is None or float(mass.attrib["value"]) != MASS_KG:
        raise ValueError(f"{name}: expected a mass of {MASS_KG} kg")
