"""Grasp files and rule of DexGraspBench with a gripper and a cube made here; frames of hands worked by hand."""

import json
import os
import pickle

import mujoco
import numpy as np
import pytest
import torch
import trimesh

from dexgrasp.perception.transforms import compose
from dexgrasp.policies.cli.main import main
from dexgrasp.sim.dexgraspbench.grasp_files import Grasp, read_grasp, write_grasp
from dexgrasp.sim.dexgraspbench.hand_frames import HandFrames
from dexgrasp.sim.dexgraspbench.object_files import write_object
from dexgrasp.sim.dexgraspbench.playback import SOLVERS, grasp_scene, play
from dexgrasp.sim.objects import open_library
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.utils.readers import DamagedFileError

GRIPPER = """<mujoco><compiler angle="radian" autolimits="true"/>
<worldbody><body name="base"><geom type="box" size="0.06 0.02 0.01" pos="0 0 -0.09" mass="0.3"/>
<body name="left"><joint name="left" type="slide" axis="1 0 0" damping="1"/>
<geom type="box" size="0.005 0.02 0.02" pos="-0.045 0 0" mass="0.03"/></body>
<body name="right"><joint name="right" type="slide" axis="-1 0 0" damping="1"/>
<geom type="box" size="0.005 0.02 0.02" pos="0.045 0 0" mass="0.03"/></body></body></worldbody>
<actuator><position name="l" joint="left" kp="200"/><position name="r" joint="right" kp="200"/></actuator></mujoco>"""
"""Two pads, 8 cm apart at joint position 0, with servos of 200 N/m."""
OBJECT, SIDE_M = "assets/object/cube", 0.04
AT_REST = np.array([0.0, 0, 0, 1, 0, 0, 0])
TURNED = np.array([0.3, -0.2, 0.5, 0.5, 0.5, -0.5, 0.5])
"""A pose that turns the axes into each other."""


@pytest.fixture
def bench(tmp_path):
    """A folder of DexGraspBench with a gripper and a cube of side 1 at scale 1."""
    hand = tmp_path / "assets/hand/gripper/right_hand.xml"
    hand.parent.mkdir(parents=True)
    hand.write_text(GRIPPER)
    for name in ("urdf/meshes", "info"):
        (tmp_path / OBJECT / name).mkdir(parents=True)
    trimesh.creation.box(extents=[1, 1, 1]).export(tmp_path / OBJECT / "urdf/meshes/convex_piece_000.obj")
    facts = {"mass": 16.0, "density": 2.0, "scale": 2.0}  # a volume of 1 at scale 1
    (tmp_path / OBJECT / "info/simplified.json").write_text(json.dumps(facts))
    return tmp_path


def grasp(force_n=3.0, pregrasp_m=0.01, pose=AT_REST):
    """The pads touch the cube at 0.02; the target of the squeeze lies `force_n` / 200 N/m beyond."""
    stages = {"pregrasp_qpos": pregrasp_m, "grasp_qpos": 0.02, "squeeze_qpos": 0.02 + force_n / 200}
    qpos = {key: np.concatenate([pose, [value, value]]) for key, value in stages.items()}
    return Grasp(obj_path=OBJECT, obj_scale=SIDE_M, obj_pose=pose, **qpos)


def played(bench, one, physics):
    hand = bench / "assets/hand/gripper/right_hand.xml"
    return play(grasp_scene(hand, bench / OBJECT, one.obj_scale, SOLVERS[physics]), one)


@pytest.mark.parametrize("physics", SOLVERS)
@pytest.mark.parametrize("pose", [AT_REST, TURNED], ids=["at rest", "turned"])
def test_friction_of_two_pads_holds_the_cube_or_not(bench, physics, pose):
    """Two pads of friction 0.6 carry 1.2 times their force across it: 3.6 N of 3 N, 0.6 N of 0.5 N; the pull is 1 N."""
    strong = played(bench, grasp(force_n=3.0, pose=pose), physics)
    assert (strong.success, strong.pulls, strong.overlap_m) == (True, 6, 0.0)
    assert strong.moved_m < 0.01
    weak = played(bench, grasp(force_n=0.5, pose=pose), physics)
    assert (weak.success, weak.moved_m > 0.05) == (False, True)
    assert weak.pulls == {True: 2, False: 0}[pose is AT_REST]  # of six, -x and +x press against a pad at rest


