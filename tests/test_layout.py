"""The layout as data: import directions, folder sizes, names, docstrings, dependencies, forbidden content."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from itertools import chain, pairwise
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
ROS = "ros2_ws/src/dexgrasp_ros/dexgrasp_ros"

MAY_IMPORT: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parent / "import_table.yaml").read_text(encoding="utf-8")
)
"""Folder -> folders that its files may import, bottom first."""

OPEN = {"dexgrasp/utils", "dexgrasp/assets"}
"""Folders that everyone may import."""

MODULES_PER_FOLDER = 15

DOORS = {
    "coacd": ("sim/objects/",),
    "cryptography": ("policies/deploy/signature.py",),
    "cv2": ("perception/calibration/board_layout.py",),
    "gymnasium": ("sim/envs/", "policies/", "dexgrasp/"),
    "hydra": ("configs/",),
    "imageio": ("sim/rendering/",),
    "jinja2": ("policies/evaluation/",),
    "manifold3d": ("sim/objects/",),
    "matplotlib": ("policies/", "sim/objects/", f"{ROS}/identification/"),
    "mink": ("sim/robots/",),
    "mujoco": ("sim/", "policies/benchmarks/engine.py", f"{ROS}/simulation/", f"{ROS}/identification/"),
    "mujoco_warp": ("sim/engine/warp",),
    "omegaconf": ("configs/",),
    "onnxruntime": ("policies/deploy/policy.py",),
    "open3d": ("perception/scanning/open3d_import.py",),
    "pyarrow": ("policies/evaluation/",),
    "pyrealsense2": ("perception/cameras/realsense.py",),
    "ray": ("policies/evaluation/ray_backend.py",),
    "rclpy": (f"{ROS}/",),
    "rosbags": (f"{ROS}/",),
    "stable_baselines3": ("policies/", "sim/envs/sb3_env.py"),
    "torch": (
        *("perception/", "sim/", "policies/", "dexgrasp/"),
        *(
            f"{ROS}/{name}"
            for name in (
                "drivers/arm_kinematics.py",
                "nodes/perception_node.py",
                "perception/",
                "simulation/",
                "joint_test/",
            )
        ),
    ),
    "trimesh": ("sim/",),
    "viser": ("policies/viewer/page.py",),
    "wandb": ("policies/training/trackers.py",),
    "warp": ("sim/engine/warp",),
}
"""Heavy dependencies, and the only places that may import them."""

ROBOT = {"numpy", "onnxruntime", "yaml", "lazy_loader", "cryptography"}
"""Third-party packages that `policies/deploy` and `dexgrasp/utils/rotations.py` may import."""

DISTRIBUTIONS = {
    "PIL": "pillow",
    "action_msgs": "ros-jazzy-rclpy",
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
"""Names on the package index that differ from the name in `import`, or the package that brings a module along."""

PACKAGES = ("dexgrasp", "assets", "configs", "perception", "policies", "sim", ROS)
SOURCES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if not any(parent.is_symlink() for parent in path.parents if ROOT in parent.parents)
)
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def module_of(file):
    """Return the dotted name under which a file is imported."""
    file = file.removeprefix("ros2_ws/src/dexgrasp_ros/")
    if file.split("/")[0] not in ("dexgrasp", "dexgrasp_ros"):
        file = f"dexgrasp/{file}"
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(file): file for file in TREES}


def folder_of(file):
    """Return the folder of the import table that a file belongs to; families of objects count as `sim/objects`."""
    file = file.replace("objects/families/", "objects/")
    return (
        module_of(file).replace(".", "/")
        if file.endswith("__init__.py")
        else module_of(file).rpartition(".")[0].replace(".", "/")
    )


@functools.cache
def nodes(tree):
    """Return all nodes of a module."""
    return list(ast.walk(tree))


def imported_modules(tree):
    """Yield dotted names of all modules that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def eager_imports(name):
    """Yield the modules that a module of ours imports when it is imported itself."""
    for node in TREES[MODULES[name]].body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imported_modules(node)


