"""Damaged object libraries: each is refused in one line that names the file, or has a meaning that physics can use."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dexgrasp.sim.objects import ObjectLibrary, library, open_library, resting_poses
from dexgrasp.sim.objects.generator import ObjectRequest, build
from dexgrasp.sim.objects.model_builder import make_entry
from tests.fuzz.damaged_trees import apply, check_refusal, damages

QUIET = settings(suppress_health_check=list(HealthCheck), deadline=None, database=None, phases=[Phase.generate])
SAMPLE, MANY = settings(QUIET, max_examples=40, derandomize=True), settings(QUIET, max_examples=400)

MODEL = build(ObjectRequest("box", "train", 0, 0))
DATA = MODEL.to_bytes()
ROW = json.loads(json.dumps(asdict(make_entry(MODEL, "objects/box.npz", DATA))))
TREE = {"format": 1, "command": "none", "request": {"n": 1}, "objects": [ROW]}
with np.load(io.BytesIO(DATA)) as stored:
    ARRAYS = {key: stored[key] for key in stored.files}
META = json.loads(bytes(ARRAYS["meta"]))

NUMBERS = [0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf")]
CHANGES = {
    "gone": lambda a: None,
    "empty": lambda a: a[:0],
    "shorter": lambda a: a[:-1],
    "longer": lambda a: np.concatenate([a, a[-1:]]),
    "many": lambda a: np.concatenate([a] * 200),
    "flat": lambda a: a.ravel(),
    "deeper": lambda a: a[None],
    "transposed": lambda a: a.T,
    "complex": lambda a: a.astype(complex),
    "bytes": lambda a: a.astype(np.int8),
    "text": lambda a: a.astype(str),
    "objects": lambda a: a.astype(object),
    "turned": lambda a: a[::-1],
    "negative": lambda a: -a,
    "shifted": lambda a: (a + 1e6).astype(a.dtype),
    **{f"times {number}": (lambda a, number=number: (a * number).astype(a.dtype)) for number in NUMBERS},
    **{f"first {number}": (lambda a, number=number: _with_first(a, number)) for number in NUMBERS},
}
"""Ways in which an array may be wrong."""


def _with_first(array, number):
    found = array.copy()
    with np.errstate(all="ignore"):
        found.flat[0] = np.float64(number).astype(array.dtype)
    return found


def write(folder, tree, data=DATA):
    """Write a library whose rows state the hash of the object file, as a hostile author would."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "objects").mkdir(parents=True)
    (folder / "objects/box.npz").write_bytes(data)
    (folder / "manifest.json").write_text(tree if isinstance(tree, str) else json.dumps(tree))


def with_hash(data):
    return {**TREE, "objects": [{**ROW, "sha256": hashlib.sha256(data).hexdigest()}]}


def use(folder, file):
    """Open and use a library: whatever is accepted is an object that physics can simulate."""
    try:
        found = open_library(folder)
        models = [found[name] for name in found]
    except Exception as error:
        check_refusal(error, file)
        return
    assert models
    for model in models:
        assert 0 < model.mass <= 100 and 0 <= model.friction <= 10 and np.abs(model.vertices).max() <= 2
        assert model.faces.min() >= 0 and model.faces.max() < len(model.vertices)
        assert model.rest_prob.sum() == pytest.approx(1, abs=1e-3) and (model.rest_prob >= 0).all()
        np.testing.assert_allclose(np.linalg.norm(model.rest_quat, axis=1), 1, atol=1e-3)
        resting_poses.object_on_table(model.pieces, model.mass, model.inertia)


def zipped(arrays):
    buffer = io.BytesIO()
    with np.errstate(all="ignore"):
        np.savez(buffer, **{key: value for key, value in arrays.items() if value is not None})
    return buffer.getvalue()


def check_manifest(folder, changes):
    write(folder, apply(TREE, changes))
    use(folder, "manifest.json" if not (folder / "objects").exists() else str(folder))


def check_meta(folder, changes):
    meta = apply(META, changes)
    data = zipped({**ARRAYS, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})
    write(folder, with_hash(data), data)
    use(folder, "box.npz")


def check_array(folder, name, change):
    with np.errstate(all="ignore"):
        data = zipped({**ARRAYS, name: CHANGES[change](ARRAYS[name])})
    write(folder, with_hash(data), data)
    use(folder, "box.npz")


def check_bytes(folder, start, new, cut):
    data = bytearray(DATA[: len(DATA) - cut])
    at = start % max(len(data), 1)
    data[at : at + len(new)] = new
    write(folder, with_hash(bytes(data)), bytes(data))
    use(folder, "box.npz")


