"""URDF and xacro of robots, read back by MuJoCo: links stand where the bodies of the model stand."""

import re
import xml.etree.ElementTree as ET

import mujoco
import numpy as np
import pytest

from dexgrasp.sim.robots import urdf
from dexgrasp.sim.robots.arm import ArmSpec
from dexgrasp.sim.robots.capsules import visible_geoms
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.mount import attach
from dexgrasp.sim.robots.sticks import body_sticks
from tests.helpers import arms, six_motor_hand
from tests.helpers.shown_commands import ROOT

DESCRIPTION = ROOT / "ros2_ws" / "src" / "dexgrasp_description"
NAMES = {"palm": "hand_base", "base": "base_link"}


def read(text):
    """The model that MuJoCo makes of a URDF, with all its links."""
    spec = mujoco.MjSpec.from_string(text)
    spec.compiler.fusestatic = spec.compiler.discardvisual = False
    return spec.compile()


def at(model, positions, prefix=""):
    data = mujoco.MjData(model)
    for name, value in positions.items():
        data.qpos[model.joint(prefix + name).qposadr[0]] = value
    mujoco.mj_kinematics(model, data)
    return data


def model_of(hand, mount):
    if mount == "floating":
        return hand.model
    world = mujoco.MjSpec()
    attach(world, hand, mount)
    return world.compile()


@pytest.fixture
def own_arms(tmp_path):
    """An own arm as URDF and as MJCF, by format."""
    (tmp_path / "own.urdf").write_text(arms.urdf())
    (tmp_path / "own.xml").write_text(arms.mjcf())
    return {"urdf": str(tmp_path / "own.urdf"), "xml": str(tmp_path / "own.xml")}


def hand_of(name, tmp_path):
    """Return a hand: a shipped one with its side, or one with coupled joints."""
    if name == "coupled":
        return HandSpec.load(six_motor_hand.write(tmp_path / "hand"))
    return HandSpec.load(*name.split("-"))