def test_the_object_has_the_mass_of_the_rule_at_every_scale(bench):
    for scale in (SIDE_M, 2 * SIDE_M):
        hand = bench / "assets/hand/gripper/right_hand.xml"
        model = grasp_scene(hand, bench / OBJECT, scale, SOLVERS["dexgraspbench"])
        assert model.body("object").mass == pytest.approx(0.1, rel=1e-6)
        assert model.geom_condim.tolist() == [4] * model.ngeom


def test_an_overlap_of_more_than_a_centimetre_at_the_pregrasp_is_a_failure(bench):
    """At 0.035 a pad lies 1.5 cm in the cube, at 0.025 half a centimetre."""
    deep = played(bench, grasp(pregrasp_m=0.035), "dexgraspbench")
    assert (deep.success, deep.pulls) == (False, 0)
    assert deep.overlap_m == pytest.approx(0.015, abs=1e-4)
    shallow = played(bench, grasp(pregrasp_m=0.025), "dexgraspbench")
    assert shallow.success and shallow.overlap_m == pytest.approx(0.005, abs=1e-4)


def test_a_grasp_of_another_hand_is_refused(bench):
    one = grasp()
    longer = {key: np.append(getattr(one, key), 0.0) for key in ("pregrasp_qpos", "grasp_qpos", "squeeze_qpos")}
    with pytest.raises(ValueError, match="the grasp has 3 joints, the hand 2"):
        played(bench, Grasp(obj_path=OBJECT, obj_scale=SIDE_M, obj_pose=AT_REST, **longer), "reference")


