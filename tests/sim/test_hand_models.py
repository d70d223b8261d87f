"""Hands out of models of others: a subtree, frozen joints, visual geoms, joint order, mirror images, URDF, packages."""

import logging
import os
import struct
import sys
from types import ModuleType, SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp import assets
from dexgrasp.configs.loader import read_plain
from dexgrasp.sim.robots.capsules import hand_shape
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.hand_model import PALM, centre_on_joints, hand_model, mirror
from dexgrasp.sim.robots.model_files import hand_files
from dexgrasp.sim.scene import HAND_FRICTION, OBJECT, TABLE, ModelPool, PhysicsCfg, build_model, model_bytes
from tests.helpers.forearm_hand import HAND, UNCOUPLED, XML, write_hand

MIRROR = np.array([1.0, -1.0, 1.0])


def _data(model, **positions):
    data = mujoco.MjData(model)
    for name, value in positions.items():
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) >= 0:
            data.joint(name).qpos[:] = value
    mujoco.mj_forward(model, data)
    return data


def _random(model, seed):
    rng = np.random.default_rng(seed)
    return {model.joint(i).name: rng.uniform(*np.sort(model.jnt_range[i])) for i in range(model.njnt)}


def _file(folder, text=XML):
    (folder / "model.xml").write_text(text)
    return folder / "model.xml"


def _poses_in(root, data, model, names):
    """Return positions and rotation matrices of bodies relative to the body `root`."""
    R, p = data.body(root).xmat.reshape(3, 3), data.body(root).xpos
    return [(R.T @ (data.body(n).xpos - p), R.T @ data.body(n).xmat.reshape(3, 3)) for n in names]


# --- the subtree


def test_a_hand_below_a_wrist_keeps_what_lies_between_its_parts_and_tells_the_rest_once(tmp_path, caplog):
    caplog.set_level(logging.INFO, "dexgrasp")
    file = _file(tmp_path)
    for _ in range(2):
        spec = hand_model(file, "hand_base", {}, "the hand")
    assert [body.name for body in spec.bodies] == ["world", PALM, "f_near", "f_tip", "t_near", "t_tip"]
    assert [joint.name for joint in spec.joints] == ["f1", "f2", "t1", "t2"]
    assert [(pair.bodyname1, pair.bodyname2) for pair in spec.excludes] == [(PALM, "f_tip")]
    assert [tendon.name for tendon in spec.tendons] == ["pull"]
    assert [(item.name, item.name1, item.name2) for item in spec.equalities] == [
        ("curl", "f2", "f1"),
        ("hold", PALM, "t_tip"),
    ]
    assert [actuator.name for actuator in spec.actuators] == ["t1"]
    assert [mesh.name for mesh in spec.meshes] == ["shell"]
    assert [record.message for record in caplog.records] == [
        f"{file}: from body 'hand_base' downwards, without joints turn, bend, roll; actuators bend; "
        "tendons wrist_pull; equalities wrist_curl; excludes outside"
    ]
    whole, model = mujoco.MjModel.from_xml_path(str(file)), spec.compile()
    names = ["f_near", "f_tip", "t_near", "t_tip"]
    np.testing.assert_array_equal(model.body(PALM).mass, whole.body("hand_base").mass)
    for seed in range(3):
        q = _random(whole, seed)
        for (p, R), (want_p, want_R) in zip(
            _poses_in(PALM, _data(model, **q), model, names),
            _poses_in("hand_base", _data(whole, **q), whole, names),
            strict=True,
        ):
            np.testing.assert_allclose(p, want_p, atol=1e-12)
            np.testing.assert_allclose(R, want_R, atol=1e-12)
        for name in names:
            assert model.body(name).mass == pytest.approx(whole.body(name).mass, rel=1e-12)


def test_root_world_takes_parts_without_a_common_body(tmp_path):
    parts = '<mujoco><worldbody><body name="a" pos=".1 0 0"><geom size=".1"/></body><body name="b"><geom size=".1"/>'
    spec = hand_model(_file(tmp_path, parts + '<joint name="j"/></body></worldbody></mujoco>'), "world", {}, "the hand")
    assert [body.name for body in spec.worldbody.bodies] == [PALM]
    assert [body.name for body in spec.body(PALM).bodies] == ["a", "b"]
    np.testing.assert_allclose(spec.compile().body("a").pos, [0.1, 0, 0])


