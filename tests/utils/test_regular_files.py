"""A pipe in place of a file is refused in one line: reading it would never end."""

import os
import shutil

import pytest

from dexgrasp import assets
from dexgrasp.perception.cameras.open import read_intrinsics
from dexgrasp.policies.evaluation.trial_store import JsonLinesStore
from dexgrasp.policies.input_identity import policy_sha256
from dexgrasp.utils.readers import read_json, read_yaml


def bundle_hash(path):
    """Hash a bundle whose graph is the pipe at `path`."""
    shutil.copytree(
        assets.path("policies/allegro/student/bundle"), path.parent, dirs_exist_ok=True, ignore=lambda *_: [path.name]
    )
    return policy_sha256(str(path.parent))


READS = {
    "camera.json": read_intrinsics,
    "trials.jsonl": lambda path: JsonLinesStore(path).read(),
    "policy.onnx": bundle_hash,
    "run.json": read_json,
    "config.yaml": read_yaml,
}


@pytest.mark.parametrize("name", READS)
def test_a_pipe_is_refused(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is no regular file"):
        READS[name](tmp_path / name)
