"""The documentation builds strictly: a broken link, a missing anchor or an undocumented public name stops it."""

import os
import shutil
import subprocess
import sys

import pytest

from dexgrasp.policies.cli.commands import COMMANDS
from dexgrasp.policies.cli.option_docs import keys
from tests.helpers.shown_commands import ROOT

pytestmark = pytest.mark.slow
COPIED = ("docs", "examples", "dexgrasp", "sim", "perception", "policies", "configs", "assets/__init__.py")
FILES = ("mkdocs.yml", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


@pytest.fixture
def copy(tmp_path):
    """A copy of what the build reads, to be broken."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    for name in (*COPIED[:-1], "ros2_ws"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "assets").mkdir()
    for name in (COPIED[-1], *FILES):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def build(folder):
    """Build the site of `folder`; return the exit code and the output."""
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build"], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_the_site_builds_and_holds_every_command_and_key(copy):
    (copy / "docs/__pycache__").mkdir(exist_ok=True)  # as Python leaves it beside the hooks
    (copy / "docs/__pycache__/hooks.cpython-311.pyc").write_bytes(b"")
    code, told = build(copy)
    assert code == 0, told
    site = copy / "build/site"
    commands, config = ((site / f"reference/{name}.html").read_text() for name in ("cli", "config"))
    for command in COMMANDS:
        assert f"dexgrasp {command.words}" in commands
        for key in keys(command.schema, command.config):
            assert f"<code>{key.name}</code>" in (config if "." in key.name else commands), key.name
    assert not [path for path in site.rglob("*") if "__pycache__" in path.parts or path.name.startswith("hooks")]
    assert (site / "examples/upright_grasp.py").read_text() == (ROOT / "examples/upright_grasp.py").read_text()
    assert 'href="../examples/upright_grasp.py"' in (site / "tutorials/own_reward_and_task.html").read_text()
    pages = [path.read_text() for path in site.rglob("*.html")]
    assert "class RewardContext" not in "".join(pages)  # signatures, not sources
    assert not [page for page in pages if "fonts.googleapis" in page or "cdn." in page]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("docs/index.md", "install.md", "instal.md", "instal.md"),
        ("docs/howto/isaac.md", "#closing-at-a-grip", "#closing-at-grip", "closing-at-grip"),
        ("docs/tutorials/own_hand.md", "hand.yaml\"\n", "hands.yaml\"\n", "hands.yaml"),
        ("policies/deploy/safety_gate.py", '"""Limits of the commands to a hand and to the arm that carries it."""', "",
         "SafetyCfg"),
    ],
    ids=["link", "anchor", "included file", "docstring"],
)  # fmt: skip
def test_a_fault_stops_the_build_and_is_named(copy, file, old, new, message):
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    code, told = build(copy)
    assert code != 0
    assert message in told
