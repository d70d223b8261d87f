"""Damage files: bytes, values of YAML and JSON trees, parts of archives."""

import json
import math
import zipfile
from pathlib import Path

import torch
import yaml
from hypothesis import strategies as st

from dexgrasp.utils.tensor_archive import HEADER, TENSORS, read_archive, write_archive
from tests.fuzz.damaged_trees import apply, damages

CONTENTS = (
    *(
        b"",
        b"\x00",
        b"\x00" * 4096,
        b"\n",
        b"\t",
        b"x",
        b"null",
        b"[]",
        b"{}",
        b"[1]",
        b"5",
        b"- a\n- b",
        b"a: [1",
        b"a:\n\tb: 1",
    ),
    *(b"\xff\xfe\x00", b"\xef\xbb\xbfa: 1", b"{" * 50_000, b"[" * 100_000, b"a: !!python/object/apply:os.system [x]"),
    *(
        b"a: &a [*a]",
        b"a: !foo 1",
        b"? [1]\n: 2",
        b"1: 2",
        b"a: 1\na: 2",
        b'{"a": 1, "a": 2}',
        b"PK\x03\x04",
        b"PK\x05\x06" + b"\x00" * 18,
    ),
    b"a: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(8)),
)
"""Whole files that hold something else."""


def damaged_trees(tree):
    """Return a strategy of copies of a tree in which one to three values are replaced, removed or added."""
    return damages(tree, most=3).map(lambda changes: apply(tree, changes))


def damaged_bytes(content: bytes):
    """Return a strategy of other contents of a file: cut, with other bytes, or something else."""
    size = len(content)
    cut = st.integers(0, max(size - 1, 0)).map(lambda end: content[:end])
    changes = st.lists(st.tuples(st.integers(0, max(size - 1, 0)), st.integers(0, 255)), min_size=1, max_size=8)
    return st.one_of(
        cut, changes.map(lambda found: _with_bytes(content, found)), st.sampled_from(CONTENTS), st.binary(max_size=200)
    )


def _with_bytes(content: bytes, changes):
    changed = bytearray(content)
    for place, value in changes:
        if place < len(changed):
            changed[place] = value
    return bytes(changed)


def damaged_yaml(path: Path):
    """Return a strategy of contents of a damaged YAML file."""
    content = path.read_bytes()
    trees = damaged_trees(yaml.safe_load(content)).map(lambda tree: yaml.safe_dump(tree, sort_keys=False).encode())
    return st.one_of(trees, trees, damaged_bytes(content))


def damaged_json(path: Path):
    """Return a strategy of contents of a damaged JSON file."""
    content = path.read_bytes()
    trees = damaged_trees(json.loads(content)).map(lambda tree: json.dumps(tree).encode())
    return st.one_of(trees, trees, damaged_bytes(content))


def damaged_lines(path: Path):
    """Return a strategy of contents of a damaged file with one JSON object per line."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = damaged_trees(rows).map(lambda found: "".join(json.dumps(row) + "\n" for row in found).encode())
    return st.one_of(lines, lines, damaged_bytes(path.read_bytes()))


class Archive(bytes):
    """Content of a checkpoint, which is too long to be shown with a failing case."""

    def __repr__(self):
        return f"<archive of {len(self)} bytes>"


def damaged_checkpoints(path: Path, folder: Path):
    """Return a strategy of contents of a damaged checkpoint: its bytes, an entry, a value of its header, a tensor."""
    return _damaged_checkpoints(path, folder).map(Archive)


@st.composite
def _damaged_checkpoints(draw, path: Path, folder: Path):
    content = path.read_bytes()
    way = draw(st.sampled_from(["bytes", "header", "header", "header", "tensors", "tensors", "entry"]))
    if way == "bytes":
        return draw(damaged_bytes(content))
    made = folder / "repacked.zip"
    if way == "entry":
        name = draw(st.sampled_from([HEADER, TENSORS]))
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
            for entry in old.namelist():
                new.writestr(entry, draw(damaged_bytes(old.read(entry))) if entry == name else old.read(entry))
        return made.read_bytes()
    header, tensors = read_archive(path)
    if way == "header":
        write_archive(made, draw(damaged_trees(header)), tensors)
        return made.read_bytes()
    name = draw(st.sampled_from(sorted(tensors)))
    change = draw(st.sampled_from(["remove", "nan", "inf", "shape", "type", "huge", "add"]))
    _damage_tensor(tensors, name, change)
    write_archive(made, header, tensors)
    return made.read_bytes()


def _damage_tensor(tensors, name, change):
    value = tensors[name]
    if change == "remove":
        del tensors[name]
    elif change == "add":
        tensors["policy/unknown"] = value
    elif change == "type":
        tensors[name] = value.double() if value.dtype != torch.float64 else value.float()
    elif change == "shape":
        tensors[name] = value.reshape(-1)[:1]
    else:
        filled = {"nan": math.nan, "inf": math.inf, "huge": 1e30}[change]
        tensors[name] = torch.full_like(value, filled) if value.is_floating_point() else value
