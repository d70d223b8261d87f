"""Set-up from a clone: what each target of the Makefile installs, and which package Python then finds."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def planned(folder, *targets):
    """Return the commands that make would run in a folder."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "ARGS"}
    done = subprocess.run(["make", "-n", *targets], cwd=folder, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clone(tmp_path):
    """A clone named as the package is, without its documents and tests."""
    folder = tmp_path / "dexgrasp"
    names = (".git", ".venv", "__pycache__", "*.egg-info", "runs", "build", "docs", "tests")
    left_out = shutil.ignore_patterns(*names)
    shutil.copytree(ROOT, folder, symlinks=True, ignore=left_out)
    return folder


def test_the_demo_installs_what_the_commands_need_and_the_tests_add_the_rest(clone):
    for target in ("demo", "train"):
        plan = planned(clone, target)
        assert "--editable '.[export,viz]'" in plan and "dev" not in plan.replace("/dev/", "")
    for target in ("test", "check", "docs", "setup", "build-ros"):
        plan = planned(clone, target)
        assert plan.index("--editable '.[export,viz]'") < plan.index("--editable '.[dev,ros]'")
    (clone / ".venv").mkdir()
    (clone / ".venv/.base").touch()
    assert "pip install" not in planned(clone, "demo")
    assert planned(clone, "test").count("pip install") == 1
    (clone / ".venv/.ready").touch()
    assert "pip install" not in planned(clone, "demo", "test", "setup")
    assert planned(clone, "setup").count("ready: ") == 1  # also where nothing is left to install
    os.utime(clone / "pyproject.toml")  # another extra: both steps again
    assert planned(clone, "test").count("pip install") == 2


def test_an_editable_installation_is_found_from_the_folder_that_holds_the_clone(clone, tmp_path):
    build = "import setuptools.build_meta as backend, sys; print(backend.build_editable(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        wheel.extractall(packages)
    find = "import importlib.util as u; print(u.find_spec('dexgrasp').origin, u.find_spec('sim'))"
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for folder in (tmp_path, tmp_path / "venv"):
        line = [tmp_path / "venv/bin/python", "-c", find]
        found = subprocess.run(line, cwd=folder, env=plain, capture_output=True, text=True, check=True).stdout.split()
        assert found == [str(clone / "src/dexgrasp/__init__.py"), "None"]  # our folders are no packages of their own