def check_text(folder, start, new, cut):
    text = json.dumps(TREE)
    text = text[: len(text) - cut % len(text)]
    at = start % max(len(text), 1)
    write(folder, text[:at] + new + text[at + len(new) :])
    use(folder, str(folder))


POSITIONS = {"start": st.integers(0, 10**6), "cut": st.integers(0, 2000)}
ARRAY_CHANGES = {"name": st.sampled_from(sorted(ARRAYS)), "change": st.sampled_from(sorted(CHANGES))}
KINDS = [
    (check_manifest, {"changes": damages(TREE)}),
    (check_meta, {"changes": damages(META)}),
    (check_array, ARRAY_CHANGES),
    (check_bytes, {**POSITIONS, "new": st.binary(max_size=40)}),
    (check_text, {**POSITIONS, "new": st.text(max_size=40)}),
]


@pytest.mark.parametrize(("check", "inputs"), KINDS, ids=lambda kind: getattr(kind, "__name__", ""))
def test_a_sample_of_damaged_libraries(tmp_path, check, inputs):
    SAMPLE(given(**inputs)(lambda **values: check(tmp_path / "lib", **values)))()


@pytest.mark.slow
@pytest.mark.parametrize(("check", "inputs"), KINDS, ids=lambda kind: getattr(kind, "__name__", ""))
def test_two_thousand_damaged_libraries(tmp_path, check, inputs):
    MANY(given(**inputs)(lambda **values: check(tmp_path / "lib", **values)))()


def row(**changes):
    return {**TREE, "objects": [{**ROW, **changes}]}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (row(file="../secret.npz"), r"manifest\.json: objects\[0\]: file must be a path inside the library"),
        (row(file="objects"), "is no regular file"),
        (row(file="objects/none.npz"), r"none\.npz is missing"),
        (row(pieces=10**9), r"'objects\[0\]\.pieces' must lie in 1\.\.24, got 1000000000"),
        (row(mass=float("nan")), r"'objects\[0\]\.mass' is no finite number"),
        (row(mass=0.5 * ROW["mass"]), r"manifest\.json: object 'box_.*': mass is .*, expected .*, as objects/box\.npz"),
        (row(pieces=ROW["pieces"] + 1), r"pieces is 2, expected 1, as objects/box\.npz has it; make the library anew"),
        (
            row(mass=90.0),
            r"manifest\.json: objects\[0\]: box_.*: mass 90 kg of .* cm\^3 is .* kg/m\^3, expected .*\.\.",
        ),
        (row(extents=[1.1 * side for side in ROW["extents"]]), r"objects\[0\]: size of box_.* is .*, expected"),
        (row(extents=sorted(ROW["extents"])), r"extents is \(.*\), expected .*, as objects/box\.npz has it"),
        (row(hull_volume=7.0), r"hull_volume of box_.* is 7 m\^3, expected at most .*: extents"),
        (row(volume=0.9 * ROW["volume"]), "volume is .*, expected .*, as objects/box"),
        (row(split="test"), "split is 'test', expected 'train', as objects/box"),
        (row(extents=[0.1]), r"'objects\[0\]\.extents' expects 3 values"),
        *[
            (row(name=name), "name must be 1 to 255 letters, digits")
            for name in ("", "a/b", "..", "../../etc", "a\\b", "-x")
        ],
        (row(name=None), r"'objects\[0\]\.name' expects str, got None"),
        (row(evil=1), r"unknown key 'objects\[0\]\.evil'"),
        (row(sha256=""), "sha256"),
        ({**TREE, "objects": [ROW, ROW]}, "occurs more than once"),
        ({**TREE, "objects": []}, "the library holds none"),
        ({**TREE, "objects": None}, "'objects' expects list of"),
        ({**TREE, "format": 2}, "format 2, this version reads 1"),
        ("[" * 100_000, "nested too deep"),
        ('{"format": 1, "objects": [', "damaged or no JSON file"),
    ],
    ids=range(29),
)
def test_a_wrong_manifest_is_refused_by_file_and_key(tmp_path, tree, said):
    write(tmp_path / "lib", tree)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        found = open_library(tmp_path / "lib")
        [found[name] for name in found]


BAD_HASHES = ["", "0" * 63, "0" * 65, "g" * 64, " " * 64, "0x" + "0" * 62, ROW["sha256"].upper(), ROW["sha256"] + " "]


