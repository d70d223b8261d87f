"""Choice of the wanted object: by pixel, point, label, nearness, size or the promise of its grasp.

largest     the object with most points
nearest     the object nearest to the camera
best        the object with the most promising grasp, where a planner is there
320,240     the object at a pixel: column, row of the depth image
0.1,0,0.05  the object at a point: x, y, z in the world frame [m]
label:3     the object of a number in `segment.labels`, an image of the objects' numbers from a detector or by hand
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial import KDTree

from dexgrasp.utils.readers import DamagedFileError
from dexgrasp.utils.text import one_line

PIXEL_REACH, POINT_REACH_M = 10.0, 0.02
"""An object this near to the wanted pixel or point is at it: pixels go missing, and a click misses."""
FOLLOW_REACH_M = 0.01
"""Points of an object that are this near to those of an earlier frame are of one object."""
LARGEST_LABEL = 65_535


@dataclass(frozen=True)
class Target:
    """The object that is wanted."""

    kind: Literal["largest", "nearest", "best", "pixel", "point", "label"]
    at: tuple[float, ...] = ()
    """(column, row), or (x, y, z) in the world frame [m], or (label,)."""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Return the target that a text names. Raises ValueError with what was expected."""
        if text in ("largest", "nearest", "best"):
            return cls(text)
        label = text.startswith("label:")
        try:
            at = [float(part) for part in text.removeprefix("label:").split(",")]
        except ValueError:
            at = []
        if len(at) not in ([1] if label else [2, 3]) or not np.isfinite(at).all():
            raise ValueError(
                f"target: expected largest, nearest, best, COLUMN,ROW [pixel], X,Y,Z [m] or label:NUMBER, got {text!r}"
            )
        if label and not (at[0].is_integer() and 1 <= at[0] <= LARGEST_LABEL):
            raise ValueError(f"target: a label is a whole number from 1 to {LARGEST_LABEL}, got {text!r}")
        return cls("label" if label else "pixel" if len(at) == 2 else "point", tuple(at))

    def __str__(self) -> str:
        numbers = ", ".join(f"{value:g}" for value in self.at)
        return {"pixel": f"pixel ({numbers})", "point": f"point ({numbers}) m", "label": f"label {numbers}"}.get(
            self.kind, self.kind
        )


@dataclass(frozen=True)
class LabelledPoints:
    """Points of all objects in one image, among which the target is chosen."""

    labels: NDArray[np.int32]
    """(n,) number of each point's object; 0 = of none."""
    points_w: NDArray[np.float32]
    """(3, n) world frame [m]."""
    pixels: NDArray[np.int64]
    """(2, n) column and row in the depth image."""
    depth_m: NDArray[np.float32]
    """(n,) distance from the camera along its axis [m]."""


def choose(target: Target, among: LabelledPoints) -> tuple[int, str]:
    """Return the number of the wanted object, or 0 and how far it was missed."""
    known = np.flatnonzero(among.labels)
    if not len(known):
        return 0, "there is no object"
    labels = among.labels[known]
    if target.kind == "label":
        wanted = int(target.at[0])
        found = np.unique(labels)
        return (wanted, "") if wanted in found else (0, f"the labels with points are {', '.join(map(str, found[:8]))}")
    if target.kind == "largest":
        return int(np.bincount(labels).argmax()), ""
    if target.kind == "nearest":
        return int(labels[among.depth_m[known].argmin()]), ""
    places = among.pixels if target.kind == "pixel" else among.points_w
    away = np.linalg.norm(places[:, known] - np.array(target.at)[:, None], axis=0)
    nearest = int(away.argmin())
    if away[nearest] <= (PIXEL_REACH if target.kind == "pixel" else POINT_REACH_M):
        return int(labels[nearest]), ""
    unit = f"{away[nearest]:.0f} pixels" if target.kind == "pixel" else f"{away[nearest]:.3f} m"
    return 0, f"the nearest object is {unit} away"


def follow(earlier_w: NDArray[np.float32], among: LabelledPoints) -> int:
    """Return the number of the object that holds most points near `earlier_w` (n, 3) [m], else 0."""
    known = np.flatnonzero(among.labels)
    if not len(known):
        return 0
    tree = KDTree(np.asarray(earlier_w, float))
    away, _ = tree.query(among.points_w[:, known].T, distance_upper_bound=FOLLOW_REACH_M)
    near = among.labels[known][np.isfinite(away)]
    return int(np.bincount(near).argmax()) if len(near) else 0


def middle(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the (row, column) in a mask that is farthest from its outline: where one would click."""
    distance = np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1)))[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), mask.shape)
    return int(row), int(column)


def read_labels(name: str | Path) -> NDArray[np.int32]:
    """Return the objects' numbers (rows, columns) of a PNG or NPY file; 0 = none.

    A mask of truth values is number 1. Raises DamagedFileError or OSError.
    """
    path = Path(name)
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                values = np.lib.format.read_array(file, allow_pickle=False)
        else:
            with Image.open(path) as image:
                values = np.asarray(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: give a PNG or NPY image of the objects' numbers") from None
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow raises SyntaxError for a broken PNG
        raise DamagedFileError(path, "label image", one_line(error, 200)) from error
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise DamagedFileError(
            path, "label image", f"expected whole numbers (rows, columns), got {values.dtype} {values.shape}"
        )
    if values.size and (values.min() < 0 or values.max() > LARGEST_LABEL):
        raise DamagedFileError(path, "label image", f"expected numbers from 0 to {LARGEST_LABEL}")
    return values.astype(np.int32)
