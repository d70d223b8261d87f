"""Numbers of robot models, MJCF or URDF: every one is finite, except limits, wherever it stands."""

import xml.etree.ElementTree as ElementTree

import pytest

from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.models.model_reader import read_model
from tests.helpers.forearm_hand import HAND, UNCOUPLED, write_hand
from tests.helpers.two_joint_hand import XML

URDF = """<robot name="h">
<link name="base"><inertial><origin xyz="0 0 0" rpy="0 0 0"/><mass value="0.3"/>
<inertia ixx="1e-4" iyy="1e-4" izz="1e-4" ixy="0" ixz="0" iyz="0"/></inertial>
<collision><geometry><box size="0.04 0.04 0.04"/></geometry></collision></link>
<link name="f1"><inertial><mass value="0.1"/><inertia ixx="1e-5" iyy="1e-5" izz="1e-5" ixy="0" ixz="0" iyz="0"/>
</inertial><collision><origin xyz="0 0 0.02"/><geometry><sphere radius="0.01"/></geometry></collision></link>
<joint name="j1" type="revolute"><parent link="base"/><child link="f1"/><origin xyz="0 0 0.02" rpy="0 0 0"/>
<axis xyz="0 1 0"/><limit lower="-1" upper="1" effort="1" velocity="5"/></joint></robot>"""
UNSTATED = '<geom mass=".1" density="1" friction="1 1 1" solref=".02 1" solimp=".9 .95 .001 .5 2" margin="0" gap="0"/>'
"""Values that MuJoCo replaces by its own, or simulates with, where they are NaN."""
MJCF = XML.replace("<worldbody>", f"<default>{UNSTATED}</default><worldbody>").replace('size=".01"', 'size=".01 0"')


def _is_number(text):
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        return []


def _damaged(text, value):
    """Yield the model with its first or last number of each attribute replaced, with tag and key."""
    for at, element in enumerate(ElementTree.fromstring(text).iter()):
        for key, old in element.attrib.items():
            if _is_number(old):
                root = ElementTree.fromstring(text)
                words = old.split()
                words[0 if at % 2 else -1] = value
                list(root.iter())[at].set(key, " ".join(words))
                yield element.tag, key, ElementTree.tostring(root, encoding="unicode")


@pytest.mark.parametrize("kind", ["xml", "mjcf", "urdf"])
@pytest.mark.parametrize("value", ["NaN", "-inf", "1e400"])
def test_a_number_that_is_not_finite_is_refused_by_file_element_and_key(tmp_path, kind, value):
    file, tried = tmp_path / f"model.{kind}", 0
    for tag, key, text in _damaged(URDF if kind == "urdf" else MJCF, value):
        file.write_text(text)
        if "nan" not in value.lower() and (tag == "limit" or key == "range"):
            continue
        tried += 1
        with pytest.raises(ValueError, match=rf"model\.{kind}: not a valid .*<{tag}> .*has {key}='.*finite") as caught:
            read_model(file, "the hand")
        assert "\n" not in str(caught.value)
    assert tried >= 20


def test_a_number_of_an_included_file_is_refused(tmp_path):
    (tmp_path / "parts.xml").write_text('<mujocoinclude><default><geom friction="nan 0 0"/></default></mujocoinclude>')
    for ending in ("xml", "mjcf"):
        (tmp_path / f"m.{ending}").write_text(XML.replace("<worldbody>", '<include file="parts.xml"/><worldbody>'))
        with pytest.raises(ValueError, match=rf"m\.{ending}: .*<geom> has friction='nan 0 0'"):
            read_model(tmp_path / f"m.{ending}", "the hand")


def test_limits_may_be_infinite_and_names_may_read_like_numbers(tmp_path):
    (tmp_path / "m.urdf").write_text(URDF.replace('effort="1" velocity="5"', 'effort="inf" velocity="inf"'))
    assert read_model(tmp_path / "m.urdf", "the hand").joint("j1").range == pytest.approx([-1, 1])
    (tmp_path / "m.xml").write_text(XML.replace('"j1"', '"nan"').replace('"f2"', '"inf"'))
    assert read_model(tmp_path / "m.xml", "the hand").body("inf").joints[0].name == "j2"


def test_a_negative_mass_of_a_link_is_refused_and_none_is_not(tmp_path):
    for mass in ("-0.3", "-5"):
        (tmp_path / "m.urdf").write_text(URDF.replace('"0.3"', f'"{mass}"'))
        with pytest.raises(ValueError, match=rf"m\.urdf: not a valid URDF: link 'base' weighs {mass} kg; expected 0"):
            read_model(tmp_path / "m.urdf", "the hand")
    (tmp_path / "m.urdf").write_text(URDF.replace('"0.3"', '"0"'))
    assert read_model(tmp_path / "m.urdf", "the hand").body("base").mass == 0


@pytest.mark.parametrize("qpos", ["0", "1 2 3 4 5 6 7 8 9", ""])
def test_a_keyframe_that_does_not_fit_the_joints_of_its_model_is_no_matter(tmp_path, qpos):
    assert UNCOUPLED.count('<key name="home" qpos="0 0 0 0 0 0 0"/>') == 1
    hand = HandSpec.load(write_hand(tmp_path, UNCOUPLED.replace('qpos="0 0 0 0 0 0 0"', f'qpos="{qpos}"')))
    assert set(hand.joint_names) == set(HAND["joints"])