@pytest.mark.parametrize("stated", [*BAD_HASHES, "0" * 64, None, 0, [], [ROW["sha256"]]], ids=str)
def test_a_hash_that_is_none_is_refused_wherever_a_library_states_one(tmp_path, stated):
    for tree in (row(sha256=stated), {**TREE, "objects": [ROW, {**ROW, "name": "other", "sha256": stated}]}):
        write(tmp_path / "lib", tree)
        with pytest.raises(ValueError, match=r"manifest\.json: .*sha256|box\.npz: contents differ from the .* sha256"):
            found = open_library(tmp_path / "lib")
            found["other" if "other" in found else ROW["name"]]


def _turned(inertia):
    """Return an inertia with its principal axes turned by 30 degrees about x and y."""
    c, s = np.sqrt(3) / 2, 0.5
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return turn @ inertia @ turn.T


def _moved(keys):
    return {key: lambda a: (a + np.array([0.2, 0, 0])).astype(a.dtype) for key in keys}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"inertia": lambda i: 1000 * i},
            r"box\.npz \(object .*\) is damaged: inertia has the principal moments .* expected",
        ),
        ({"inertia": lambda i: i / 3}, "inertia has the principal moments .*those of a uniform body"),
        ({"inertia": lambda i: np.diag([1.0, 1.0, 3.0]) * i.max()}, "none above the sum of the others"),
        ({"inertia": lambda i: -i}, "principal moments positive"),
        ({"inertia": _turned}, "inertia is turned against the mesh: it is .*, expected"),
        (_moved(["vertices", "pieces", "points"]), "have their centre of mass at 0.2, .* m, expected at the origin"),
        (_moved(["pieces"]), "pieces reach .* m in the direction .*, expected the mesh's"),
        ({"pieces": lambda p: p / 2}, "pieces reach .* m in the direction .*, expected the mesh's"),
        ({"pieces": lambda p: p[..., [1, 2, 0]]}, "pieces reach .* m in the direction .*, expected the mesh's"),
        ({"points": lambda p: 2 * p}, "points reach .* m in the direction .*, expected the mesh's"),
        ({"points": lambda p: p[:, [2, 0, 1]]}, "points reach .* m|normals: .* of 1024 samples lie in no face"),
        ({"points": lambda p: 0.9 * p}, "normals: .* of 1024 samples lie in no face with this outward normal"),
        ({"normals": lambda n: -n}, "normals: 1024 of 1024 samples lie in no face with this outward normal"),
        ({"normals": lambda n: np.where(np.arange(1024)[:, None] == 7, -n, n)}, "normals: 1 of 1024 samples"),
        ({"normals": lambda n: n[:, [1, 2, 0]]}, "normals: .* of 1024 samples lie in no face"),
        ({"normals": lambda n: n[::-1]}, "normals: .* of 1024 samples lie in no face"),
        ({"normals": lambda n: 1.05 * n}, "normals must have length 1"),
        ({"vertices": lambda v: 1.1 * v}, "inertia has the principal moments"),
        ({"faces": lambda f: f[:, ::-1]}, "faces enclose a volume of -.* m.3, expected a closed mesh"),
        ({"rest_height": lambda h: h + 0.05}, r"rest_height is .* m, expected .* within 0\.0001"),
        ({"meta": {"mass": 90.0}}, "mass 90 kg of .* expected"),
        ({"meta": {"mass": -0.1}}, "mass"),
        ({"meta": {"mass": 1e-5}}, "mass 1e-05 kg of .* expected"),
    ],
    ids=range(23),
)
def test_impossible_physics_is_refused_though_all_hashes_are_right(tmp_path, changes, said):
    changes = dict(changes)
    meta = {**META, **changes.pop("meta", {})}
    arrays = {**ARRAYS, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    arrays |= {key: np.ascontiguousarray(change(arrays[key]), arrays[key].dtype) for key, change in changes.items()}
    data = zipped(arrays)
    write(tmp_path / "lib", with_hash(data), data)
    with pytest.raises(ValueError, match=said) as refusal:
        open_library(tmp_path / "lib")[ROW["name"]]
    assert "box.npz" in str(refusal.value) and ROW["name"] in str(refusal.value)


def entry(array, version=(1, 0), order="C", byte_order="="):
    """The bytes of an .npy entry of a version of the format, order of axes and byte order."""
    body = io.BytesIO()
    values = np.asarray(array, array.dtype.newbyteorder(byte_order), order=order)
    np.lib.format.write_array(body, values, version)
    return body.getvalue()


WRITTEN = {
    "version 2": {"version": (2, 0)},
    "version 3": {"version": (3, 0)},
    "Fortran order": {"order": "F"},
    "big-endian": {"byte_order": ">"},
    "all of them": {"version": (3, 0), "order": "F", "byte_order": ">"},
}


def packed(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", WRITTEN)
def test_an_array_means_what_its_header_says(kind):
    data = packed({f"{key}.npy": entry(array, **WRITTEN[kind]) for key, array in ARRAYS.items()})
    read, expected = library.ObjectModel.from_bytes(data), MODEL
    for key in library._ARRAYS:
        np.testing.assert_array_equal(getattr(read, key), getattr(expected, key))
        assert getattr(read, key).dtype.isnative and getattr(read, key).flags.c_contiguous


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"normals.npy": entry(ARRAYS["normals"].astype(object))}, "expected numbers or truth values, got object"),
        ({"normals.npy": entry(ARRAYS["normals"].astype("U4"))}, "expected numbers or truth values, got <U4"),
        ({"normals.npy": entry(ARRAYS["normals"].astype(complex))}, "expected numbers or truth values, got complex"),
        ({"normals.npy": entry(np.zeros(1024, [("x", "<f4", 3)]))}, "expected numbers or truth values, got "),
        ({"normals.npy": entry(ARRAYS["normals"].astype("m8[s]"))}, "expected numbers or truth values, got timedelta"),
        ({"normals.npy": entry(ARRAYS["normals"].astype(float))}, "normals must be float32, got float64"),
        ({"faces.npy": entry(ARRAYS["faces"].astype(np.uint32))}, "faces must be int32, got uint32"),
        ({"normals.npy": entry(ARRAYS["normals"])[:-1]}, "12287 bytes of values, its header states float32"),
        ({"normals.npy": entry(ARRAYS["normals"]) + b"0"}, "12289 bytes of values, its header states float32"),
        ({"normals.npy": b"\x93NUMPY\x04\x00" + entry(ARRAYS["normals"])[8:]}, "version .4, 0. of the format"),
        ({"normals.NPY": entry(ARRAYS["normals"])}, "entry 'normals.NPY' is no .npy array"),
        ({"more.npy": entry(ARRAYS["normals"])}, "expected the arrays vertices, .*, meta, got"),
    ],
)
def test_an_array_of_another_kind_is_refused_with_what_is_expected(entries, said):
    whole = {f"{key}.npy": entry(array) for key, array in ARRAYS.items()}
    with pytest.raises(ValueError, match=f"object file is damaged: .*{said}"):
        library.ObjectModel.from_bytes(packed(whole | entries))


