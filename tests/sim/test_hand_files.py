"""Reading hands: someone else's model through its own hand.yaml, and every mistake named."""

from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
import yaml

from dexgrasp import assets
from dexgrasp.sim.robots.arm import ArmSpec
from dexgrasp.sim.robots.hand import HandSpec
from tests.helpers.two_joint_hand import HAND, XML


def test_unknown_hands_and_sides_say_what_is_known():
    known = r"\['ability', 'allegro', 'leap', 'orca', 'shadow'\]"
    with pytest.raises(FileNotFoundError, match=rf"no hand 'alegro': expected one of {known}.*'allegro'\?"):
        HandSpec.load("alegro")
    with pytest.raises(ValueError, match="side must be one of"):
        HandSpec.load("allegro", "upper")
    with pytest.raises(FileNotFoundError, match=rf"no asset 'hands/none/x'; assets/hands/ holds {known}"):
        assets.path("hands/none/x")


def test_a_small_moment_of_inertia_that_does_not_fit_its_mass_is_warned_of(tmp_path, caplog):
    file = _foreign(tmp_path)
    inertial = '<inertial pos="0 0 0" mass=".01" diaginertia=".004 .004 .004"/>'
    text = XML.replace('<body name="f2" pos="0 0 .05">', '<body name="f2" pos="0 0 .05">' + inertial)
    (tmp_path / "elsewhere" / "model.xml").write_text(text)
    assert HandSpec.load(file).to_mjspec().compile().body("f2").inertia.max() == pytest.approx(0.004)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert (
        len(warned) == 1 and "has a moment of inertia of 0.004 kg m^2 and weighs 0.01 kg; expected at most" in warned[0]
    )


def _foreign(folder: Path, **changes: object) -> Path:
    """A hand.yaml that points to someone else's two-joint MJCF, in another folder."""
    (folder / "elsewhere").mkdir(exist_ok=True)
    (folder / "elsewhere" / "model.xml").write_text(XML)
    text = HAND | {"model": "elsewhere/model.xml"} | changes
    file = folder / "hand.yaml"
    file.write_text(yaml.safe_dump(text, sort_keys=False))
    return file


