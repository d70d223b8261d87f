"""Grasp files of DexGraspBench, one .npy per grasp, and the verdicts of its own evaluation.

ROOT/SET/graspdata/**/*.npy     grasps: a pickled dictionary with obj_path, relative to ROOT, obj_scale, obj_pose (7,),
                                pregrasp_qpos, grasp_qpos and squeeze_qpos (7 + joint,) each
ROOT/SET/evaluation/**/*.npy    the verdict succ_flag of each, under the path of the grasp
ROOT/OBJECT/urdf/meshes/*.obj   convex pieces of an object at scale 1
ROOT/OBJECT/info/simplified.json    its mass, density and scale, which give its volume

Poses are position [m] and quaternion wxyz in one world frame. A hand's pose is that of the outermost frame of its MJCF;
joint positions [rad] follow in the order of the MJCF.
"""

import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dexgrasp.utils.files import write_bytes
from dexgrasp.utils.readers import DamagedFileError, reading, regular_bytes

KIND = "grasp file of DexGraspBench"
STAGES = ("pregrasp_qpos", "grasp_qpos", "squeeze_qpos")
"""Keys of the hand's positions, in the order in which they are reached."""
_NUMPY = {("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numpy", "ndarray"), ("numpy", "dtype")}
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
"""Module of arrays in files of NumPy 1 and 2."""
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)
"""Errors of an unpickler: of its syntax, and of sizes that the file does not hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grasp:
    """One open-loop grasp of an object that floats."""

    obj_path: str
    """Folder of the object, relative to the folder of the benchmark."""
    obj_scale: float
    """Factor from the object's files to metres."""
    obj_pose: np.ndarray
    """(7,) pose of the object."""
    pregrasp_qpos: np.ndarray
    """(7 + joint,) pose of the hand and joint positions before the grasp, without contact."""
    grasp_qpos: np.ndarray
    """(7 + joint,) at the grasp."""
    squeeze_qpos: np.ndarray
    """(7 + joint,) target beyond the grasp: the servos press the fingers against the object."""


def read_grasp(path: Path) -> Grasp:
    """Return the grasp in a .npy file. Raises DamagedFileError; no content can run code."""
    values = read_values(path)
    with reading(path, KIND):
        arrays = {key: np.asarray(values[key], dtype=np.float64) for key in ("obj_pose", *STAGES)}
        grasp = Grasp(obj_path=str(values["obj_path"]), obj_scale=float(values["obj_scale"]), **arrays)
    if wrong := _wrong(grasp, arrays):
        raise DamagedFileError(path, KIND, wrong)
    return grasp


def write_grasp(path: Path, grasp: Grasp) -> None:
    """Write a grasp, and the folders above it; `read_grasp` returns equal numbers, bit for bit."""
    content = io.BytesIO()
    np.save(content, np.array(asdict(grasp), dtype=object))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())


def read_verdict(path: Path) -> bool | None:
    """Return the verdict that DexGraspBench has stored in a file of its evaluation; None without the file."""
    if not path.is_file():
        return None
    with reading(path, "evaluation of DexGraspBench"):
        return bool(read_values(path)["succ_flag"])


def read_values(path: Path) -> Mapping[str, Any]:
    """Return the dictionary in a .npy file: arrays, numbers and texts, nothing else is unpickled."""
    content = io.BytesIO(regular_bytes(path))
    try:
        version = np.lib.format.read_magic(content)
        if version != (1, 0):
            raise ValueError(f"expected version 1.0 of the format .npy, got {'.'.join(map(str, version))}")
        shape, _, kind = np.lib.format.read_array_header_1_0(content)
        if shape != () or not kind.hasobject:
            raise ValueError(f"expected one dictionary, got an array of shape {shape} and type {kind}")
        value = _ArrayUnpickler(content).load().item()
    except _DAMAGE as error:
        raise DamagedFileError(path, KIND, error) from error
    if not isinstance(value, dict):
        raise DamagedFileError(path, KIND, f"expected one dictionary, got {type(value).__name__}")
    return value


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of NumPy's arrays and numbers that refuses every other class and function."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of NumPy. Raises UnpicklingError for all others."""
        of_arrays = module in _MULTIARRAY
        if ("multiarray" if of_arrays else module, name) not in _NUMPY:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return super().find_class(_MULTIARRAY[1] if of_arrays else module, name)


def _wrong(grasp: Grasp, arrays: Mapping[str, np.ndarray]) -> str:
    """Return what is wrong with the numbers of a grasp, empty where nothing is."""
    shapes = {arrays[key].shape for key in STAGES}
    for key, array in arrays.items():
        if array.ndim != 1 or len(array) < 7 or len(shapes) != 1:
            return f"{key} has the shape {array.shape}, expected the 7 numbers of a pose, and the joints of the hand"
        if not np.isfinite(array).all() or not 0.5 < np.linalg.norm(array[3:7]) < 2.0:
            return f"{key} must be finite, with a quaternion at 3 to 6"
    if len(grasp.obj_pose) != 7:
        return f"obj_pose has {len(grasp.obj_pose)} numbers, expected 7"
    return "" if 1e-4 < grasp.obj_scale < 1e4 else f"obj_scale must lie in 1e-4 to 1e4, got {grasp.obj_scale}"
