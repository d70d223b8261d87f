"""`dexgrasp arms check`: reach against the length of an arm, findings, refusals in one line."""

import re
from pathlib import Path

import numpy as np
import pytest

from dexgrasp.policies.cli.main import main
from dexgrasp.sim.robots.arms.arm_values import workspace_poses
from tests.helpers import arms

ARM_M = sum(row[0] for name, row in arms.JOINTS.items() if name not in ("a1", "a2")) + arms.TIP_M
"""Length of the helper's arm from its shoulder to its tip [m], stretched."""
SHOULDER_M = arms.JOINTS["a1"][0] + arms.JOINTS["a2"][0]
"""Height of the shoulder [m]."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.urdf").write_text(arms.urdf())
    return tmp_path


def placed(folder: Path, x_m: float) -> str:
    """Write an arm.yaml with the base at x, and the joints at home; return its path."""
    joints = "".join(f"  {name}: {{home: 0.1}}\n" for name in arms.JOINTS)
    (folder / "arm.yaml").write_text(
        f"name: own\nmodel: own.urdf\nplace: {{pos_w: [{x_m}, 0, 0], yaw_rad: 0}}\njoints:\n{joints}"
    )
    return str(folder / "arm.yaml")


def reached(text: str, of: int) -> int:
    """Return the number of poses that the command reports."""
    found = re.search(rf"reach +(\d+) of {of} palm poses over the table", text)
    assert found is not None, text
    return int(found[1])


def test_poses_beyond_the_stretched_arm_are_not_reached(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """The base moved away until the flange poses of a part of the workspace lie beyond the arm's length."""
    pos_w, _ = workspace_poses(8)
    far = np.sort(np.linalg.norm(pos_w.numpy() - [-1.2, 0.0, SHOULDER_M], axis=1))
    palm_m = 0.14  # from flange to palm, at most
    beyond = int((far > ARM_M + palm_m).sum())
    assert 2 <= beyond < 8
    status = main(["arms", "check", placed(folder, -1.2), "poses=8"])
    text = capsys.readouterr().out
    count = reached(text, 8)
    assert count <= 8 - beyond
    assert (status == 1) == (count < 4) == ("wrong   reach" in text)
    assert main(["arms", "check", placed(folder, -3.0), "poses=1"]) == 1
    assert reached(capsys.readouterr().out, 1) == 0


def test_an_arm_beside_the_workspace_reaches_it(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["arms", "check", f"arm={folder / 'own.urdf'}", "poses=5"]) == 0
    text = capsys.readouterr().out
    assert reached(text, 5) >= 4
    assert "7 joints from 'stand' to 'tool0'" in text and "ok      limits  of all joints" in text
    assert "275 mm behind the palm of allegro, kept 55 mm over the table" in text  # 0.08 + 0.1 + 0.095; 0.04 + 0.015


def test_joints_without_limits_are_odd_until_an_arm_yaml_states_them(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    text = (folder / "own.urdf").read_text()
    (folder / "own.urdf").write_text(text.replace('"revolute"', '"continuous"', 1))
    main(["arms", "check", str(folder / "own.urdf"), "poses=1"])
    assert (
        "odd     limits  two turns for a1, or none: where cables turn less, state `range` in an arm.yaml"
        in capsys.readouterr().out
    )
    file = Path(placed(folder, -0.6))
    file.write_text(file.read_text().replace("a1: {home: 0.1}", "a1: {home: 0.1, range: [-3, 3]}"))
    main(["arms", "check", str(file), "poses=1"])
    assert "ok      limits  of all joints" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "behind", "message"),
    [
        (("", ""), ":tip=tol0", "tip 'tol0' is no site or body; known: .*Did you mean 'tool0'"),
        (("", ""), ":base=stnd", "base 'stnd' is no body; known: .*Did you mean 'stand'"),
        (('type="revolute"', 'type="prismatic"'), "", "slides; expected hinges from base to tip"),
        (('<cylinder radius="0.04" length="0.1"/>', '<mesh filename="shell.stl"/>'), "", r"no file .*shell\.stl"),
        (("<robot", "<robt"), "", "own.urdf: "),
    ],
)
def test_bad_arms_are_refused_in_one_line(
    change: tuple[str, str], behind: str, message: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    file = folder / "own.urdf"
    file.write_text(file.read_text().replace(*change) if change[0] else file.read_text())
    assert main(["arms", "check", f"{file}{behind}", "poses=1"]) != 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dexgrasp arms check: error")]
    assert len(lines) == 1 and re.search(message, lines[0])