def test_a_body_called_palm_below_the_root_gets_another_name(tmp_path):
    text = XML.replace("f_near", "palm")
    spec = hand_model(_file(tmp_path, text.replace('body2="f_tip"', 'body2="palm"')), "hand_base", {}, "the hand")
    assert [body.name for body in spec.bodies][1:3] == [PALM, "palm_2"]
    assert [(pair.bodyname1, pair.bodyname2) for pair in spec.excludes] == [(PALM, "palm_2")]


@pytest.mark.parametrize("joint", ["hinge", "slide"])
def test_a_frozen_joint_leaves_all_bodies_where_it_would_hold_them(tmp_path, joint):
    """Against MuJoCo with the joint at that position, with another joint before it in the same body."""
    first, ref = '<joint name="first" axis="1 2 3" pos="0 .02 0"/>', 8 if joint == "hinge" else 0.01
    bend = f'<joint name="bend" type="{joint}" ref="{ref}" axis="0 1 1"'
    text = XML.replace('<joint name="bend" axis="0 1 0"', first + bend)
    file = _file(tmp_path, text)
    whole = mujoco.MjModel.from_xml_path(str(file))
    frozen = {"bend": 0.3 if joint == "hinge" else 0.02, "roll": -0.2}
    model = hand_model(file, "forearm", frozen, "the hand").compile()
    assert [model.joint(i).name for i in range(model.njnt)] == ["first", "f1", "f2", "t1", "t2"]
    names = ["wrist", "hand_base", "f_near", "f_tip", "t_tip"]
    for seed in range(3):
        q = _random(whole, seed) | frozen | {"first": 0.4 * seed}
        got = _poses_in(PALM, _data(model, **q), model, names)
        for (p, R), (want_p, want_R) in zip(got, _poses_in("forearm", _data(whole, **q), whole, names), strict=True):
            np.testing.assert_allclose(p, want_p, atol=1e-12)
            np.testing.assert_allclose(R, want_R, atol=1e-12)


def test_torch_kinematics_agrees_with_the_file_for_hinges_anywhere_and_other_zero_positions(tmp_path):
    """The joint t1 turns about a point beside its body's origin, f1 has ref="5" degrees."""
    hand = HandSpec.load(write_hand(tmp_path))
    whole = mujoco.MjModel.from_xml_path(str(tmp_path / "hand.xml"))
    tree = hand.kinematics()
    for seed in range(3):
        q = np.random.default_rng(seed).uniform(hand.joint_lower, hand.joint_upper)
        data = _data(whole, **dict(zip(hand.joint_names, q, strict=True)))
        base, thumb = data.body("hand_base"), data.body("t_near")
        places = [base.xpos + base.xmat.reshape(3, 3) @ [0, 0.01, 0], data.site("finger_tip").xpos]
        places += [thumb.xpos + thumb.xmat.reshape(3, 3) @ [0, 0.01, 0.02], data.site("thumb_tip").xpos]
        want = (np.array(places) - base.xpos) @ base.xmat.reshape(3, 3)
        got = tree.keypoints(torch.zeros(3), torch.tensor([1.0, 0, 0, 0]), torch.tensor(q, dtype=torch.float32))
        np.testing.assert_allclose(got, want, atol=1e-6)


# --- contacts


@pytest.fixture(scope="module")
def scene_of(household):
    obj = household[household.names[0]]

    def build(hand, **physics):
        model = build_model(hand, obj, PhysicsCfg(**physics), "floating", len(obj.pieces))
        data = mujoco.MjData(model)
        data.joint("palm_z").qpos[:], data.joint("object").qpos[0] = 0.5, 2.0
        for name, value in zip(hand.joint_names, hand.open_pose, strict=True):
            data.joint(name).qpos[:] = value
        mujoco.mj_forward(model, data)
        table = model.body_rootid[model.body("palm").id]
        of_hand = [i for i in range(model.ngeom) if model.body_rootid[model.geom_bodyid[i]] == table]
        return model, data, of_hand

    return build


