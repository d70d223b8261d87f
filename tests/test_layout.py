"""The shape of the project, held as data: who imports whom, sizes, docstrings, README, and what no file may contain."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "dexgrasp": set(),
    "assets": {"dexgrasp"},
    "configs": {"dexgrasp"},
    "perception": {"dexgrasp"},
    "sim": {"assets", "dexgrasp", "perception"},
    "policies": {"assets", "configs", "dexgrasp", "perception", "sim"},
    "dexgrasp_ros": {
        "assets",
        "dexgrasp",
        "perception",
        "policies.bundle",
        "policies.hand_state",
        "policies.limiter",
        "policies.runs",
        "policies.runtime",
        "policies.safety",
    },
}
"""Arrows between the packages, in the direction in which data flows; of `policies` a robot takes these modules only."""

SIMULATES = ("/arm.py", "/film.py", "/identify_hand.py", "/sim_camera.py", "/sim_robot.py")
"""Files of dexgrasp_ros that may import the simulator and its presets."""

ROS = "ros2_ws/src/dexgrasp_ros/dexgrasp_ros"
ELSEWHERE = {"dexgrasp_ros": ROS}
"""Folders of packages that do not lie at the top."""

DOORS = {
    "coacd": ("sim/",),
    "cv2": ("perception/charuco.py",),
    "gymnasium": ("sim/", "policies/"),
    "hydra": ("configs/",),
    "imageio": ("sim/render.py",),
    "manifold3d": ("sim/",),
    "matplotlib": ("policies/", "sim/", f"{ROS}/identify"),
    "mink": ("sim/",),
    "mujoco": ("sim/", "policies/bench.py", f"{ROS}/sim_camera.py", f"{ROS}/sim_robot.py", f"{ROS}/identify"),
    "mujoco_warp": ("sim/warp",),
    "omegaconf": ("configs/",),
    "onnxruntime": ("policies/runtime.py",),
    "open3d": ("perception/",),
    "pyarrow": ("policies/sharding.py", "policies/trial_store.py"),
    "pyrealsense2": ("perception/realsense.py",),
    "ray": ("policies/sharding.py",),
    "rclpy": (f"{ROS}/",),
    "rosbags": (f"{ROS}/",),
    "stable_baselines3": ("policies/", "sim/vec_env.py"),
    "torch": (
        *("dexgrasp/utils/timers.py", "perception/", "sim/", "policies/"),
        *(f"{ROS}/{name}" for name in ("arm.py", "perception", "sim_robot.py", "wave_check.py")),
    ),
    "trimesh": ("sim/",),
    "viser": ("policies/viewer_page.py",),
    "warp": ("sim/warp",),
}
"""Heavy dependencies, and the only places that may import them."""

RUNS_ON_ROBOT = (
    "dexgrasp/__init__.py",
    "dexgrasp/utils/__init__.py",
    "dexgrasp/utils/rotations.py",
    "policies/__init__.py",
    "policies/bundle.py",
    "policies/hand_state.py",
    "policies/limiter.py",
    "policies/runtime.py",
    "policies/safety.py",
)
"""What a robot imports: numpy, onnxruntime, the standard library, and each other."""

DISTRIBUTIONS = {
    "PIL": "pillow",
    "builtin_interfaces": "ros-jazzy-rclpy",
    "cv2": "opencv-python-headless",
    "diagnostic_msgs": "ros-jazzy-diagnostic-msgs",
    "geometry_msgs": "ros-jazzy-geometry-msgs",
    "hydra": "hydra-core",
    "lifecycle_msgs": "ros-jazzy-lifecycle-msgs",
    "rcl_interfaces": "ros-jazzy-rclpy",
    "rclpy": "ros-jazzy-rclpy",
    "rosgraph_msgs": "ros-jazzy-rclpy",
    "sensor_msgs": "ros-jazzy-sensor-msgs",
    "stable_baselines3": "stable-baselines3",
    "warp": "warp-lang",
    "std_msgs": "ros-jazzy-sensor-msgs",
    "std_srvs": "ros-jazzy-std-srvs",
    "trajectory_msgs": "ros-jazzy-trajectory-msgs",
    "yaml": "pyyaml",
}
"""Names on the package index that differ from the name in `import`, or what brings it along."""

LINES_PER_FILE, LINES_PER_FUNCTION = 300, 60
WITHOUT_DOCSTRING = 0
"""Public functions and methods without a docstring: this number may only fall."""

SOURCES = sorted(path for package in MAY_IMPORT for path in (ROOT / ELSEWHERE.get(package, package)).rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def imports(tree):
    """Dotted names of all modules that a file imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def functions(tree):
    """Functions at module level and methods of classes, with a dotted name."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{part.name}", part) for part in node.body if isinstance(part, ast.FunctionDef))


def tracked():
    """Text files that git tracks, or would track; without git, all beside the sources."""
    listing = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, capture_output=True, text=True)
    names = done.stdout.splitlines() if done.returncode == 0 else [*TREES, "README.md", "Makefile", "pyproject.toml"]
    texts = (".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".xml", ".json", "Makefile", "run", ".gitignore")
    return [ROOT / name for name in names if name.endswith(texts) and (ROOT / name).is_file()]


@pytest.mark.parametrize("file", TREES)
def test_a_package_imports_only_what_lies_below_it(file):
    package = next((name for name, folder in ELSEWHERE.items() if file.startswith(folder)), file.split("/")[0])
    simulates = package == "dexgrasp_ros" and file.endswith(SIMULATES)
    allowed = MAY_IMPORT[package] | ({"configs", "sim"} if simulates else set())
    names = set(imports(TREES[file]))
    ours = {name for name in names if name.split(".")[0] in set(MAY_IMPORT) - {package}}
    wrong = {name for name in ours if name.split(".")[0] not in allowed and name not in allowed}
    assert not wrong, f"{file} imports {sorted(wrong)}; {package} may import {sorted(allowed) or 'none'}"
    assert "." not in names, f"{file} uses a relative import: write the full name"


@pytest.mark.parametrize("file", TREES)
def test_a_heavy_dependency_is_imported_behind_its_door_only(file):
    for name in {name.split(".")[0] for name in imports(TREES[file])} & set(DOORS):
        doors = DOORS[name]
        assert file.startswith(doors), f"{file} imports {name}; its doors: {', '.join(doors) or 'none here'}"


@pytest.mark.parametrize("file", RUNS_ON_ROBOT)
def test_what_runs_on_a_robot_imports_little(file):
    ours = {name.removesuffix(".py").replace("/", ".") for name in RUNS_ON_ROBOT}
    heavy = {name for name in imports(TREES[file]) if name.split(".")[0] not in sys.stdlib_module_names} - ours
    allowed = {"numpy", "numpy.typing"} | ({"onnxruntime"} if file == "policies/runtime.py" else set())
    assert heavy <= allowed, (
        f"{file} imports {sorted(heavy - allowed)}; a robot has {sorted(allowed)} and {sorted(ours)}"
    )


def test_everything_that_is_imported_is_declared_and_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    declared = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    ours = {*MAY_IMPORT, *sys.stdlib_module_names}
    used = {name.split(".")[0] for tree in TREES.values() for name in imports(tree)} - ours
    missing = {name for name in used if DISTRIBUTIONS.get(name, name).replace("_", "-").lower() not in declared}
    assert not missing, f"imported, but not in pyproject.toml: {sorted(missing)}"
    by_machine = {"open3d"}  # two names for one module: constraints hold that of x86
    assert declared - pinned <= by_machine, f"not in constraints.txt: {sorted(declared - pinned - by_machine)}"


@pytest.mark.parametrize("file", TREES)
def test_files_and_functions_stay_small(file):
    lines = len((ROOT / file).read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_PER_FILE, f"{file} has {lines} lines: a noun is missing, split it there"
    long = {name: f.end_lineno - f.lineno + 1 for name, f in functions(TREES[file])}
    assert not {name: count for name, count in long.items() if count > LINES_PER_FUNCTION}


def test_every_public_function_says_what_it_means():
    bare = [
        f"{file}: {name}"
        for file, tree in TREES.items()
        for name, function in functions(tree)
        if not any(part.startswith("_") for part in name.split(".")) and not ast.get_docstring(function)
    ]
    assert len(bare) <= WITHOUT_DOCSTRING, "no docstring:\n" + "\n".join(bare)


def test_every_file_says_why_it_exists():
    assert not [file for file, tree in TREES.items() if not ast.get_docstring(tree)]


def readme_tree():
    """Paths in the tree of the README, whose lines are `name  meaning`, indented by two blanks per folder."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("## The tree", 1)[1].split("```")[1]
    folders: list[str] = []
    for line in block.splitlines():
        name = line.split()[0] if line.strip() else ""
        if not name:
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        path = "".join(folders[:depth]) + name
        if name.endswith("/"):
            folders[depth:] = [name]
        yield path, len(line.split()) > 1


def test_the_tree_in_the_readme_is_that_of_the_disk():
    shown = dict(readme_tree())
    assert not [path for path in shown if not (ROOT / path).exists()], "in the README, not on the disk"
    missing = [file for file, tree in TREES.items() if file not in shown and not file.endswith("__init__.py")]
    assert not missing, f"on the disk, not in the README: {missing}"
    assert all(meaning for path, meaning in shown.items() if not path.endswith("/")), "each file has one line"


@pytest.mark.parametrize("path", tracked(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_names_a_machine_or_a_package_host(path):
    text = path.read_text(encoding="utf-8")
    folders = re.findall(r"(?<![\w.}])/(?:home|root|work|Users|mnt)/[\w.]+", text)
    assert not folders, f"absolute paths of one machine: {folders}"
    hosts = re.findall(r"(?:pypi|pythonhosted|download\.pytorch)\.org|(?:extra-)?index-url|find-links", text)
    assert not [host for host in hosts if path != Path(__file__).resolve()], f"package hosts: {hosts}"
