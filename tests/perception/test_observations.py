"""Observation vectors: assembled from named values, in the order of their layout."""

import pytest
import torch

from dexgrasp.perception.observations import Layout, Term, student_layout
from dexgrasp.sim.task.observations import teacher_layout

LAYOUT = Layout((Term("speed", 2, "m/s", 10.0), Term("touching", 1, "1"), Term("vectors", 6, "m")))


def values():
    return {
        "speed": torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64),
        "touching": torch.tensor([True, False]),
        "vectors": torch.arange(12.0).reshape(2, 2, 3),
    }


def test_terms_stand_in_order_scaled_and_flattened():
    want = torch.tensor([[10.0, 20.0, 1.0, 0, 1, 2, 3, 4, 5], [30.0, 40.0, 0.0, 6, 7, 8, 9, 10, 11]])
    assert torch.equal(LAYOUT.assemble(values()), want)


def test_the_vector_is_float32_and_shares_no_memory_with_its_values():
    given = values()
    vector = LAYOUT.assemble(given)
    given["vectors"] += 100.0
    assert vector.dtype == torch.float32
    assert vector[0, 3] == 0.0


def test_slices_cover_the_vector_without_gaps():
    assert LAYOUT.slices() == {"speed": slice(0, 2), "touching": slice(2, 3), "vectors": slice(3, 9)}
    assert LAYOUT.size == 9


def test_values_that_no_term_asks_for_are_left_out():
    assert LAYOUT.assemble(values() | {"secret": torch.ones(2, 50)}).shape == (2, 9)


def test_a_missing_value_is_named_with_those_given():
    given = values()
    del given["touching"]
    with pytest.raises(KeyError, match=r"\['touching'\].*given: \['speed', 'vectors'\]"):
        LAYOUT.assemble(given)


def test_a_value_of_the_wrong_size_is_named_with_unit_and_shape():
    with pytest.raises(ValueError, match=r"'speed': expected 2 values \[m/s\].*\(2, 3\)"):
        LAYOUT.assemble(values() | {"speed": torch.zeros(2, 3)})


@pytest.mark.parametrize("layout", [student_layout(16, 17, 22), teacher_layout(16, 17, 22, 13)])
def test_term_names_are_unique_and_the_slices_end_at_the_size(layout):
    assert len({term.name for term in layout.terms}) == len(layout.terms)
    assert max(part.stop for part in layout.slices().values()) == layout.size


def test_the_teacher_knows_all_that_the_student_knows_but_the_camera_view():
    student = {term.name: term for term in student_layout(16, 17, 22).terms}
    teacher = {term.name: term for term in teacher_layout(16, 17, 22, 13).terms}
    assert set(student) - set(teacher) == {"visible_vectors", "history"}
    assert all(teacher[name] == term for name, term in student.items() if name in teacher)


def test_the_student_has_no_privileged_term():
    privileged = {"contact", "contact_force", "object_vectors", "object_linvel", "object_mass", "object_friction"}
    assert privileged.isdisjoint(term.name for term in student_layout(16, 17, 22).terms)