def test_visual_geoms_touch_nothing_and_cameras_see_them_instead_of_the_colliders(tmp_path, scene_of):
    hand = HandSpec.load(write_hand(tmp_path))
    model, data, of_hand = scene_of(hand)
    solid = [i for i in of_hand if model.geom_contype[i] | model.geom_conaffinity[i]]
    assert (len(of_hand), len(solid)) == (11, 6)  # a box, four capsules and a mesh collide; five shells do not
    assert data.ncon == 0
    for i in solid:
        assert model.geom_conaffinity[i] & (OBJECT | TABLE) == OBJECT | TABLE
        assert model.geom_friction[i, 0] == HAND_FRICTION and model.geom_priority[i] == 0
    seen = [i for i in of_hand if model.geom_rgba[i, 3] > 0]
    assert sorted(seen + solid) == of_hand
    shape = hand_shape(hand)
    assert sorted(set(shape.body)) == [0, 1, 2, 3, 4]
    alone = hand.to_mjspec().compile()  # all shells lie within their capsules, up to the corners of their boxes
    assert np.isin(shape.body, alone.geom_bodyid[alone.geom_rgba[:, 3] > 0] - 1).all()
    everything = UNCOUPLED.replace('contype="0" conaffinity="0"', "")
    other = tmp_path / "all"
    other.mkdir()
    model, data, of_hand = scene_of(HandSpec.load(write_hand(other, everything)))
    assert model.geom_contype[of_hand].all() and data.ncon > 0  # so it was while all geoms collided


@pytest.mark.parametrize("bits", [(1, 1), (0, 1), (2, 1), (1, 6), (4, 4), (2**20, 2**20 + 1)])
def test_colliders_meet_each_other_as_in_their_file_and_the_object_always(tmp_path, scene_of, bits):
    contype, conaffinity = bits
    near = 'class="solid" fromto="0 0 0 0 0 .04"'
    text = UNCOUPLED.replace(near, f'{near} contype="{contype}" conaffinity="{conaffinity}"')
    hand = HandSpec.load(write_hand(tmp_path, text))
    whole = hand.to_mjspec().compile()
    model, _, of_hand = scene_of(hand)

    def meet(m, i, j):
        return bool(m.geom_contype[i] & m.geom_conaffinity[j] | m.geom_contype[j] & m.geom_conaffinity[i])

    for i, a in enumerate(of_hand):
        for j, b in enumerate(of_hand):
            assert meet(model, a, b) == meet(whole, i, j), (i, j)
        collides = whole.geom_contype[i] | whole.geom_conaffinity[i] > 0
        assert meet(model, a, model.geom("object_0").id) == meet(model, a, model.geom("table").id) == collides


def test_with_thumb_contacts_alone_everything_on_the_thumb_counts_as_thumb(tmp_path, scene_of):
    hand = HandSpec.load(write_hand(tmp_path, thumb_bodies=["t_near"]))
    model, _, of_hand = scene_of(hand, self_collision="thumb")
    thumb = {model.body(name).id for name in ("t_near", "t_tip")}
    for i in of_hand:
        for j in of_hand:
            both = model.geom_contype[i] & model.geom_conaffinity[j] | model.geom_contype[j] & model.geom_conaffinity[i]
            solid = all(model.geom_conaffinity[k] | model.geom_contype[k] for k in (i, j))
            sides = [model.geom_bodyid[k] in thumb for k in (i, j)]
            assert bool(both) == (solid and sides[0] != sides[1])


def test_visual_geoms_are_left_out_of_large_libraries_and_change_no_physics(tmp_path, household, balanced):
    hand = HandSpec.load(write_hand(tmp_path))
    name = household.names[0]
    full = ModelPool(hand, household, balanced)[name]
    budget = model_bytes(full) * len(household) - 1
    small = ModelPool(hand, household, balanced, budget_bytes=budget)[name]
    seen = ModelPool(hand, household, balanced, budget_bytes=budget, rendered=True)[name]
    assert full.ngeom == seen.ngeom == small.ngeom + 5 and model_bytes(small) < model_bytes(full)
    seen_geoms = (small.geom_rgba[:, 3] > 0).sum()
    assert seen_geoms == 6 + 1 + len(household[name].pieces)  # colliders of the hand, the table
    states = []
    for model in (full, small):
        data = mujoco.MjData(model)
        data.ctrl[-4:] = 0.4
        mujoco.mj_step(model, data, 200)
        states.append(np.concatenate([data.qpos, data.qvel]))
    np.testing.assert_array_equal(*states)


# --- joint order


