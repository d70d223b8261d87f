"""Draft, checks and search of hand descriptions, against the shipped ones and hand-worked values."""

import json
import re
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dexgrasp import assets
from dexgrasp.configs import load
from dexgrasp.configs.loader import read_plain
from dexgrasp.policies.hands.commands import CheckHandCfg, NewHandCfg, check, new
from dexgrasp.policies.hands.tuning import TuneHandCfg, tune
from dexgrasp.sim.hand_setup.checks import check_hand
from dexgrasp.sim.hand_setup.draft import draft_hand
from dexgrasp.sim.hand_setup.hand_probe import HandProbe, half_thickness
from dexgrasp.sim.hand_setup.hand_yaml import hand_yaml_text, with_styles
from dexgrasp.sim.hand_setup.opposition import opposed_styles
from dexgrasp.sim.hand_setup.style_space import StyleSpace
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.hand_file import STYLES, HandFile, read_hand_file
from dexgrasp.sim.robots.models.model_sources import find_hand
from tests.helpers import six_motor_hand

THREE_FINGERS = Path(__file__).parents[2] / "examples/three_finger_hand"
HANDS = {"allegro": assets.path("hands/allegro"), "leap": assets.path("hands/leap"), "three_finger": THREE_FINGERS}


def described(folder: Path) -> HandFile:
    """Return the content of a hand.yaml."""
    return read_hand_file(folder / "hand.yaml")


def edited(tmp_path: Path, folder: Path, **changes: object) -> Path:
    """Write a hand.yaml with other values; return its path."""
    content = read_plain(folder / "hand.yaml") | {"model": str(folder / "hand.xml")} | changes
    file = tmp_path / "hand.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def levels(file: Path) -> dict[str, str]:
    return {finding.what: finding.level for finding in check_hand(HandSpec.load(file))}


@pytest.mark.parametrize("name", HANDS)
def test_draft_finds_palm_frame_thumb_and_bending_of_described_hands(name: str) -> None:
    folder = HANDS[name]
    stated = described(folder)
    draft = draft_hand("hand.xml", folder)
    for key in ("normal_b", "finger_b"):
        found, expected = (np.array(getattr(hand.palm, key)) for hand in (draft, stated))
        assert found @ expected / np.linalg.norm(expected) > np.cos(np.deg2rad(2.0))
    assert draft.side == "right"
    assert draft.root == stated.root
    assert set(stated.thumb_bodies) <= set(draft.thumb_bodies)
    assert set(stated.contact_bodies) <= set(draft.contact_bodies)
    assert next(iter(draft.contact_bodies)) == next(iter(stated.contact_bodies))
    assert np.linalg.norm(np.subtract(draft.palm.pos_b, stated.palm.pos_b)) < 0.03
    thumb = {joint for joint in stated.joints if joint.startswith("th")}
    for joint in set(stated.joints) - thumb:
        power = stated.joints[joint].closing
        expected = np.sign(power[0] if isinstance(power, tuple) else power)
        assert np.sign(draft.joints[joint].closing) == expected, joint


@pytest.mark.parametrize(("name", "finger_m"), [("allegro", 0.012), ("leap", 0.011)])
def test_draft_measures_fingers_and_scales_the_heights_of_objects_with_them(name: str, finger_m: float) -> None:
    grasp = draft_hand("hand.xml", HANDS[name]).grasp
    assert grasp.finger_m == finger_m  # radius of the fingertips
    assert grasp.height_m == pytest.approx((0.06, 0.03), rel=0.08)


def test_draft_finds_the_side_of_a_mirrored_hand(tmp_path: Path) -> None:
    spec = HandSpec.load("allegro", side="left").to_mjspec()
    spec.compile()
    (tmp_path / "left.xml").write_text(spec.to_xml(), encoding="utf-8")
    draft = draft_hand("left.xml", tmp_path)
    assert draft.side == "left"
    assert draft.palm.normal_b == (1.0, 0.0, 0.0)