def test_links_out_pipes_and_absolute_paths_are_not_opened(tmp_path):
    (tmp_path / "secret.npz").write_bytes(DATA)
    for case in ("link", "pipe", "absolute", "folder link"):
        lib = tmp_path / case
        write(lib, row(file=str(tmp_path / "secret.npz")) if case == "absolute" else TREE)
        file = lib / "objects/box.npz"
        file.unlink()
        if case == "link":
            file.symlink_to(tmp_path / "secret.npz")
        elif case == "pipe":
            os.mkfifo(file)
        elif case == "folder link":
            (tmp_path / "box.npz").write_bytes(DATA)
            (lib / "objects").rmdir()
            (lib / "objects").symlink_to(tmp_path)
        with pytest.raises(ValueError, match=r"leads out of|no regular file|inside the library"):
            ObjectLibrary(lib)["box_train_s0_00000"]


def test_headers_that_promise_more_than_the_file_holds_cost_no_memory(tmp_path, monkeypatch):
    """A header of 10^15 numbers, and a member of 30 MB that deflates to 30 kB."""
    monkeypatch.setattr(library, "MAX_FILE_BYTES", 10_000_000)
    for case in ("header", "bomb"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(DATA)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "vertices.npy" and case == "header":
                    content = content.replace(str(ARRAYS["vertices"].shape).encode(), b"(999999999999999, 3)", 1)
                if name == "vertices.npy" and case == "bomb":
                    content += bytes(30_000_000)
                new.writestr(name, content)
        data = buffer.getvalue()
        write(tmp_path / "lib", with_hash(data), data)
        with pytest.raises(
            ValueError, match=r"box\.npz \(object .*\) is damaged: .*(at most 10000000|reshape|header|magic|size)"
        ):
            ObjectLibrary(tmp_path / "lib")["box_train_s0_00000"]