def test_the_command_counts_by_scale_and_compares_with_stored_verdicts(bench, capsys):
    data = bench / "output/toy_gripper"
    for name, force_n in (("a/0.npy", 3.0), ("a/1.npy", 0.5), ("b/0.npy", 4.0)):
        write_grasp(data / "graspdata" / name, grasp(force_n=force_n))
    for name in ("a/0.npy", "a/1.npy"):
        (data / "evaluation" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(data / "evaluation" / name, np.array({"succ_flag": np.True_, "delta_pos": np.float64(0)}, dtype=object))
    words = ["benchmark", "dexgraspbench", str(bench), "grasps=output/toy_gripper", "num_threads=1"]
    out = bench / "run"
    assert main([*words, f"out={out}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == [
        "0.04",
        "3",
        "2",
        "(66.7",
        "%)",
        "20.8",
        "-",
        "93.9",
        *["2", "of", "2"],
        *["1", "of", "2"],
    ]
    assert lines[3].split()[0] == "all"
    rows = [json.loads(line) for line in (out / "grasps.jsonl").read_text().splitlines()]
    assert [(row["grasp"], row["success"], row["dexgraspbench"]) for row in rows] == [
        ("a/0.npy", True, True),
        ("a/1.npy", False, True),
        ("b/0.npy", True, None),
    ]
    assert main([*words, "only_judged=true", "most=1", f"out={out}"]) == 0
    assert "1 (100.0 %)" in capsys.readouterr().out


def test_a_run_goes_on_and_plays_again_only_what_has_changed(bench, capsys, caplog):
    """Of three grasps a kill tore the last row; then one grasp is replaced by a weak one."""
    data, out = bench / "output/toy_gripper/graspdata", bench / "run"
    for name in "abc":
        write_grasp(data / f"{name}.npy", grasp())
    words = ["benchmark", "dexgraspbench", str(bench), "grasps=output/toy_gripper", "num_threads=1", f"out={out}"]
    assert main(words) == 0
    lines = (out / "grasps.jsonl").read_text().splitlines(keepends=True)
    (out / "grasps.jsonl").write_text("".join(lines[:2]) + lines[2][:30])
    write_grasp(data / "a.npy", grasp(force_n=0.5))
    with caplog.at_level("INFO", "dexgrasp"):
        assert main(words) == 0
    assert "goes on: 1 of 3 grasps were played" in caplog.text
    again = {row["grasp"]: row["success"] for row in map(json.loads, (out / "grasps.jsonl").read_text().splitlines())}
    assert again == {"a.npy": False, "b.npy": True, "c.npy": True}
    (bench / "assets/hand/gripper/right_hand.xml").write_text(GRIPPER.replace('kp="200"', 'kp="100"'))
    assert main(words) == 2
    assert "hand_model" in capsys.readouterr().err


def test_a_grasp_that_cannot_be_played_is_named_and_the_others_count(bench, capsys):
    data, options = bench / "output/toy_gripper/graspdata", ["grasps=output/toy_gripper", "num_threads=1"]
    words = ["benchmark", "dexgraspbench", str(bench), *options, f"out={bench / 'run'}"]
    write_grasp(data / "good.npy", grasp())
    (data / "torn.npy").write_bytes((data / "good.npy").read_bytes()[:200])
    lost = {key: getattr(grasp(), key) for key in ("pregrasp_qpos", "grasp_qpos", "squeeze_qpos")}
    write_grasp(data / "lost.npy", Grasp(obj_path="assets/object/none", obj_scale=SIDE_M, obj_pose=AT_REST, **lost))
    assert main(words) == 0
    said = capsys.readouterr()
    assert "1 (100.0 %)" in said.out and "; 2 grasps could not be played" in said.out
    assert [line for line in said.err.splitlines() if "not played" in line] == [
        f"not played: {data / 'lost.npy'}: {bench}/assets/object/none/urdf/meshes: no .obj; expected the convex pieces "
        "of an object",
        f"not played: {data / 'torn.npy'} is damaged or no grasp file of DexGraspBench: pickle data was "
        "truncated; restore it, or give another",
    ]
    (data / "good.npy").unlink()
    assert main(words) == 2
    assert "none of 2 grasps could be played" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"scale": ...}, {"success": None}, {"dexgraspbench": ...}])
