"""The default objects: built when they are used, and equal to those that `generate` writes, in rows and bytes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexgrasp.policies.training.callbacks import sampling_weights
from dexgrasp.sim.objects import generator, open_library
from dexgrasp.sim.objects.generated_library import shipped_rows
from dexgrasp.sim.objects.generator import ObjectRequest
from dexgrasp.sim.objects.library import ObjectLibrary
from dexgrasp.sim.objects.model_builder import make_entry
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("DEXGRASP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/objects"


def test_opening_the_default_libraries_builds_nothing(cache):
    training, validation = open_library("generated:1440"), open_library("generated:216:validation")
    assert (len(training), len(validation)) == (1440, 216)
    assert {entry.split for entry in training.entries} == {"train"}
    assert {entry.split for entry in validation.entries} == {"validation"}
    assert not list(cache.rglob("*.npz"))


@pytest.mark.parametrize(("split", "count"), [("train", 1440), ("validation", 216)])
def test_rows_and_bytes_are_those_that_the_generator_makes(split, count, cache):
    """The first and the last object, and one after the families have started again."""
    library, families = open_library(f"generated:{count}:{split}"), generator.checked_families(None)
    for k in (0, 40, count - 1):
        model = generator.build(ObjectRequest(families[k % len(families)], split, 0, k))
        row = library.entries[k]
        assert replace(make_entry(model, row.file, model.to_bytes()), sha256="") == row
        assert library[row.name].to_bytes() == model.to_bytes()
    assert len(list(cache.rglob("*.npz"))) == 3


def test_the_rows_of_a_smaller_library_are_the_first_ones(cache):
    assert open_library("generated:10").names == open_library("generated:1440").names[:10]
    assert np.isclose(sum(sampling_weights(shipped_rows("train"))), 1.0)


def test_a_complete_library_in_the_cache_is_used_as_it_is(cache):
    made = generator.generate(3, cache / f"generated-v{generator.VERSION}-train-s0-n3", workers=1, progress=False)
    found = open_library("generated:3")
    assert type(found) is ObjectLibrary and found.entries == made.entries


def test_a_part_holds_its_objects_without_the_folder(cache):
    library = open_library("generated:40")
    part = library.part(library.names[:2])
    for file in cache.rglob("*.npz"):
        file.unlink()
    assert part[library.names[1]].name == library.names[1]
    assert part.most_pieces == library.most_pieces


def test_episodes_are_those_of_the_complete_library(cache, tmp_path, balanced, allegro):
    """Objects are drawn at random from all forty, and only the drawn ones are built."""
    cfg = TaskCfg(grasp_s=0.2, lift_s=0.1, hold_s=0.1)
    whole = generator.generate(40, tmp_path / "whole", workers=1, progress=False)
    assert whole.most_pieces == open_library("generated:40").most_pieces
    tasks = [
        GraspTask(cfg, allegro, library, balanced, num_envs=3, num_threads=1, seed=4)
        for library in (whole, open_library("generated:40"))
    ]
    for task in tasks:
        task.reset()
    for _ in range(4):
        a, b = (task.step(torch.zeros(3, task.num_actions)) for task in tasks)
        assert torch.equal(a.obs["teacher"], b.obs["teacher"]) and torch.equal(a.reward, b.reward)
    assert tasks[0].objects == tasks[1].objects
    built = {file.stem for file in cache.rglob("*.npz")}
    assert set(tasks[1].objects) <= built and len(built) <= 4 + 3