GRAPH = {
    name: {target for target in imported_modules(TREES[file]) if target in MODULES and target != name}
    for name, file in MODULES.items()
}


def circles(graph):
    """Return the strongly connected components of more than one module (Tarjan)."""
    index, low, stack, found, on_stack = {}, {}, [], [], set()

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        on_stack.add(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in on_stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            part = []
            while not part or part[-1] != node:
                part.append(stack.pop())
                on_stack.discard(part[-1])
            if len(part) > 1:
                found.append(sorted(part))

    sys.setrecursionlimit(10_000)
    for node in graph:
        if node not in index:
            visit(node)
    return found


def functions(tree):
    """Yield (dotted name, node) of functions at module level and of methods."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{part.name}", part) for part in node.body if isinstance(part, ast.FunctionDef))


def is_public(name):
    return not any(part.startswith("_") for part in name.split("."))


def docstrings():
    """Yield (place, docstring) of modules, public classes, public functions, public methods and documented fields."""
    for file, tree in TREES.items():
        yield file, ast.get_docstring(tree)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and is_public(node.name):
                yield f"{file}: {node.name}", ast.get_docstring(node)
        yield from ((f"{file}: {name}", ast.get_docstring(node)) for name, node in functions(tree) if is_public(name))


def tracked():
    """Return text files that git tracks or would track; without git, the sources."""
    listing = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, capture_output=True, text=True)
    names = done.stdout.splitlines() if done.returncode == 0 else [*TREES, "README.md", "Makefile", "pyproject.toml"]
    texts = (
        ".py",
        ".pyi",
        ".md",
        ".toml",
        ".txt",
        ".yaml",
        ".yml",
        ".xml",
        ".json",
        ".j2",
        "Makefile",
        "run",
        ".gitignore",
    )
    return [ROOT / name for name in names if name.endswith(texts) and (ROOT / name).is_file()]


def test_no_modules_import_each_other_in_a_circle():
    assert not circles(GRAPH)


def test_the_search_for_circles_finds_one():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def used_folders():
    """Return folder -> folders that its files import, its own among them."""
    used = defaultdict(set)
    for name, file in MODULES.items():
        used[folder_of(file)] |= {folder_of(MODULES[target]) for target in GRAPH[name]}
    return used


def test_a_folder_imports_only_the_folders_of_the_table():
    folders = sorted({folder_of(file) for file in TREES})
    missing = [folder for folder in folders if folder not in MAY_IMPORT]
    assert not missing, f"not in tests/import_table.yaml: {missing}"
    used = used_folders()
    wrong = [
        f"{folder} imports {sorted(others)}; it may import {sorted({*MAY_IMPORT[folder]} | OPEN)}"
        for folder in folders
        if (others := used[folder] - {*MAY_IMPORT[folder]} - OPEN - {folder})
    ]
    assert not wrong, "\n".join(wrong)


def test_the_import_table_has_one_direction_and_no_idle_entry():
    order = list(MAY_IMPORT)
    upward = [(a, b) for a in order for b in MAY_IMPORT[a] if order.index(b) > order.index(a)]
    assert not upward, f"a folder may import only folders above its line in tests/import_table.yaml: {upward}"
    used = used_folders()
    assert not {a: idle for a in order if (idle := {*MAY_IMPORT[a]} - used[a])}, (
        "allowed in tests/import_table.yaml, but not imported"
    )


def test_no_folder_holds_more_than_fifteen_modules():
    count = defaultdict(int)
    for file in TREES:
        if not file.endswith("__init__.py"):
            count[Path(file).parent.as_posix()] += 1
    assert max(count.values()) <= MODULES_PER_FOLDER, {k: v for k, v in count.items() if v > MODULES_PER_FOLDER}


def test_a_public_class_name_exists_once():
    places = defaultdict(list)
    for file, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and is_public(node.name):
                places[node.name].append(file)
    assert not {name: files for name, files in places.items() if len(files) > 1}


def test_a_heavy_dependency_is_imported_behind_its_door_only():
    wrong = [
        f"{file} imports {name}; its doors: {', '.join(DOORS[name])}"
        for file, tree in TREES.items()
        for name in sorted({name.split(".")[0] for name in imported_modules(tree)} & set(DOORS))
        if not file.startswith(DOORS[name])
    ]
    assert not wrong, "\n".join(wrong)


def foreign_packages(file):
    """Return the third-party packages that importing a module executes imports of: not those in functions."""
    seen, todo = set(), [module_of(file)]
    while todo:  # through our own modules and the packages that hold them
        name = todo.pop()
        if name in MODULES and name not in seen:
            seen.add(name)
            todo += [t for t in eager_imports(name) if t in MODULES]
            todo += [*(name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1))]
    known = {*sys.stdlib_module_names, "dexgrasp"}
    return {target.split(".")[0] for name in seen for target in eager_imports(name)} - known


def test_what_runs_on_a_robot_imports_little():
    deployed = [file for file in TREES if file.startswith("policies/deploy/")]
    assert deployed
    wrong = [
        f"{file} needs {sorted(heavy)} beside {sorted(ROBOT)}"
        for file in deployed
        if (heavy := foreign_packages(file) - ROBOT)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_imports_a_top_level_folder_by_its_bare_name():
    bare = {"assets", "configs", "perception", "policies", "sim"}
    wrong = {file for file, tree in TREES.items() if {name.split(".")[0] for name in imported_modules(tree)} & bare}
    assert not wrong, f"import these through `dexgrasp`: {sorted(wrong)}"


def test_everything_that_is_imported_is_declared_and_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    declared = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    used = {name.split(".")[0] for tree in TREES.values() for name in imported_modules(tree)}
    used -= {"dexgrasp", "dexgrasp_ros", *sys.stdlib_module_names}
    missing = {name for name in used if DISTRIBUTIONS.get(name, name).replace("_", "-").lower() not in declared}
    assert not missing, f"imported, but not in pyproject.toml: {sorted(missing)}"
    assert declared <= pinned, f"not in constraints.txt: {sorted(declared - pinned)}"


def test_every_extra_is_described():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in ("README.md", "docs/install.md"):
        table = re.findall(r"^\| (`.*`) \| .* \|$", (ROOT / page).read_text(encoding="utf-8"), re.M)
        described = set(re.findall(r"`([\w-]+)`", " ".join(table)))
        assert set(project["optional-dependencies"]) <= described, f"{page} lacks an extra of pyproject.toml"


def test_every_module_class_and_public_function_has_a_docstring():
    assert not [place for place, text in docstrings() if not text and not place.endswith("__main__.py: main")]


def test_the_first_line_of_a_docstring_stands_alone():
    vague = re.compile(r"(The same|Likewise|Of |What |See |As |It |This |That )")
    wrong = [
        f"{place}: {text.splitlines()[0]}"
        for place, text in docstrings()
        if text and (len(text.splitlines()[0]) > 100 or vague.match(text))
    ]
    assert not wrong, "\n".join(wrong)


def field_docstrings():
    """Yield (place, docstring) of the documented fields of dataclasses: help and parameter lists print them alone."""
    for file, tree in TREES.items():
        for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            for field, text in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    yield f"{file}: {node.name}.{field.target.id}", str(text.value.value)


def test_the_docstring_of_a_field_stands_alone():
    vague = re.compile(r"(The same|Likewise|See |As |Ditto|To what|At which|What (is|was))")
    wrong = [f"{place}: {text}" for place, text in field_docstrings() if vague.match(text)]
    assert not wrong, "\n".join(wrong)


def test_strings_at_module_level_are_its_docstring_and_those_of_constants():
    """A second title halfway down is a module that should be two, or was."""
    wrong = [
        f"{file}:{node.lineno}: a string that documents nothing"
        for file, tree in TREES.items()
        for before, node in pairwise(tree.body)
        if is_text(node) and not isinstance(before, (ast.Assign, ast.AnnAssign))
    ]
    assert not wrong, "\n".join(wrong)


def is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def dataclass_names(tree):
    """Return the names of the dataclasses that a module defines."""
    found = set()
    for node in (node for node in nodes(tree) if isinstance(node, ast.ClassDef)):
        decorators = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
        if any(getattr(d, "id", getattr(d, "attr", "")) == "dataclass" for d in decorators):
            found.add(node.name)
    return found


DATACLASSES = set().union(*map(dataclass_names, TREES.values()))


def positional_calls(tree):
    """Yield (class, line) of calls of our dataclasses with more than three positional arguments, or a starred one.

    `cls(...)` counts in the body of a dataclass; names imported from other packages do not.
    """
    foreign = {
        alias.asname or alias.name
        for node in nodes(tree)
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("dexgrasp")
        for alias in node.names
    }
    own = dataclass_names(tree)
    owners = [node for node in nodes(tree) if isinstance(node, ast.ClassDef) and node.name in own]
    in_own = {id(node) for owner in owners for node in ast.walk(owner)}
    for node in (node for node in nodes(tree) if isinstance(node, ast.Call)):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        ours = (name in DATACLASSES and name not in foreign) or (name == "cls" and id(node) in in_own)
        if ours and (len(node.args) > 3 or any(isinstance(arg, ast.Starred) for arg in node.args)):
            yield name, node.lineno


def test_more_than_three_fields_of_a_dataclass_go_by_keyword():
    """A field that is added in the middle would else be a silent error."""
    wrong = [f"{file}:{line}: {name}" for file, tree in TREES.items() for name, line in positional_calls(tree)]
    assert not wrong, "\n".join(wrong)


def test_the_search_for_positional_fields_finds_them():
    calls = "Term(1, 2, 3)\nTerm(1, 2, 3, 4)\nTerm(*row)\nTerm(1, 2, 3, scale=4)\nprint(1, 2, 3, 4)"
    assert list(positional_calls(ast.parse(calls))) == [("Term", 2), ("Term", 3)]
    assert not list(positional_calls(ast.parse("from elsewhere import Term\nTerm(*row)")))


def test_no_file_names_a_machine_or_a_package_host():
    folder = re.compile(r"(?<![\w.}])/(?:home|root|work|Users|mnt)/[\w.]+")
    host = re.compile(r"(?:pypi|pythonhosted|download\.pytorch)\.org|(?:extra-)?index-url|find-links")
    wrong = []
    for path in tracked():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        wrong += [f"{name}: absolute path of one machine: {found}" for found in folder.findall(text)]
        if path != Path(__file__).resolve():
            wrong += [f"{name}: package host: {found}" for found in host.findall(text)]
    assert not wrong, "\n".join(wrong)


def is_replace(function):
    """Return whether a call's function is written `replace` or `dataclasses.replace`."""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return (function.value.id, function.attr) == ("dataclasses", "replace")
    return isinstance(function, ast.Name) and function.id == "replace"


def test_replace_names_fields_that_exist():
    """Keywords of `dataclasses.replace` are not seen by the type checker."""
    trees = {ROOT / file: tree for file, tree in TREES.items()}
    for path in (path for path in tracked() if path.suffix == ".py" and path not in trees):
        if "replace(" in (text := path.read_text(encoding="utf-8")) or "dataclass" in text:
            trees[path] = ast.parse(text)
    known = {
        statement.target.id
        for tree in trees.values()
        for node in nodes(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    used = [
        (f"{path.relative_to(ROOT)}:{node.lineno}", word.arg)
        for path, tree in trees.items()
        for node in nodes(tree)
        if isinstance(node, ast.Call) and is_replace(node.func)
        for word in node.keywords
        if word.arg
    ]
    assert len(used) > 50
    assert [place for place in used if place[1] not in known] == []