@pytest.mark.parametrize("order", [("t2", "f1", "t1", "f2"), ("t1", "t2", "f1", "f2"), ("f2", "f1", "t2", "t1")])
def test_joints_stand_in_any_order_in_hand_yaml(tmp_path, order, scene_of):
    want = HandSpec.load(write_hand(tmp_path))
    hand = HandSpec.load(write_hand(tmp_path, joints={name: HAND["joints"][name] for name in order}))
    assert hand.joint_names == want.joint_names == ("f1", "f2", "t1", "t2")
    for key in ("joint_lower", "joint_upper", "kp", "effort_limit", "open_pose"):
        np.testing.assert_array_equal(getattr(hand, key), getattr(want, key))
    assert torch.equal(hand.power.closing, torch.tensor([1.0, 0.5, 0.7, 0.9], dtype=torch.float64))
    np.testing.assert_array_equal(hand.kp, [2, 2, 1.5, 2])
    model, _, _ = scene_of(hand)
    assert [model.joint(i).name for i in range(4, 8)] == list(hand.joint_names)


@pytest.mark.parametrize("name", assets.names("hands"))
def test_shipped_hands_keep_the_order_of_their_description(name):
    assert HandSpec.load(name).joint_names == tuple(read_plain(assets.path(f"hands/{name}/hand.yaml"))["joints"])


# --- the mirror image


def test_a_mirrored_model_with_meshes_frames_and_tendons_is_the_reflection(tmp_path):
    """Bodies, centres of mass, sites, mass matrices, tendon lengths, distances of geoms at equal joint positions."""
    file = _file(tmp_path)
    models = []
    for reflect in (False, True):
        spec = hand_model(file, "hand_base", {}, "the hand")
        centre_on_joints(spec)
        if reflect:
            mirror(spec)
        models.append(spec.compile())
    right, left = models
    np.testing.assert_allclose(left.body_mass, right.body_mass, rtol=1e-12)
    for seed in range(4):
        q = _random(right, seed)
        r, w = (_data(model, **q) for model in models)
        for key in ("xpos", "xipos", "site_xpos"):
            np.testing.assert_allclose(getattr(w, key), getattr(r, key) * MIRROR, atol=1e-12)
        np.testing.assert_allclose(w.ten_length, r.ten_length, atol=1e-12)
        matrices = np.zeros((2, right.nv, right.nv))
        for model, data, matrix in zip(models, (r, w), matrices, strict=True):
            mujoco.mj_fullM(model, data, matrix)
        np.testing.assert_allclose(matrices[1], matrices[0], rtol=1e-9, atol=1e-12)
        distances = [
            [mujoco.mj_geomDistance(model, data, i, j, 1.0, None) for i in range(11) for j in range(i)]
            for model, data in zip(models, (r, w), strict=True)
        ]
        apart = np.array(distances[0]) > 1e-4  # the depth of a penetration has several directions
        assert apart.sum() > 20
        np.testing.assert_allclose(np.array(distances[1])[apart], np.array(distances[0])[apart], atol=1e-6)
    anchors = [model.eq_data[1, :3] for model in models]
    np.testing.assert_allclose(anchors[1], anchors[0] * MIRROR)


def test_the_other_side_of_a_hand_with_meshes_has_mirrored_keypoints(tmp_path):
    right, left = (HandSpec.load(write_hand(tmp_path), side) for side in ("right", "left"))
    q = torch.tensor(right.open_pose, dtype=torch.float32)
    points = [hand.kinematics().keypoints(torch.zeros(3), torch.tensor([1.0, 0, 0, 0]), q) for hand in (right, left)]
    np.testing.assert_allclose(points[1], points[0] * torch.tensor(MIRROR), atol=1e-6)
    shapes = [hand_shape(hand) for hand in (right, left)]
    np.testing.assert_allclose(shapes[1].radius_m, shapes[0].radius_m, atol=1e-6)


# --- URDF


