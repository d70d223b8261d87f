"""Change the code in one place at a time and see whether the tests of the module notice.

    python tests/mutation/run.py [MODULE...] [sample=60] [seed=0]

MODULE: a path of TESTS (default: all). sample: largest number of mutants of a module that are run, drawn with `seed`;
0: all. Exit status 1: fewer than 90 % of a module's mutants are killed, not counting those of equivalent.yaml, or one
of these is killed.

The files on the disk stay as they are: a process with all libraries loaded is copied for each mutant (fork), imports
the package with the changed module, and runs the tests that hold this module until one fails. mutmut's own runner is
not used because it tells mutants apart by the path of their file, which here is a link (dexgrasp/sim -> ../sim). What
tests start as a process of its own runs without the mutant.
"""

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "ros2_ws/src/dexgrasp_ros")]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

import yaml  # noqa: E402

from tests.mutation.mutants import Mutant, make_mutants  # noqa: E402

TESTS = {
    "policies/deploy/rate_limiter.py": ["tests/policies/test_rate_limiter.py", "tests/policies/test_safety_gate.py"],
    "policies/deploy/safety_gate.py": [
        "tests/policies/test_safety_gate_values.py",
        "tests/policies/test_safety_gate.py",
    ],
    "sim/task/rewards.py": ["tests/sim/test_rewards.py"],
    "sim/task/outcomes.py": ["tests/sim/test_outcomes.py"],
    "sim/randomization/episode_draws.py": ["tests/sim/test_episode_draws.py"],
    "sim/randomization/trial_rng.py": ["tests/sim/test_trial_rng.py"],
    "sim/sensors/proprioception.py": ["tests/sim/test_proprioception.py"],
    "perception/transforms.py": ["tests/perception/test_transforms.py"],
    "perception/calibration/hand_eye.py": ["tests/perception/test_hand_eye.py"],
    "perception/calibration/linear_solution.py": ["tests/perception/test_hand_eye.py"],
    "perception/calibration/conventions.py": ["tests/perception/test_conventions.py"],
    "perception/cameras/numbers.py": ["tests/perception/test_camera_numbers.py"],
    "policies/evaluation/trial_store.py": ["tests/policies/test_trial_store.py", "tests/policies/test_block_log.py"],
    "policies/run_directory.py": [
        "tests/policies/test_run_directory.py",
        "tests/policies/test_run_facts.py",
        "tests/policies/test_input_identity.py",
    ],
    "policies/input_identity.py": ["tests/policies/test_input_hashes.py", "tests/policies/test_input_identity.py"],
    "dexgrasp/results.py": ["tests/test_api.py"],
    "perception/calibration/contradictions.py": [
        "tests/perception/test_contradictions.py",
        "tests/perception/test_calibration.py",
    ],
    "perception/calibration/mixed_fit.py": [
        "tests/perception/test_mixed_fit.py",
        "tests/perception/test_hand_eye.py",
        "tests/perception/test_calibration.py",
    ],
    "perception/calibration/charuco.py": [
        "tests/perception/test_charuco.py",
        "tests/perception/test_calibration.py",
    ],
    "dexgrasp/utils/output.py": ["tests/policies/test_run_directory.py", "tests/policies/test_output.py"],
    "dexgrasp/utils/readers.py": [
        "tests/utils/test_readers.py",
        "tests/utils/test_foreign_kinds.py",
        "tests/utils/test_yaml_numbers.py",
        "tests/utils/test_regular_files.py",
    ],
    "dexgrasp/utils/number_arrays.py": [
        "tests/utils/test_number_arrays.py",
        "tests/policies/test_safety_gate_values.py",
    ],
    "dexgrasp/utils/files.py": ["tests/utils/test_files.py", "tests/utils/test_utils.py"],
}
"""Modules and the tests that hold them, the fastest first."""
NEEDS = {"ParquetStore": "pyarrow", "COLUMNS": "pyarrow"}
"""Classes and constants whose mutants are left out where a library is not installed: their tests are skipped."""
LIBRARIES = [
    "torch",
    "torch.testing",
    "scipy.stats",
    "scipy.optimize",
    "scipy.spatial.transform",
    "mujoco",
    "mink",
    "hypothesis",
    "hydra",
    "trimesh",
    "stable_baselines3",
    "matplotlib",
    "sympy",
    "PIL",
    "jinja2",
    "imageio_ffmpeg",
    "pytest",
    "cv2",
]
GOAL = 0.9
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"