def test_a_damaged_row_is_refused_and_the_file_stays(bench, capsys, change):
    data, file = bench / "output/toy_gripper/graspdata", bench / "run/grasps.jsonl"
    words = ["benchmark", "dexgraspbench", str(bench), "grasps=output/toy_gripper", "num_threads=1"]
    write_grasp(data / "good.npy", grasp())
    assert main([*words, f"out={bench / 'run'}"]) == 0
    row = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({key: value for key, value in row.items() if value is not ...}) + "\n")
    before = file.read_bytes()
    capsys.readouterr()
    assert main([*words, f"out={bench / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert "grasps.jsonl is damaged or no list of played grasps" in error and error.count("\n") == 1
    assert file.read_bytes() == before


def test_what_is_read_is_what_was_written_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    keys = ("obj_pose", "pregrasp_qpos", "grasp_qpos", "squeeze_qpos")
    arrays = {key: rng.normal(size=7 if key == "obj_pose" else 23) for key in keys}
    for array in arrays.values():
        array[3:7] /= np.linalg.norm(array[3:7])
    one = Grasp(obj_path="assets/x", obj_scale=0.1 + 0.2, **arrays)
    write_grasp(tmp_path / "a/0.npy", one)
    again, plain = read_grasp(tmp_path / "a/0.npy"), np.load(tmp_path / "a/0.npy", allow_pickle=True).item()
    for key in keys:
        assert getattr(again, key).tobytes() == getattr(one, key).tobytes() == plain[key].tobytes()
    assert (again.obj_path, again.obj_scale) == (one.obj_path, one.obj_scale) == (plain["obj_path"], plain["obj_scale"])


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


class TooLarge:
    """Makes an array of 8 PB when it is unpickled."""

    def __reduce__(self):
        return (np.ndarray, ((10**15,), np.dtype(np.float64)))


def test_a_grasp_file_runs_no_code_and_damage_is_told(tmp_path):
    file = tmp_path / "0.npy"
    good = {key: np.append(AT_REST, 0.5) for key in ("pregrasp_qpos", "grasp_qpos", "squeeze_qpos")}
    good |= {"obj_path": "x", "obj_scale": 1.0, "obj_pose": AT_REST}
    cases = (
        (good | {"obj_path": Trap(tmp_path / "made")}, "mkdir, which is no part of an array"),
        ({key: value for key, value in good.items() if key != "grasp_qpos"}, "it lacks 'grasp_qpos'"),
        (good | {"grasp_qpos": np.arange(9.0)}, "has the shape"),
        (good | {"grasp_qpos": np.full(8, np.nan)}, "grasp_qpos must be finite"),
        (good | {"obj_pose": np.zeros(7)}, "obj_pose must be finite, with a quaternion"),
        (good | {"obj_scale": 0.0}, "obj_scale must lie in"),
        ([1, 2], "expected one dictionary"),
    )
    for value, message in cases:
        content = np.empty((), dtype=object)
        content[()] = value
        np.save(file, content)
        with pytest.raises(DamagedFileError, match=message):
            read_grasp(file)
    assert not (tmp_path / "made").exists()
    np.save(file, np.array({}, dtype=object))
    head = file.read_bytes().partition(b"\n")[0] + b"\n"
    sizes = (head + b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", head + pickle.dumps(TooLarge()))  # which no file holds
    for content in (b"", pickle.dumps(good), b"\x93NUMPY\x01\x00", *sizes):
        file.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"0\.npy is damaged or no grasp file of DexGraspBench"):
            read_grasp(file)


OFFSET_M, HALF = (0.1, -0.2, 0.3), np.sqrt(0.5)


def allegro_elsewhere(folder, moved_m=0.0):
    """Our Allegro hand at OFFSET_M, turned by 90 degrees about z, with names of a right hand, as an MJCF."""
    ours, spec = HandSpec.load("allegro"), mujoco.MjSpec()
    body = spec.worldbody.add_body(name="offset", pos=OFFSET_M, quat=[HALF, 0, 0, HALF])
    spec.attach(ours.to_mjspec(), prefix="RH_", frame=body.add_frame())
    spec.body("RH_th_base").pos[0] += moved_m
    spec.compile()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "right_hand.xml").write_text(spec.to_xml())
    return ours, folder / "right_hand.xml"


def test_frames_and_joints_of_a_hand_are_found_from_its_joints(tmp_path):
    ours, file = allegro_elsewhere(tmp_path / "allegro")
    frames = HandFrames.of(ours, file)
    assert frames.base_pos_r.numpy() == pytest.approx(OFFSET_M, abs=1e-6)
    assert frames.base_quat_r.numpy() == pytest.approx([HALF, 0, 0, HALF], abs=1e-6)
    assert frames.stiffness.tolist() == ours.kp.tolist()
    # hand base at (1, 2, 3) with the axes of the world: the root is turned by -90 degrees, which carries its
    # offset (0.1, -0.2, 0.3) to (-0.2, -0.1, 0.3)
    base = torch.tensor([1.0, 2, 3], dtype=torch.float64), torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    palm = compose(*base, torch.tensor(ours.palm_pos_b), torch.tensor(ours.palm_quat_b))
    joints = np.linspace(ours.joint_lower, ours.joint_upper, 5)[2]
    qpos = frames.qpos(*palm, joints)
    assert qpos[:7] == pytest.approx([1.2, 2.1, 2.7, HALF, 0, 0, -HALF], abs=1e-6)
    model = mujoco.MjModel.from_xml_path(str(file))
    assert [model.joint(i).name for i in range(model.njnt)] == [f"RH_{ours.joint_names[i]}" for i in frames.order]
    theirs, here = mujoco.MjData(model), mujoco.MjData(ours.model)
    theirs.qpos[:], here.qpos[:] = qpos[7:], joints
    mujoco.mj_kinematics(model, theirs)
    mujoco.mj_kinematics(ours.model, here)
    tip, turned = model.body("RH_th_distal").id, np.empty(3)
    mujoco.mju_rotVecQuat(turned, theirs.xpos[tip], qpos[3:7])
    assert turned + qpos[:3] == pytest.approx(here.xpos[ours.model.body("th_distal").id] + [1, 2, 3], abs=1e-6)


def test_another_hand_is_refused(tmp_path):
    ours, file = allegro_elsewhere(tmp_path / "allegro", moved_m=0.02)
    with pytest.raises(
        ValueError, match=r"joints lie up to \d+\.\d mm and \d degrees from those of the hand of the run"
    ):
        HandFrames.of(ours, file)
    with pytest.raises(ValueError, match=r"its joints are not those of hand=leap; they differ in \['ffj0'"):
        HandFrames.of(HandSpec.load("leap"), file)
    with pytest.raises(ValueError, match=r"side left: grasps of right hands .* can be written; it is left"):
        HandFrames.of(HandSpec.load("allegro", "left"), file)
    with pytest.raises(ValueError, match="joints ffj1, mfj1, rfj1, lfj1 have none"):
        HandFrames.of(HandSpec.load("shadow"), file)


def test_an_object_written_is_the_object_and_weighs_what_the_rule_says(bench):
    library = open_library("shipped")
    obj = library[library.names[0]]
    write_object(bench / "assets/object/dexgrasp/a", obj)
    hand = bench / "assets/hand/gripper/right_hand.xml"
    model = grasp_scene(hand, bench / "assets/object/dexgrasp/a", 1.0, SOLVERS["reference"])
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    assert model.body("object").mass == pytest.approx(0.1, rel=1e-3)
    geoms = np.flatnonzero(model.geom_bodyid == model.body("object").id)
    assert len(geoms) == len(obj.pieces)
    for geom, piece in zip(geoms, obj.pieces, strict=True):
        mesh = model.mesh(model.geom_dataid[geom])
        vertices = model.mesh_vert[mesh.vertadr[0] : mesh.vertadr[0] + mesh.vertnum[0]]
        placed = vertices @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
        assert placed.max(axis=0) == pytest.approx(piece.max(axis=0), abs=1e-5)
        assert placed.min(axis=0) == pytest.approx(piece.min(axis=0), abs=1e-5)


@pytest.mark.slow
def test_grasps_of_an_evaluation_are_written_and_most_hold_under_the_rule(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "grasps"
    _, file = allegro_elsewhere(tmp_path / "allegro")
    words = ["evaluate", "policy=allegro/student", "trials=4", "num_envs=4", f"out={run}", "attempts=1"]
    assert main(words) == 0
    won = json.loads((run / "result.json").read_text())["successes"]
    assert main(["benchmark", "grasps", str(run), f"hand_model={file}", f"out={out}"]) == 0
    assert f"output/dexgrasp_allegro: {won} grasps" in capsys.readouterr().out
    files = sorted(out.rglob("*.npy"))
    assert len(files) == won > 0
    for path in files:
        one = read_grasp(path)
        assert one.grasp_qpos[:7].tobytes() == one.squeeze_qpos[:7].tobytes() == one.pregrasp_qpos[:7].tobytes()
        assert one.obj_pose[2] > 0.1  # lifted
    words = ["benchmark", "dexgraspbench", str(out), "grasps=output/dexgrasp_allegro", f"hand={file}"]
    assert main([*words, "num_threads=1"]) == 0
    cells = capsys.readouterr().out.splitlines()[3].split()
    assert cells[:2] == ["all", str(won)]
    assert int(cells[2]) >= won / 2  # a grasp that held on the table may turn the object without gravity
