"""Damaged hand.yaml files: each is refused in one line that names the file, or describes a hand that compiles."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dexgrasp.sim.robots.hand import HandSpec
from tests.fuzz.damaged_trees import apply, check_refusal, damages
from tests.helpers.two_joint_hand import HAND, XML

QUIET = settings(suppress_health_check=list(HealthCheck), deadline=None, database=None, phases=[Phase.generate])
SAMPLE, MANY = settings(QUIET, max_examples=60, derandomize=True), settings(QUIET, max_examples=800)

TREE = HAND | {
    "joints": {
        "j1": {"range": [-0.5, 1.5], "open": 0.2, "closing": [1.0, 0.5]},
        "j2": {"range": [0, 1.5], "open": [0.3, 0.1], "closing": 0.5, "effort_limit": 0.25},
    },
    "grasp": {"offset_y_m": 0.02, "offset_z_m": [0.01, 0.0], "gap_m": 0.03, "floor_m": 0.09},
}


def write(folder, text):
    (folder / "hand.xml").write_text(XML)
    (folder / "hand.yaml").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))


def use(folder):
    """Load and compile the hand: whatever is accepted is finite and in range."""
    try:
        hand = HandSpec.load(folder)
    except Exception as error:
        check_refusal(error, "hand.")
        return
    model = hand.to_mjspec().compile()
    assert np.isfinite(model.actuator_gainprm).all() and np.isfinite(model.jnt_range).all() and model.nu == 2
    for key in ("effort_limit", "speed_limit", "kp", "kd", "damping", "armature"):
        assert ((getattr(hand, key) > 0) & (getattr(hand, key) < 1e5)).all()
    assert np.isfinite(hand.palm_pos_b).all() and np.linalg.norm(hand.palm_quat_b) == pytest.approx(1)
    assert hand.keypoint_weights.sum() == pytest.approx(16) and hand.thumb_mask.any() and hand.finger_mask.any()
    for style in (hand.power, hand.pinch):
        assert style.open_pose.isfinite().all() and style.closing.isfinite().all() and style.gap_m.isfinite()
    assert ((hand.joint_lower <= hand.open_pose) & (hand.open_pose <= hand.joint_upper)).all()


def check_tree(folder, changes):
    write(folder, yaml.safe_dump(apply(TREE, changes), sort_keys=False))
    use(folder)


def check_text(folder, start, new, cut):
    text = yaml.safe_dump(TREE, sort_keys=False).encode()
    text = text[: len(text) - cut % len(text)]
    at = start % max(len(text), 1)
    write(folder, text[:at] + new + text[at + len(new) :])
    use(folder)


WORDS = st.sampled_from(
    [b"\t", b"\0", b"- ", b"? ", b"!!python/object:os.system ", b"&a ", b"*a ", b"{", b"]", b"<<: "]
)
KINDS = [
    (check_tree, {"changes": damages(TREE)}),
    (
        check_text,
        {
            "start": st.integers(0, 10**4),
            "cut": st.sampled_from([0, 0, 0, 1, 20, 300]),
            "new": WORDS | st.binary(max_size=20),
        },
    ),
]


@pytest.mark.parametrize(("check", "inputs"), KINDS, ids=["tree", "text"])
def test_a_sample_of_damaged_hands(tmp_path, check, inputs):
    SAMPLE(given(**inputs)(lambda **values: check(tmp_path, **values)))()


@pytest.mark.slow
@pytest.mark.parametrize(("check", "inputs"), KINDS, ids=["tree", "text"])
def test_sixteen_hundred_damaged_hands(tmp_path, check, inputs):
    MANY(given(**inputs)(lambda **values: check(tmp_path, **values)))()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("palm.pos_b", [float("nan"), 0, 0], r"'palm\.pos_b\[0\]' expects float, got nan"),
        ("palm.pos_b", [0.1], r"'palm\.pos_b' expects 3 values .*got 1 values"),
        ("palm.normal_b", [0, 0, 0], "palm: normal_b must not be zero"),
        ("actuation.kp", float("inf"), r"'actuation\.kp' expects float, got inf"),
        ("actuation.kp", 1e300, r"'actuation\.kp' must lie in 0\.0001\.\.10000, got 1e\+300"),
        ("actuation.kp", "stiff", r"'actuation\.kp' expects float, got 'stiff'"),
        ("joints.j1.closing", float("nan"), r"'joints\[j1\]\.closing' expects float or 2 values"),
        ("joints.j1.range", [1, 0], r"joints\[j1\]: range must satisfy lower < upper"),
        ("thumb_bodies", [], "contact_bodies must name the palm first, then bodies of fingers and of the thumb"),
        ("name", ["a"], r"'name' expects str, got \['a'\]"),
        ("joints", None, "'joints' expects a mapping of str to a mapping with the keys range"),
        ("joints", {}, "joints takes 1 to 256 entries, got 0"),
        ("keypoints", None, "'keypoints' expects a mapping"),
        ("grasp", None, "'grasp' expects a mapping with the keys offset_y_m"),
        ("model", None, "'model' expects str, got None"),
        ("model", "none.xml", "model: .*none.xml is no file; expected the MJCF or URDF of the hand"),
        ("keypoints.wrist.pos", None, "body and pos belong together"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_key(tmp_path, path, value, said):
    tree = apply(json.loads(json.dumps(TREE)), [(tuple(path.split(".")), value)])
    write(tmp_path, yaml.safe_dump(tree))
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        HandSpec.load(tmp_path)
    assert "hand.yaml" in str(caught.value) and "\n" not in str(caught.value)