class Changed(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Gives a module the source code of a mutant when it is imported."""

    def __init__(self, module: str, mutant: Mutant) -> None:
        super().__init__(module_name(module), str(ROOT / "dexgrasp" / module.removeprefix("dexgrasp/")))
        self._code = mutant.code

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )

    def get_code(self, fullname: str) -> object:
        return compile(self._code, self.path, "exec", dont_inherit=True)


def module_name(module: str) -> str:
    """Return dexgrasp.sim.scene for sim/scene.py."""
    return "dexgrasp." + module.removeprefix("dexgrasp/").removesuffix(".py").replace("/", ".")


def run_tests(module: str, mutant: Mutant | None, limit_s: float, log: Path) -> str:
    """Return what became of a mutant, or of the code as it is, in a copy of this process."""
    child = os.fork()
    if child == 0:
        os.setsid()
        with log.open("w") as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        status = 99
        try:
            import hypothesis
            import pytest

            unshrunk = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.shrink]
            hypothesis.settings.register_profile("mutation", phases=unshrunk, derandomize=True, database=None)
            hypothesis.settings.load_profile("mutation")
            if mutant:
                sys.meta_path.insert(0, Changed(module, mutant))
            tests = [str(ROOT / path) for path in TESTS[module]]
            words = [*tests, "-x", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", "--tb=line", "--assert=plain"]
            sys.dont_write_bytecode = True
            from tests.helpers.write_guard import only_writes_below  # after the mutant: it imports code of ours

            with only_writes_below(tempfile.gettempdir()):  # a mutant may lack the check that protects other files
                status = pytest.main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(status))
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return SURVIVED if os.waitstatus_to_exitcode(status) == 0 else KILLED
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TIMED_OUT


def examine(module: str, sample: int, seed: int, log: Path) -> bool:
    """Run the mutants of a module and print what became of them; return whether the goal is reached."""
    from scipy.stats import binomtest

    begin_s = time.monotonic()
    if run_tests(module, None, 600.0, log) != SURVIVED:
        print(f"{module}: its tests fail without a mutant:\n{log.read_text()[-2000:]}", flush=True)
        return False
    absent = [name for name, library in NEEDS.items() if importlib.util.find_spec(library) is None]
    limit_s = 3 * (time.monotonic() - begin_s) + 10
    mutants, total = make_mutants(ROOT / module, sample, seed, absent)
    listed = (yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) or {}).get(module, {})
    fates = {mutant.name: run_tests(module, mutant, limit_s, log) for mutant in mutants}
    survived = [name for name, fate in fates.items() if fate == SURVIVED]
    wrong = [name for name in fates if name in listed and name not in survived]
    open_ones = [name for name in survived if name not in listed]
    counted = len(fates) - len(survived) + len(open_ones)
    killed = counted - len(open_ones)
    low, high = binomtest(killed, max(counted, 1)).proportion_ci(method="wilson")
    for name in open_ones:
        print(f"  survived: {name}")
    for name in wrong:
        print(f"  listed as equivalent, but killed: {name}")
    print(
        f"{module}: {total} mutants, {len(fates)} run, {killed} killed "
        f"({list(fates.values()).count(TIMED_OUT)} by the time limit of {limit_s:.0f} s), "
        f"{len(survived) - len(open_ones)} equivalent, {len(open_ones)} survived: {killed / max(counted, 1):.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}), {time.monotonic() - begin_s:.0f} s",
        flush=True,
    )
    return killed >= GOAL * counted and not wrong


def main(arguments: Sequence[str]) -> int:
    """Examine the asked modules; return the exit status."""
    options = {"sample": 60, "seed": 0} | {k: int(v) for k, v in (a.split("=") for a in arguments if "=" in a)}
    modules = [argument for argument in arguments if "=" not in argument] or list(TESTS)
    if unknown := [module for module in modules if module not in TESTS]:
        print(f"no tests are named for {', '.join(unknown)}; known: {', '.join(TESTS)}", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # a collection in a copy would touch, and so copy, all memory
    with tempfile.TemporaryDirectory() as folder:
        good = [examine(module, options["sample"], options["seed"], Path(folder) / "log") for module in modules]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
