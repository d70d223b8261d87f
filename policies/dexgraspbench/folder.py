"""Places of grasps, verdicts and hands in a folder of DexGraspBench. Needs neither torch nor MuJoCo."""

from pathlib import Path

from dexgrasp.utils.files import expand_user


def find_grasps(folder: str, grasps: str, most: int, *, only_judged: bool) -> list[Path]:
    """Return the grasp files of a set in a folder of DexGraspBench.

    At most `most` of them, spread evenly; 0: all. `only_judged`: those of which DexGraspBench has stored a verdict.
    Raises FileNotFoundError without any.
    """
    root = expand_user(folder)
    if not folder or not root.is_dir():
        raise FileNotFoundError(
            f"no folder '{folder}': expected the repository JYChen18/DexGraspBench, or a folder that "
            "`dexgrasp benchmark grasps` wrote"
        )
    files = sorted((root / grasps / "graspdata").rglob("*.npy"))
    if only_judged:
        files = [path for path in files if verdict_file(path, root / grasps).is_file()]
    if not files:
        judged = " that has a verdict" if only_judged else ""
        raise FileNotFoundError(f"no .npy in {root / grasps / 'graspdata'}{judged}: give grasps=, a folder in {folder}")
    count = min(most or len(files), len(files))
    return [files[i * len(files) // count] for i in range(count)]


def find_hand_model(folder: str, grasps: str, hand: str) -> Path:
    """Return the MJCF of the hand of a set of grasps, by default that of the set's name.

    `hand`: its path from `folder` or the working directory; empty: assets/hand/NAME/right_hand.xml, where `grasps` ends
    in _NAME. Raises FileNotFoundError with what to give.
    """
    root, name = expand_user(folder), grasps.rstrip("/").rpartition("_")[2]
    place = hand or f"assets/hand/{name}/right_hand.xml"
    for path in (root / place, expand_user(place)):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no file {root / place}: give hand=, the MJCF of the hand of these grasps")


def verdict_file(path: Path, grasps: Path) -> Path:
    """Return where DexGraspBench stores its verdict of a grasp file in the folder `grasps` of a set."""
    return grasps / "evaluation" / path.relative_to(grasps / "graspdata")