def _stl(path, size=0.01):
    """Write a tetrahedron."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32) * size
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    rows = b"".join(struct.pack("<12fH", 0, 0, 0, *corners[list(face)].ravel(), 0) for face in faces)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(80) + struct.pack("<I", 4) + rows)


def _link(name, shapes):
    inertial = '<mass value="0.05"/><inertia ixx="1e-5" iyy="1e-5" izz="1e-5" ixy="0" ixz="0" iyz="0"/>'
    return f'<link name="{name}"><inertial>{inertial}</inertial>{shapes}</link>'


def _joint(name, parent, child, extra="", kind="revolute"):
    limit = '<limit lower="0" upper="1.2" effort="0.001" velocity="1"/>'
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/><axis xyz="0 1 0"/>'
        f'<origin xyz="0 0 0.04"/>{limit}{extra}</joint>'
    )


def _shape(kind, mesh):
    return f'<{kind}><geometry><mesh filename="{mesh}"/></geometry></{kind}>'


URDF = "".join(
    [
        '<robot name="u"><link name="mount"/>',
        _link(
            "base",
            '<collision><geometry><box size="0.04 0.06 0.06"/></geometry></collision>' + _shape("visual", "base.dae"),
        ),
        _joint("fixed", "mount", "base", kind="fixed"),
        _link(
            "finger",
            _shape("visual", "package://some_hand/meshes/finger.stl") + _shape("collision", "hulls/finger.stl"),
        ),
        _joint("f", "base", "finger"),
        _link(
            "thumb", _shape("visual", "package://some_hand/meshes/thumb.stl") + _shape("collision", "hulls/thumb.stl")
        ),
        _joint("t", "base", "thumb"),
        "</robot>",
    ]
)
URDF_KEYS = {
    "root": "base",
    "joints": {"t": HAND["joints"]["t2"], "f": HAND["joints"]["f2"]},
    "keypoints": {"tip": {"weight": 1, "body": "finger", "pos": [0, 0, 0.01]}},
    "contact_bodies": {"palm": 0, "finger": 1, "thumb": 1},
    "thumb_bodies": ["thumb"],
}


def _urdf_hand(folder, text=URDF, **changes):
    """Write a hand whose URDF stands in a folder of a ROS package, as its meshes do."""
    for name in ("finger", "thumb"):
        _stl(folder / "some_hand/meshes" / f"{name}.stl")
        _stl(folder / "some_hand/urdf/hulls" / f"{name}.stl", 0.02)
    (folder / "some_hand/urdf/hand.urdf").write_text(text)
    return write_hand(folder, "", **URDF_KEYS | {"model": "some_hand/urdf/hand.urdf"} | changes)


def test_a_urdf_keeps_its_links_visuals_and_paths(tmp_path):
    hand = HandSpec.load(_urdf_hand(tmp_path))
    model = hand.to_mjspec().compile()
    assert [model.body(i).name for i in range(1, model.nbody)] == [PALM, "finger", "thumb"]  # links are not fused
    kinds = [(model.body(model.geom_bodyid[i]).name, int(model.geom_contype[i])) for i in range(model.ngeom)]
    assert kinds == [(PALM, 1), ("finger", 0), ("finger", 1), ("thumb", 0), ("thumb", 1)]  # without base.dae
    assert model.geom_rgba[0, 3] == 1  # a body without visuals shows its colliders
    volumes = [model.geom_aabb[i, 3:].prod() for i in range(1, 5)]  # the hulls are twice as long
    np.testing.assert_allclose(np.divide(volumes[1::2], volumes[::2]), 8, rtol=1e-3)
    assert hand.joint_names == ("f", "t")
    assert not model.jnt_actfrclimited.any()  # the limits are those of hand.yaml, not the URDF's 0.001 N m
    np.testing.assert_allclose(model.actuator_forcerange[:, 1], [0.25, 0.5])


def test_a_urdf_by_a_relative_path_finds_its_meshes(tmp_path, monkeypatch):
    _urdf_hand(tmp_path / "hand")
    monkeypatch.chdir(tmp_path)
    assert HandSpec.load("hand").joint_names == HandSpec.load("hand/../hand").joint_names == ("f", "t")


def test_packages_are_found_where_ros_lists_them(tmp_path, monkeypatch):
    folder = _urdf_hand(tmp_path)
    (tmp_path / "install/share/some_hand").mkdir(parents=True)
    os.rename(tmp_path / "some_hand/meshes", tmp_path / "install/share/some_hand/meshes")
    message = (
        r"link 'finger': no file package://some_hand/meshes/finger\.stl; its package is looked for in AMENT_PREFIX"
    )
    with pytest.raises(FileNotFoundError, match=message):
        HandSpec.load(folder)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere{os.pathsep}{tmp_path / 'install'}")
    assert HandSpec.load(folder).joint_names == ("f", "t")


def test_every_file_of_a_urdf_identifies_the_hand(tmp_path):
    folder = _urdf_hand(tmp_path)
    files = ["hand.yaml", "some_hand/urdf/hand.urdf"]
    files += [f"some_hand/{place}/{name}.stl" for place in ("meshes", "urdf/hulls") for name in ("finger", "thumb")]
    assert sorted(hand_files(folder / "hand.yaml")) == sorted(files)


def test_an_mjcf_by_any_ending_finds_what_it_includes_and_its_meshes(tmp_path):
    """MuJoCo chooses its reader by the ending, and knows that of XML alone."""
    _stl(tmp_path / "maker/meshes/shell.stl")
    assets_of = '<mujoco><asset><mesh name="shell" file="meshes/shell.stl"/></asset></mujoco>'
    (tmp_path / "maker/parts.xml").write_text(assets_of)
    shell = UNCOUPLED[UNCOUPLED.index('    <mesh name="shell"') : UNCOUPLED.index('    <mesh name="sleeve"')]
    text = UNCOUPLED.replace(shell, "").replace("  <asset>", '  <include file="parts.xml"/><asset>', 1)
    (tmp_path / "maker/hand.mjcf").write_text(text)
    (tmp_path / "maker/hand.xml").write_text(text)
    by_ending = [HandSpec.load(write_hand(tmp_path, model=f"maker/hand.{e}")) for e in ("xml", "mjcf")]
    one, other = (hand.to_mjspec().compile() for hand in by_ending)
    assert one.nmesh == other.nmesh == 1
    np.testing.assert_array_equal(one.mesh_vert, other.mesh_vert)
    np.testing.assert_array_equal(one.geom_pos, other.geom_pos)
    assert set(hand_files(tmp_path / "hand.yaml")) == {
        "hand.yaml",
        "maker/hand.mjcf",
        "maker/parts.xml",
        "maker/meshes/shell.stl",
    }


# --- what is no hand


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('pos="0 0 .1">', 'pos="0 0 400">', None),  # above the root
        ('name="t_tip" pos="0 0 .04"', 'name="t_tip" pos="0 0 40"', r"'t_tip' .* ends 40.* m from its root; .*metres"),
        ('scale="1 1.2 .9"', 'scale="1e3 1e3 1e3"', r"ends .* m from its root; expected 0\.02 to 1 m: .*scale 0\.001"),
        (
            '<geom type="box"',
            '<geom type="sphere" size="1e-30"/><geom type="box"',
            r"'hand_base' has a size of 1e-30 m; expected",
        ),
        (
            'name="t2" axis',
            'name="t2" stiffness="50" axis',
            r"joint 't2' has a spring of 50 N m/rad, which takes 60 N m",
        ),
        ('name="t2" axis', 'name="t2" type="slide" axis', r"body 't_tip' has 't2', a slide joint; each moving body"),
        ('name="t2" axis', 'name="t2" type="ball" axis', r"body 't_tip' has 't2', a ball joint; each moving body"),
        ('name="t2"', 'name="t1"', "not a valid MJCF: .*repeated name 't1' in joint"),
        ('<joint name="t2" axis="0 -1 0"', '<joint axis="0 -1 0"', "a joint of body 't_tip' has no name"),
        ('name="hand_base"', 'name="base"', r"root: body 'hand_base' is unknown; known: .*'base'"),
        (
            '<mesh name="shell"',
            '<mesh name="shell" file="x.dae"',
            r"mesh 'shell' .* cannot read .*x\.dae; expected one of \.stl",
        ),
        ("<mujoco model", "<sdf model", "not a valid MJCF"),
        ('name="t_tip"', 'name="object"', "body 'object' has a name that scenes use themselves; rename it"),
        ('name="t2"', 'name="palm_ball"', "joint 'palm_ball' has a name that scenes use"),
        ('<geom type="box"', '<geom name="object_3" type="box"', "geom 'object_3' has a name that scenes use"),
    ],
)
def test_a_model_that_is_no_hand_is_refused_with_file_and_part(tmp_path, old, new, message):
    assert old in UNCOUPLED
    text = UNCOUPLED.replace(old, new, 1)
    if "<sdf" in new:
        text = text.replace("</mujoco>", "</sdf>")
    (tmp_path / "x.dae").write_text("<COLLADA/>")
    write_hand(tmp_path, text.replace(f'vertex="{_VERTICES}"', "") if "dae" in new else text)
    if message is None:
        assert HandSpec.load(tmp_path).joint_names
        return
    with pytest.raises(ValueError, match=message) as caught:
        HandSpec.load(tmp_path)
    assert "hand.xml" in str(caught.value) and "\n" not in str(caught.value)


_VERTICES = XML[XML.index('vertex="') + 8 : XML.index('" scale')]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"palm": HAND["palm"] | {"pos_b": [0.3, 0, 0]}},
            r"palm\.pos_b: the palm centre lies 0\.2\d* m outside the nearest",
        ),
        (
            {"keypoints": {"far": {"weight": 1, "body": "t_tip", "pos": [0, 0, 0.5]}}},
            r"keypoints: 'far' lies 0\.4\d* m outside",
        ),
        (
            {"actuation": HAND["actuation"] | {"effort_limit": 700}},
            r"actuation\.effort_limit' must lie in 0\.0001\.\.50",
        ),
        ({"frozen": {"t2": 0.1}}, "frozen: 't2' stands in joints as well"),
        ({"frozen": {"t3": 0.1}}, r"frozen: joint 't3' is unknown; known: .*'t2'"),
        (
            {"joints": {name: HAND["joints"][name] for name in ("f1", "f2", "t1")}},
            r"joint 't2' of .*hand\.xml is missing; give",
        ),
        ({"root": "forearm"}, r"joint 'bend' of .*hand\.xml is missing; give it a row, or a position in `frozen`"),
        ({"model": "none.urdf"}, r"hand\.yaml: model: .*none\.urdf is no file; expected the MJCF or URDF"),
        ({"thumb_bodies": []}, "contact_bodies must name the palm first, then bodies of fingers and of the thumb"),
    ],
)
def test_a_description_that_does_not_fit_its_model_is_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        HandSpec.load(write_hand(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_xacro_is_to_be_expanded_first(tmp_path):
    text = URDF.replace("<link", '<xacro:property name="a" value="1"/><link', 1)
    with pytest.raises(ValueError, match=r"hand\.urdf: it holds xacro macros; expand them first: `xacro hand\.urdf >"):
        HandSpec.load(_urdf_hand(tmp_path, text))


def test_warnings_of_the_compiler_are_logged_once_with_the_file(tmp_path, caplog):
    corners = "".join(f"v {x} {y} {z}\n" for x, y, z in np.vstack([np.zeros(3), np.eye(3)]) * 0.02)
    (tmp_path / "m.obj").write_text(corners + "vt 0 0\nf 1/1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n")
    text = UNCOUPLED.replace("<mesh name", '<mesh name="m" file="m.obj"/><mesh name', 1)
    text = text.replace('<geom class="visual"/>', '<geom class="visual"/><geom class="visual" mesh="m"/>', 1)
    for _ in range(2):
        HandSpec.load(write_hand(tmp_path, text))
    warned = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == 1
    assert warned[0].startswith(f"{tmp_path / 'hand.xml'}: MuJoCo warns: ") and "texture" in warned[0]


def test_the_earlier_name_of_the_model_key_is_understood(tmp_path, caplog):
    caplog.set_level(logging.INFO, "dexgrasp")
    file = write_hand(tmp_path) / "hand.yaml"
    file.write_text(file.read_text().replace("model: hand.xml", "xml: hand.xml"))
    for _ in range(2):
        assert HandSpec.load(tmp_path).name == "foreign"
    told = [record.message for record in caplog.records if " earlier version: " in record.message]
    assert told == [f"{file}: key of an earlier version: xml -> model"]
    file.write_text(file.read_text() + "model: hand.xml\n")
    with pytest.raises(ValueError, match="unknown key 'xml'"):
        HandSpec.load(tmp_path)


# --- packages of models


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Stand-ins for mujoco-menagerie 2026.10 and robot_descriptions 3.3 with one robot, as far as they are used."""
    folder = tmp_path / "cache/some_hand"
    folder.mkdir(parents=True)
    for name in ("left_hand", "right_hand"):
        (folder / f"{name}.xml").write_text(UNCOUPLED)
    points = [("left_hand", "robot"), ("right_hand", "robot"), ("scene_right", "scene")]
    robot = SimpleNamespace(
        name="some_hand",
        entry_points=tuple(SimpleNamespace(name=n, kind=k, file=f"{n}.xml", is_mjx=False) for n, k in points),
        xml=lambda entry=None, cache=None: folder / f"{entry}.xml",
    )
    menagerie = ModuleType("mujoco_menagerie")
    menagerie.MenagerieError = type("MenagerieError", (Exception,), {})
    menagerie.robots = lambda category=None: [robot] if category == "end_effector" else []
    menagerie.names, menagerie.get = lambda: ["panda", "some_hand"], {"some_hand": robot}.__getitem__
    monkeypatch.setitem(sys.modules, "mujoco_menagerie", menagerie)
    (tmp_path / "site/robot_descriptions").mkdir(parents=True)
    (tmp_path / "site/robot_descriptions/__init__.py").touch()
    (tmp_path / "site/robot_descriptions/_descriptions.py").write_text(
        "class D:\n    has_mjcf = has_urdf = True\n"
        "DESCRIPTIONS = {'some_hand_description': D(), 'lost_description': D()}\n"
    )
    right = f"MJCF_PATH = MJCF_PATH_RIGHT = {str(folder / 'right_hand.xml')!r}\n"
    left = f"MJCF_PATH_LEFT = {str(folder / 'left_hand.xml')!r}\nREPOSITORY_PATH = '.'\n"
    (tmp_path / "site/robot_descriptions/some_hand_description.py").write_text(right + left)
    (tmp_path / "site/robot_descriptions/lost_description.py").write_text("raise OSError('no network')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("robot_descriptions")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("menagerie:some_hand/right_hand", "right_hand.xml"),
        ("menagerie:some_hand/left_hand", "left_hand.xml"),
        ("robot_descriptions:some_hand/right", "right_hand.xml"),
        ("robot_descriptions:some_hand_description/left", "left_hand.xml"),
    ],
)
def test_a_model_of_a_package_is_read_and_identified_by_its_name(packages, model, file):
    hand = HandSpec.load(write_hand(packages, model=model))
    assert (hand.joint_names, hand.xml_path) == (("f1", "f2", "t1", "t2"), packages / "cache/some_hand" / file)
    assert set(hand_files(packages / "hand.yaml")) == {"hand.yaml", f"{model}/{file}"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "menagerie:some_hnd",
            r"menagerie has no robot 'some_hnd'; hands among its 2 robots: some_hand\. Did you mean 'some_h",
        ),
        (
            "menagerie:some_hand",
            "has several models; expected one of menagerie:some_hand/left_hand, menagerie:some_hand/right",
        ),
        ("menagerie:some_hand/up", "has several models; expected one of menagerie:some_hand/left_hand"),
        ("robot_descriptions:some_hand", "expected one of robot_descriptions:some_hand_description/right, .*/left"),
        ("robot_descriptions:lost", "robot_descriptions cannot provide 'lost_description': .*no network"),
        (
            "robot_descriptions:none",
            "robot_descriptions has no robot 'none_description'; hands among its 2 robots: some_hand",
        ),
    ],
)
def test_an_unknown_model_of_a_package_is_refused_with_the_known_ones(packages, model, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        HandSpec.load(write_hand(packages, model=model))
    assert str(caught.value).startswith(f"{packages / 'hand.yaml'}: model: ")


@pytest.mark.parametrize("package", ["mujoco_menagerie", "robot_descriptions"])
def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch, package):
    for name in (package, f"{package}._descriptions"):
        monkeypatch.setitem(sys.modules, name, None)
    model = f"{package.removeprefix('mujoco_')}:some_hand"
    with pytest.raises(ValueError, match=r"need mujoco-menagerie and robot_descriptions: pip install -e '\.\[hands"):
        HandSpec.load(write_hand(tmp_path, model=model))


def test_a_model_alone_is_no_hand_and_says_how_to_describe_it(tmp_path):
    write_hand(tmp_path)
    for given in ("menagerie:shadow_hand", "robot_descriptions:some_hand", str(tmp_path / "hand.xml")):
        with pytest.raises(FileNotFoundError, match=f"`dexgrasp hands new {given} out=FOLDER`, then give hand=FOLDER"):
            HandSpec.load(given)