def test_a_foreign_mjcf_loads_through_its_own_hand_yaml(tmp_path):
    hand = HandSpec.load(_foreign(tmp_path))
    assert HandSpec.load(tmp_path).name == "foreign"  # the folder will do as well
    model = hand.to_mjspec().compile()
    np.testing.assert_allclose(model.body("palm").pos, 0)  # the root is renamed and stands at the origin
    np.testing.assert_allclose(model.actuator_forcerange, [[-0.5, 0.5], [-0.25, 0.25]])
    np.testing.assert_allclose(model.jnt_range, [[-0.5, 1.5], [0, 1.5]])  # radians, though the file is in degrees
    assert (model.nu, model.nkey, model.nlight) == (2, 0, 0)
    # palm frame: +x = -z of the base, +z = +x of the base, hence +y = z cross x = x cross -z = +y of the base
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, hand.palm_quat_b)
    np.testing.assert_allclose(matrix.reshape(3, 3).T, [[0, 0, -1], [0, 1, 0], [1, 0, 0]], atol=1e-12)
    points = hand.kinematics().keypoints(torch.zeros(3), torch.tensor([1.0, 0, 0, 0]), torch.tensor([0.0, 0.0]))
    np.testing.assert_allclose(points, [[0, 0.01, 0], [0, 0, 0.1]], atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contact_bodies": {"palmm": 1}}, r"contact_bodies: body 'palmm' is unknown; known: .*Did you mean 'palm'"),
        ({"keypoints": {"tipp": 1}}, r"keypoints: site 'tipp' is unknown; known: \['tip'\]. Did you mean 'tip'"),
        (
            {"joints": {"j1": {"range": [0, 1], "open": 0, "closing": 0}}},
            r"joints: joint 'j2' of .*model\.xml is missing; give it a row",
        ),
        ({"thumb_bodies": ["th"]}, r"thumb_bodies: body 'th' is unknown; known: \['palm', 'f1', 'f2'\]"),
        ({"contact_bodies": {"palm": 0}}, r"contact_bodies: weights must not be negative, nor all zero, got \[0.0\]"),
        ({"actuation": {"kp": 2}}, r"'actuation.effort_limit' has no value; give"),
        ({"colour": "red"}, "unknown key 'colour'. Known keys: name, side"),
        ({"joints": {"j1": {"range": [0, 1], "open": 2, "closing": 0}}}, r"joints\[j1\]: open must lie in range"),
        ({"palm": {"pos_b": [0, 0, 0], "normal_b": [1, 0, 0], "finger_b": [1, 1, 0]}}, "must be at right angles"),
    ],
)
def test_a_wrong_hand_yaml_is_refused_with_the_known_names(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        HandSpec.load(_foreign(tmp_path, **changes))


_MESH = '<asset><mesh name="shell" file="shell.stl"/></asset><worldbody>'
_SECOND = '<joint name="j2" axis="0 1 0"/>'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<worldbody>", _MESH, r"model\.xml: mesh 'shell' of the hand 'foreign': no file .*elsewhere/shell\.stl"),
        ('mass=".3"', 'mass="3e5"', r"body 'palm' of the hand 'foreign' weighs 3e\+05 kg.*at most 5 kg each and 15 kg"),
        ('mass=".3"', 'mass="-3"', r"model\.xml: the hand 'foreign' cannot be simulated: .*negative"),
        (
            '<body name="f2" pos="0 0 .05">',
            '<body name="f2" pos="0 0 .05"><inertial pos="0 0 0" mass=".1" diaginertia=".1 .1 .1"/>',
            r"body 'f2' .*'foreign' has a moment of inertia of 0\.1 kg m\^2 and weighs 0\.1 kg; .*at most 0\.025",
        ),
        (
            "<actuator>",
            '<equality><joint name="c" joint1="j2" joint2="j1"/></equality><actuator>',
            r"hand\.yaml: joints\[j2\] states open, but 'j2' follows 'j1' and has no motor: remove open, or",
        ),
        (
            "<actuator>",
            '<tendon><fixed name="t" stiffness="1"><joint joint="j1" coef="1"/><joint joint="j2" coef="1"/></fixed>'
            "</tendon><actuator>",
            r"model\.xml: tendon 't' moves joint 'j2', which has no actuator, by a spring or a limit, with slack; ",
        ),
        ("<actuator>", '<actuator><motor name="m2" joint="j1"/>', r"joint 'j1' has 2 actuators; expected one at most"),
        (
            "<actuator>",
            '<actuator><motor name="m2" site="tip"/>',
            r"actuator 'm2' drives 'tip', which is no joint of hand",
        ),
        (
            _SECOND,
            _SECOND.replace("axis", 'type="slide" axis'),
            r"model\.xml: body 'f2' has 'j2', a slide joint; each moving body needs exactly one hinge",
        ),
    ],
)
def test_a_wrong_mjcf_is_refused_with_the_file_and_the_part(tmp_path, old, new, message):
    file = _foreign(tmp_path)
    (tmp_path / "elsewhere" / "model.xml").write_text(XML.replace(old, new, 1))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        HandSpec.load(file)


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "a/b", "..", "", "-x", "a\nb"])
def test_a_name_that_leads_to_another_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="name must be 1 to 255 letters, digits"):
        HandSpec.load(_foreign(tmp_path, name=name))
    with pytest.raises(FileNotFoundError, match=r"mount .* is unknown; expected one of"):
        ArmSpec.load(name)


@pytest.mark.parametrize("part", ["hand.yaml", "elsewhere/model.xml", "elsewhere/shell.stl"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "a Git LFS pointer"),
        (b"\x1f\x8b\x08\0", "compressed with gzip"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"", "it is empty"),
    ],
)
def test_files_of_a_hand_that_are_something_else_are_recognised(tmp_path, part, content, said):
    file = _foreign(tmp_path)
    (tmp_path / "elsewhere" / "model.xml").write_text(XML.replace("<worldbody>", _MESH))
    (tmp_path / part).write_bytes(content)
    with pytest.raises(ValueError, match=f"{Path(part).name}: it.*{said}|{Path(part).name}: {said}"):
        HandSpec.load(file)