TWO_CHAINS = """
<mujoco>
  <worldbody>
    <body name="base"><geom size="0.01"/>
      <body name="a" pos="0 0 0.05"><joint name="ja" axis="0 1 0"/><geom size="0.01"/></body>
      {second}
    </body>
  </worldbody>
</mujoco>
"""


SECOND = '<body name="b"><joint name="jb" axis="0 1 0"/><geom size="0.01"/></body>'


@pytest.mark.parametrize(
    ("second", "options", "message"),
    [
        ("", {}, "no palm found"),
        ("", {"root": "base"}, "carries 1 finger"),
        (SECOND, {"root": "hand"}, "root: body 'hand' is unknown"),
        (SECOND, {"thumb": "base"}, "no body of a finger"),
    ],
)
def test_draft_refuses_models_without_palm_or_fingers(
    second: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "hand.xml").write_text(TWO_CHAINS.format(second=second), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        draft_hand("hand.xml", tmp_path, **options)


@pytest.mark.parametrize("name", HANDS)
def test_text_of_a_hand_is_read_back_unchanged(name: str, tmp_path: Path) -> None:
    stated = described(HANDS[name])
    file = tmp_path / "hand.yaml"
    file.write_text(hand_yaml_text(stated), encoding="utf-8")
    assert read_hand_file(file) == stated


def test_styles_are_written_as_pairs_and_read_back(tmp_path: Path) -> None:
    hand = HandSpec.load("allegro")
    styles = {name: replace(getattr(hand, name), gap_m=torch.tensor(0.0123)) for name in STYLES}
    (tmp_path / "hand.yaml").write_text(hand_yaml_text(with_styles(find_hand("allegro"), hand, styles, tmp_path)))
    again = HandSpec.load(tmp_path)
    assert again.power.gap_m == again.pinch.gap_m == pytest.approx(0.0123)
    assert torch.equal(again.pinch.closing, hand.pinch.closing)
    assert again.xml_path.resolve() == hand.xml_path.resolve()


@pytest.mark.parametrize("name", HANDS)
def test_nothing_is_wrong_or_odd_about_described_hands(name: str) -> None:
    assert {finding.level for finding in check_hand(HandSpec.load(HANDS[name]))} == {"ok"}


def changed(**rows: dict[str, object]) -> dict[str, object]:
    """Return sections of the example's hand.yaml with other values."""
    content = read_plain(THREE_FINGERS / "hand.yaml")
    return {section: content[section] | values for section, values in rows.items()}


def closing_times(factor: float, part: str = "") -> dict[str, object]:
    """Return the joints of the example, closing of those of a part multiplied."""
    joints = read_plain(THREE_FINGERS / "hand.yaml")["joints"]
    return {
        name: row | {"closing": row["closing"] * factor} if name.startswith(part) else row
        for name, row in joints.items()
    }


@pytest.mark.parametrize(
    ("changes", "wrong", "advice"),
    [
        (changed(palm={"normal_b": [-1, 0, 0]}), "normal_b", "turn palm.normal_b"),
        (changed(palm={"finger_b": [0, 0, -1]}), "finger_b", "turn palm.finger_b"),
        ({"joints": closing_times(-1.0)}, "closing", "change the signs of closing"),
        ({"joints": closing_times(0.0, "thumb")}, "closing", "the thumb stands still"),
        (changed(actuation={"kp": 0.03}), "press", "raise kp"),
        (changed(grasp={"offset_z_m": 0.1}), "offset", "set offset_y_m -?0.000, offset_z_m -?0.000"),
        (changed(grasp={"offset_y_m": -0.1}), "offset", "set offset_y_m -?0.000, offset_z_m -?0.000"),
        (changed(grasp={"gap_m": 0.16}), "gap_m", "set gap_m below 0.07"),
        (
            changed(grasp={"floor_m": 0.01}),
            "floor_m",
            "left_end 8.8 cm below the table's surface, .* raise floor_m to 0.098",
        ),
        (changed(actuation={"speed_limit": 0.1}), "closing time", "check speed_limit"),
        (changed(actuation={"effort_limit": 0.02}), "press", "effort_limit"),
    ],
)
def test_checks_name_what_is_broken_and_what_to_do(
    changes: dict[str, object], wrong: str, advice: str, tmp_path: Path
) -> None:
    found = {finding.what: finding for finding in check_hand(HandSpec.load(edited(tmp_path, THREE_FINGERS, **changes)))}
    assert found[f"power: {wrong}"].level == "wrong"
    assert re.search(advice, found[f"power: {wrong}"].text)
    if wrong not in ("finger_b", "closing time", "floor_m"):  # the pose in the air is as good without them
        assert found["power: grip"].level == "wrong"


def found_in(file: Path | str) -> dict[str, tuple[str, str]]:
    """Return level and text of the findings about a hand."""
    return {finding.what: (finding.level, finding.text) for finding in check_hand(HandSpec.load(file))}


@pytest.mark.parametrize(("finger_m", "level"), [(0.0129, "ok"), (0.0131, "odd"), (0.0071, "ok"), (0.0069, "odd")])
def test_finger_m_is_compared_with_the_geoms_at_the_fingertips(finger_m: float, level: str, tmp_path: Path) -> None:
    """The fingers of the example end in capsules of 10 mm radius; 30 % of it are 3 mm."""
    found = found_in(edited(tmp_path, THREE_FINGERS, **changed(grasp={"finger_m": finger_m})))["finger_m"]
    assert found[0] == level and "are 10.0 mm" in found[1]
    assert found[1].endswith("; set grasp.finger_m 0.0100") == (level == "odd")


LINK = """
<mujoco><worldbody>
  <body name="link">
    <geom type="box" size="0.005 0.02 0.008"/>
    <geom type="capsule" fromto="0 0 0.03 0.02 0 0.03" size="0.006"/>
    <geom type="sphere" size="0.05" pos="0 0 0.06" contype="0" conaffinity="0"/>
  </body>
  <body name="shell"><geom type="sphere" size="0.05" contype="0" conaffinity="0"/></body>
</worldbody></mujoco>
"""


@pytest.mark.parametrize(
    ("body", "point_b", "half"),
    [("link", (0.02, 0, 0.036), 0.006), ("link", (0, 0, 0.009), 0.008), ("shell", (0, 0, 0), None)],
)
def test_half_thickness_is_that_of_the_nearest_colliding_geom(
    body: str, point_b: tuple[float, float, float], half: float | None
) -> None:
    model = mujoco.MjModel.from_xml_string(LINK)
    assert half_thickness(model, model.body(body).id, np.array(point_b)) == pytest.approx(half)


def test_widths_are_the_distances_of_thumb_and_fingertips_open_and_closest() -> None:
    """The example opens to 150 mm and closes to 25 mm, as its aperture and opposition say: 95 of 100 mm."""
    found = found_in(THREE_FINGERS)
    assert found["power: widths"][1] == "25 to 150 mm between thumb and fingertips, 95 % of objects of 20 to 120 mm"
    assert found["power: aperture"][1].startswith("15.0 cm") and "as near as 2.5 cm" in found["power: opposition"][1]


def test_fingers_across_the_hand_base_are_odd(tmp_path: Path) -> None:
    for turned, level in ((44, "ok"), (46, "odd")):
        axis = [0.0, float(np.sin(np.deg2rad(turned))), float(np.cos(np.deg2rad(turned)))]
        found = found_in(edited(tmp_path, THREE_FINGERS, **changed(palm={"finger_b": axis})))["wrist"]
        assert found[0] == level and f"fingers {turned} deg off z" in found[1]


def test_a_thumb_that_starts_beside_bent_fingers_closes() -> None:
    """Shadow's pinch grasp: they part from 43 mm to more before they come as near as 19 mm."""
    found = found_in("shadow")
    assert found["pinch: closing"][0] == found["pinch: normal_b"][0] == "ok"
    assert found["pinch: widths"] == (
        "odd",
        "19 to 43 mm between thumb and fingertips, 23 % of objects of 20 to 120 mm; open the hand further, "
        "or let thumb and fingers come nearer",
    )


def test_checks_name_fingers_without_keypoints(tmp_path: Path) -> None:
    keypoints = {site: weight for site, weight in described_rows("keypoints").items() if "right" not in site}
    found = {
        finding.what: finding
        for finding in check_hand(HandSpec.load(edited(tmp_path, THREE_FINGERS, keypoints=keypoints)))
    }
    assert found["keypoints"].level == "wrong" and "none on right_proximal" in found["keypoints"].text


def described_rows(section: str) -> dict[str, object]:
    """Return a section of the example's hand.yaml."""
    return dict(read_plain(THREE_FINGERS / "hand.yaml")[section])


def test_pressing_force_is_the_lead_of_the_targets_times_kp_over_the_lever() -> None:
    """The thumb of the example: 3 N m/rad times 0.15 rad times 1.0 and 0.6, its two fingers alike on the other side."""
    hand = HandSpec.load(THREE_FINGERS)
    probe = HandProbe(hand)
    path = probe.closing(hand.power)
    probe.pose(path.joint_pos[path.at_gap(0.05)])
    base, tip = (probe.levers("thumb_end")[hand.joint_names.index(name)] for name in ("thumb_base", "thumb_tip"))
    force = next(finding for finding in check_hand(hand) if finding.what == "power: press")
    assert f"{max(0.45 / base, 0.27 / tip):.1f} N by the thumb" in force.text


def test_tip_force_is_torque_over_lever() -> None:
    """A stretched finger of the example: 1 N m at the tip of links of 55 and 50 mm."""
    hand = HandSpec.load(THREE_FINGERS)
    probe = HandProbe(hand)
    probe.pose(np.zeros(6))
    base, tip = (probe.levers("left_end")[hand.joint_names.index(name)] for name in ("left_base", "left_tip"))
    sites = {site: probe.in_palm({"": site})[0] for site in ("left_joint", "left_middle", "left_end")}
    assert base == pytest.approx(np.linalg.norm((sites["left_end"] - sites["left_joint"])[[0, 2]]), abs=1e-9)
    assert tip == pytest.approx(np.linalg.norm((sites["left_end"] - sites["left_middle"])[[0, 2]]), abs=1e-9)
    force = next(finding for finding in check_hand(hand) if finding.what == "tip force")
    assert f"{1.0 / base:.1f} N" in force.text


def test_opposed_thumb_meets_the_fingers_and_leaves_them_alone() -> None:
    hand = HandSpec.load("allegro")
    apart = replace(
        hand,
        power=replace(
            hand.power,
            open_pose=torch.zeros(16, dtype=torch.float64).clamp(
                torch.tensor(hand.joint_lower), torch.tensor(hand.joint_upper)
            ),
        ),
    )
    found = opposed_styles(apart)["power"]
    fingers = [i for i, joint in enumerate(hand.joint_names) if not joint.startswith("th")]
    assert torch.equal(found.open_pose[fingers], apart.power.open_pose[fingers])
    assert torch.equal(found.closing[fingers], apart.power.closing[fingers])
    result = {finding.what: finding for finding in check_hand(replace(apart, power=found, pinch=hand.pinch))}
    assert result["power: opposition"].level == "ok"
    assert result["power: aperture"].level == "ok"
    probe = HandProbe(hand)
    for share in np.linspace(0, 3, 3000):  # until 5 cm are between thumb and nearest fingertip: the object lies there
        closed = found.open_pose.numpy() + share * found.closing.numpy()
        probe.pose(closed.clip(hand.joint_lower, hand.joint_upper))
        tips = np.array([probe.in_palm({"": f"{finger}_tip"})[0] for finger in ("index", "middle", "ring")])
        (thumb,) = probe.in_palm({"": "thumb_tip"})
        if np.linalg.norm(tips - thumb, axis=1).min() <= 0.05:
            break
    between = (tips.mean(axis=0) + thumb) / 2
    assert (float(found.offset_y_m), float(found.offset_z_m)) == pytest.approx(tuple(between[1:]), abs=2e-3)


def test_vectors_change_groups_of_joints_by_stated_steps() -> None:
    hand = HandSpec.load("allegro")
    space = StyleSpace.of(hand, hand.power)
    assert space.closing_groups == ((1, 5, 9), (2, 6, 10), (3, 7, 11), (12,), (13,), (14,), (15,))
    assert space.size == 7 + 7 + 4
    same = space.style(np.zeros(space.size))
    assert all(torch.equal(getattr(same, key), getattr(hand.power, key)) for key in ("closing", "open_pose", "gap_m"))
    vector = np.zeros(space.size)
    vector[0], vector[8], vector[-2] = 1.0, 0.5, 2.0
    changed = space.style(vector)
    assert changed.closing[[1, 5, 9]].numpy() == pytest.approx(1.712 * np.exp(0.3))
    assert changed.open_pose[[2, 6, 10]].numpy() == pytest.approx(0.57 + 0.1)
    assert float(changed.gap_m) == pytest.approx(0.032 + 2 * 0.008)
    assert torch.equal(changed.closing[[2, 3]], hand.power.closing[[2, 3]])


def small_search(tmp_path: Path, name: str, **options: object) -> TuneHandCfg:
    texts = {
        "hand": THREE_FINGERS,
        "objects": "shipped",
        "validation_objects": "shipped",
        "population": 4,
        "trials": 4,
        "validation_trials": 4,
        "task.grasp_s": 0.4,
        "task.lift_s": 0.2,
        "task.hold_s": 0.2,
        "out": tmp_path / name,
    } | options
    return load(TuneHandCfg, "hands_tune", [f"{key}={value}" for key, value in texts.items()])


def test_search_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    tune(small_search(tmp_path, "whole", generations=2))
    tune(small_search(tmp_path, "parts", generations=1))
    tune(small_search(tmp_path, "parts", generations=2))
    for file in ("generations.json", "result.json", "hand.yaml"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()
    first, second = json.loads((tmp_path / "whole/generations.json").read_text())["generations"]
    assert len(first["scores"]["power"]) == len(second["success"]) == 4
    result = json.loads((tmp_path / "whole/result.json").read_text())
    before, after = (HandSpec.load(path).power.closing for path in (THREE_FINGERS, tmp_path / "whole"))
    improved = result["after"]["successes"] > result["before"]["successes"]
    assert torch.equal(before, after) != improved
    with pytest.raises(ValueError, match="seed"):
        tune(small_search(tmp_path, "parts", generations=2, seed=1))


@pytest.mark.parametrize("model", ["nope.urdf", "no/such/hand.xml", "unknown:hand", "."])
def test_a_model_that_is_no_file_is_named_as_typed_and_nothing_is_made(model: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^model: '{re.escape(model)}' is no file; expected the MJCF or URDF"):
        new(NewHandCfg(model=model, out=str(tmp_path / "mine")))
    assert not (tmp_path / "mine").exists()


def test_new_writes_a_hand_that_loads_and_never_over_another(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "mine"
    new(NewHandCfg(model=str(overlapping_model(tmp_path)), out=str(out), name="mine"))
    assert HandSpec.load(out).name == "mine"
    assert HandSpec.load(out).exclude == (("left_proximal", "right_proximal"),)
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == ["hand.png", "hand.yaml"]
    told = capsys.readouterr().out
    assert f"hands tune {out}" in told and "exclude: left_proximal and right_proximal overlap by" in told
    assert "0.0 mm in the open pose" in told
    tiles = np.asarray(Image.open(out / "hand.png"))[: 2 * 420, : 3 * 420, :3].reshape(2, 420, 3, 420, 3).astype(int)
    edges = [tiles[:, :4], tiles[:, -4:], tiles[:, :, :, :4], tiles[:, :, :, -4:]]
    assert all(abs(edge - tiles[0, 0, 0, 0]).max() <= 2 for edge in edges)  # the whole hand lies within each tile
    for _ in range(2):  # after each correction; the picture is its own
        assert check(CheckHandCfg(hand=str(out))) == 0
    text = (out / "hand.yaml").read_bytes()
    with pytest.raises(ValueError, match="mine"):
        new(NewHandCfg(model=str(THREE_FINGERS / "hand.xml"), out=str(out)))
    assert (out / "hand.yaml").read_bytes() == text


def test_check_ends_with_1_where_something_is_wrong(tmp_path: Path) -> None:
    wrong = edited(tmp_path, THREE_FINGERS, **changed(palm={"normal_b": [-1, 0, 0]}))
    assert check(CheckHandCfg(hand=str(wrong), out=str(tmp_path / "wrong.png"))) == 1


@pytest.mark.parametrize("way", ["mimic", "tendons"])
def test_draft_of_a_coupled_hand_has_its_motors_and_opposes(way: str, tmp_path: Path) -> None:
    described = HandSpec.load(six_motor_hand.write(tmp_path / "described", way))
    new(NewHandCfg(model=str(described.xml_path), out=str(tmp_path / "drafted")))
    drafted = HandSpec.load(tmp_path / "drafted")
    assert drafted.motors.names == described.motors.names
    assert drafted.motors.ratio == pytest.approx(described.motors.ratio)
    assert (drafted.palm_quat_b @ described.palm_quat_b) ** 2 == pytest.approx(1.0, abs=1e-3)
    fingers = [not name.startswith("thumb") for name in drafted.motors.names]
    assert (drafted.power.closing.numpy()[fingers] > 0).all()
    assert {found.level for found in check_hand(drafted)} <= {"ok", "odd"}


def test_tip_force_of_a_coupled_finger_counts_the_joints_that_follow(tmp_path: Path) -> None:
    """The motor of a finger turns link 1 of 45 mm by 1 and link 2 of 34 mm by 1 + 1.1 times its angle."""
    hand = HandSpec.load(six_motor_hand.write(tmp_path))
    probe = HandProbe(hand)
    bent = hand.motors.joint_positions(np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.3]))
    probe.pose(bent)
    first, second = 0.5, 0.5 + 1.1 * 0.5 - 0.04
    along = np.array([[np.sin(first), np.cos(first)], [np.sin(second), np.cos(second)]])
    motion = 0.045 * along[0] + 0.034 * 2.1 * along[1]
    lever = probe.levers("index_tip")[hand.motors.names.index("index_1")]
    assert lever == pytest.approx(np.linalg.norm(motion), abs=1e-6)


def overlapping_model(folder: Path) -> Path:
    """Write a hand with two bodies more than a parent and its child apart that overlap in all poses."""
    text = (THREE_FINGERS / "hand.xml").read_text(encoding="utf-8")
    first = re.search(r'<body name="(left_proximal)"[^>]*pos="([^"]+)"', text)
    other = re.search(r'<body name="right_proximal"[^>]*pos="([^"]+)"', text)
    assert first is not None and other is not None
    apart = np.array(other[1].split(), dtype=float) - np.array(first[2].split(), dtype=float)
    at = text.index(">", first.end()) + 1
    lump = f'<geom type="sphere" size="0.012" pos="{" ".join(map(str, apart))}" mass="0.01"/>'
    file = folder / "overlapping.xml"
    file.write_text(text[:at] + lump + text[at:], encoding="utf-8")
    return file


def test_excluded_bodies_do_not_collide_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    """The example's thumb bent into a finger: only without the exclusion is there a contact."""
    overlapping_model(tmp_path)
    for exclude, wanted in (([], True), ([["right_proximal", "left_proximal"]], False)):
        file = edited(tmp_path, THREE_FINGERS, model=str(tmp_path / "overlapping.xml"), exclude=exclude)
        hand = HandSpec.load(file, side="left")
        probe = HandProbe(hand)
        probe.pose(probe.rest_pose())
        assert (("left_proximal", "right_proximal") in probe.overlaps()) is wanted
        text = next(found.text for found in check_hand(hand) if found.what == "power: self-contact")
        assert text.endswith("or state exclude: [[left_proximal, right_proximal]]") is wanted
    for pair, message in ((["palm", "tip"], r"exclude: body 'tip' is unknown; known: .*palm"), (["palm"] * 2, "twice")):
        with pytest.raises(ValueError, match=message):
            HandSpec.load(edited(tmp_path, THREE_FINGERS, exclude=[pair]))


URDF = six_motor_hand.urdf()
MJCF = six_motor_hand.mjcf(six_motor_hand.equalities())


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (MJCF, {"root": "bas"}, r"root: body 'bas' is unknown; known: .*Did you mean 'base'"),
        (MJCF, {"thumb": "daumen"}, r"thumb=daumen is no body of a finger; fingers found: \['index_1'"),
        (
            MJCF.replace("<equality>", '<equality><joint joint1="index_1" joint2="index_2"/>'),
            {},
            r"'index_1' follows no motor: index_1 -> index_2 -> index_1 is a cycle; expected a chain",
        ),
        (URDF.replace("<mimic joint='index_1'", "<mimic joint='index_2'"), {}, "joint 'index_2' mimics itself: name"),
        (URDF.replace("<mimic joint='index_1'", "<mimic joint='index'"), {}, "'index_2' mimics 'index', which is no j"),
        (
            URDF.replace("<joint name='ring_1'", "<joint name='index_1'"),
            {},
            "several joints are called 'index_1': rename",
        ),
        (URDF.replace("<link name='ring_1'", "<link name='index_1'"), {}, "several links are called 'index_1': rename"),
        (
            URDF.replace("<joint name='ring_1'", "<joint name='index_1'").replace(
                "<joint name='thumb_1'", "<joint name='index_2'"
            ),
            {},
            "several joints are called 'index_1', 'index_2': rename all but one",
        ),
        (MJCF.replace('joint name="ring_1"', 'joint name="index_1"'), {}, "repeated name 'index_1' in joint"),
        (MJCF.replace('<joint name="thumb_1"', "<joint"), {}, "a joint of body 'thumb_1' has no name; give it one"),
        (MJCF.replace('<body name="ring_1"', "<body"), {}, "the body of joint 'ring_1', on 'palm', has no name; give"),
        (URDF.replace("<box size='.024 .08 .09'/>", "<mesh filename='shell.stl'/>"), {}, "binary STL or an OBJ"),
        (URDF.replace("<box size='.024 .08 .09'/>", "<mesh filename='none.stl'/>"), {}, r"no file .*none\.stl"),
        (URDF.replace("<box size='.024 .08 .09'/>", "<mesh filename='none.dae'/>"), {}, r"no file .*none\.dae"),
    ],
)
def test_draft_refuses_bad_models_in_one_line_and_writes_nothing(
    text: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "shell.stl").write_bytes(b"no mesh " * 40)
    model = tmp_path / ("hand.urdf" if text.startswith("<robot") else "hand.xml")
    model.write_text(text, encoding="utf-8")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        new(NewHandCfg(model=str(model), out=str(tmp_path / "out"), **options))
    assert str(model) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_motors_without_limits_are_told_with_the_range_that_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hand.urdf").write_text(
        URDF.replace("name='ring_1' type='revolute'", "name='ring_1' type='continuous'")
    )
    draft = draft_hand("hand.urdf", tmp_path)
    assert draft.joints["ring_1"].range == (-1.5708, 1.5708)
    assert "joints without limits: ring_1; -1.57 to 1.57 rad is written: correct range in hand.yaml" in caplog.text