@pytest.mark.parametrize(
    ("name", "mount"),
    [
        *(("allegro-right", "floating"), ("leap-left", "ur5e"), ("coupled", "floating")),
        *(
            pytest.param(name, kind, marks=pytest.mark.slow)
            for name, kind in (("coupled", "urdf"), ("leap-left", "xml"))
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["", "left_"])
def test_links_stand_where_the_bodies_of_the_model_stand(name, mount, prefix, own_arms, tmp_path):
    rng, hand, mount = np.random.default_rng(0), hand_of(name, tmp_path), own_arms.get(mount, mount)
    model, made = model_of(hand, mount), read(urdf.robot_urdf(hand, mount, prefix))
    free = {model.joint(i).name: rng.uniform(*model.jnt_range[i]) for i in range(model.njnt)}
    wanted, found = at(model, free), at(made, free, prefix)
    assert {made.joint(i).name for i in range(made.njnt)} == {prefix + name for name in free}
    root = "hand_base" if mount == "floating" else "world"
    start = found.body(prefix + root) if mount == "floating" else None
    for i in range(1, model.nbody):
        body = found.body(prefix + NAMES.get(model.body(i).name, model.body(i).name))
        pos, R = body.xpos, body.xmat.reshape(3, 3)
        if start is not None:  # the hand alone hangs on nothing
            turn = start.xmat.reshape(3, 3).T
            pos, R = turn @ (pos - start.xpos), turn @ R
        np.testing.assert_allclose(pos, wanted.xpos[i], atol=2e-6)
        np.testing.assert_allclose(R, wanted.xmat[i].reshape(3, 3), atol=2e-6)
    ranges = {made.joint(i).name: made.jnt_range[i] for i in range(made.njnt)}
    for name in free:
        np.testing.assert_allclose(ranges[prefix + name], model.joint(name).range, atol=1e-6)


def test_frames_masses_limits_and_couplings_are_those_of_the_specifications(tmp_path):
    hand, arm = HandSpec.load(six_motor_hand.write(tmp_path)), ArmSpec.load("ur5e")
    text = urdf.robot_urdf(hand, "ur5e")
    made = read(text)
    data = at(made, {})
    base = data.body("hand_base")
    np.testing.assert_allclose(data.body("tool").xpos, base.xpos, atol=1e-9)
    palm = base.xpos + base.xmat.reshape(3, 3) @ hand.palm_pos_b
    np.testing.assert_allclose(data.body("palm").xpos, palm, atol=1e-6)
    np.testing.assert_allclose(data.body("base").xpos, arm.base_pos_w, atol=1e-9)
    assert made.body_mass.sum() == pytest.approx(model_of(hand, "ur5e").body_mass.sum(), rel=1e-3)
    joints = {joint.get("name"): joint for joint in ET.fromstring(text).iter("joint")}
    for name, effort, speed in zip(arm.joint_names, arm.effort_limit, arm.speed_limit, strict=True):
        limit = joints[name].find("limit")
        assert (float(limit.get("effort")), float(limit.get("velocity"))) == pytest.approx((effort, speed), abs=1e-6)
    assert hand.coupled
    for name, line in hand.coupled.items():
        mimic = joints[name].find("mimic")
        assert mimic.get("joint") == line.follows
        assert float(mimic.get("multiplier")) == pytest.approx(line.ratio, abs=1e-6)
        assert float(mimic.get("offset")) == pytest.approx(line.offset, abs=1e-6)
    assert {name for name, joint in joints.items() if joint.find("mimic") is not None} == set(hand.coupled)


def test_collision_bodies_are_the_capsules_of_the_robot_mask():
    hand = HandSpec.load("allegro")
    sticks = [stick for geom in visible_geoms(hand.model) for stick in body_sticks(hand.model, geom, layers=2)]
    collisions = list(ET.fromstring(urdf.robot_urdf(hand)).iter("collision"))
    spheres = [float(s.get("radius")) for item in collisions for s in item.iter("sphere")]
    lengths = [float(c.get("length")) for item in collisions for c in item.iter("cylinder")]
    long = [np.linalg.norm(end - start) for start, end, _ in sticks if np.linalg.norm(end - start) > 1e-7]
    np.testing.assert_allclose(sorted(lengths), sorted(long), atol=1e-6)
    assert len(spheres) == 2 * len(long) + len(sticks) - len(long)
    assert set(np.round(spheres, 6)) == {round(radius, 6) for *_, radius in sticks}


def test_the_xacro_macro_is_the_hand_with_a_prefix_on_a_link_of_the_user():
    hand = HandSpec.load("leap")
    macro = ET.fromstring(urdf.hand_xacro(hand)).find("{http://www.ros.org/wiki/xacro}macro")
    assert macro.get("name") == "dexgrasp_leap"
    first, *rest = list(macro)
    assert [item.tag for item in first] == ["{http://www.ros.org/wiki/xacro}insert_block", "parent", "child"]
    body = "".join(ET.tostring(item, encoding="unicode") for item in rest).replace("${prefix}", "right_")
    body = re.sub(r' xmlns:\w+="[^"]*"', "", body)
    alone = ET.canonicalize(f"<robot>{body}</robot>", strip_text=True)
    wanted = ET.fromstring(urdf.robot_urdf(hand, prefix="right_"))
    wanted.attrib.clear()
    assert alone == ET.canonicalize(ET.tostring(wanted, encoding="unicode"), strip_text=True)


@pytest.mark.parametrize("hand", ["allegro", "leap"])
def test_the_shipped_files_are_those_that_the_command_writes(hand, tmp_path, capsys):
    for words, name in (([hand], f"{hand}.xacro"), ([hand, "ur5e"], f"{hand}_on_ur5e.urdf")):
        assert urdf.main([*words, f"out={tmp_path / name}"]) == 0
        assert (tmp_path / name).read_text() == (DESCRIPTION / "urdf" / name).read_text(), f"write urdf/{name} again"
    files = (f"{hand}.xacro", f"{hand}_on_ur5e.urdf")
    assert capsys.readouterr().out.splitlines() == [f"written: {tmp_path / file}" for file in files]


def test_a_left_hand_is_mirrored(tmp_path):
    centres = {}
    for side in ("right", "left"):
        assert urdf.main(["allegro", f"side={side}", f"out={tmp_path / 'hand.urdf'}"]) == 0
        origins = ET.parse(tmp_path / "hand.urdf").findall("link/inertial/origin")
        centres[side] = np.array([origin.get("xyz").split() for origin in origins], dtype=float)
    assert len(centres["left"]) > 16 and np.abs(centres["left"][:, 1]).max() > 1e-3
    np.testing.assert_allclose(centres["left"], centres["right"] * [1, -1, 1], atol=1e-6)


@pytest.mark.parametrize(("kind", "twice"), [("joint", "palm_joint"), ("link", "tool_link")])
def test_a_name_that_would_occur_twice_in_the_urdf_is_refused(tmp_path, kind, twice):
    """A frame names its joint after its link, and a link keeps clear of frames: a hand may use both names."""
    file = six_motor_hand.write(tmp_path)
    names = {"little_1": "palm_joint"} if kind == "joint" else {"little_1": "tool", "little_2": "tool_link"}
    for path in tmp_path.iterdir():
        text = path.read_text()
        for old, new in names.items():
            text = text.replace(old, new)
        path.write_text(text)
    with pytest.raises(ValueError, match=f"several {kind}s called '{twice}': rename") as refusal:
        urdf.robot_urdf(HandSpec.load(file))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "usage: "),
        (["allegro"], "usage: "),
        (["allegro", "ur5e", "more", "out=x.urdf"], "usage: "),
        (["shadw", "out=x.urdf"], "shadw"),
        (["allegro", "ur5", "out=x.urdf"], "ur5"),
        (["allegro", "ur5e", "out=x.xacro"], "describes a hand alone; leave out ur5e"),
        (["allegro", "out=taken/x.urdf"], "taken"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(words, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    assert urdf.main(words) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]
