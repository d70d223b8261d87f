"""Contacts as the engine reports them, against a sum over MuJoCo's own contacts."""

import mujoco
import numpy as np
import pytest
import torch

from dexgrasp.sim.engine.base import InitialState, PhysicsVariation
from dexgrasp.sim.task.grasp_task import GraspTask, TaskCfg

EXACT = 1e-9
"""The same sums in another order, forces up to 100 N."""


@pytest.fixture(scope="module")
def gripping(allegro, household, balanced):
    """An engine whose hands touch objects and table, reset to the end of a scripted grasp: contacts of that instant."""
    task = GraspTask(TaskCfg(), allegro, household, balanced, 4, num_threads=1, in_order=True, auto_reset=False)
    task.reset([0, 1, 2, 3])
    for _ in range(40):
        task.step(torch.zeros(4, task.num_actions))
    state = task.engine.state
    names = ("object_pos_w", "object_quat_w", "palm_pos_w", "palm_quat_w", "joint_pos")
    poses = {name: getattr(state, name).clone() for name in names}
    poses["object_pos_w"][0, 0] += 0.3  # the first hand has nothing but the table, in which a fingertip sinks
    poses["palm_pos_w"][0, 2] -= state.keypoints_w[0, :, 2].min()
    task.engine.reset(
        torch.arange(4), InitialState(objects=task.objects, variation=PhysicsVariation.none(4, 16), **poses)
    )
    return task.engine


def contacts(engine, row):
    """Per hand body: number of contacts and force on the object and on the table, and the deepest penetration."""
    model, data = engine.get_model(row), engine.get_data(row)
    count, force, deepest = {}, {}, 0.0
    for i, contact in enumerate(data.contact[: data.ncon]):
        bodies = [model.body(model.geom(geom).bodyid[0]).name for geom in contact.geom]
        for other in ("object", "world"):
            if other not in bodies or bodies == ["world", "object"]:
                continue
            hand = bodies[1 - bodies.index(other)]
            wrench = np.zeros(6)
            mujoco.mj_contactForce(model, data, i, wrench)  # on the second body, in the contact frame
            on_second = contact.frame.reshape(3, 3).T @ wrench[:3]
            key = hand, other
            count[key] = count.get(key, 0) + 1
            force[key] = force.get(key, np.zeros(3)) + (on_second if bodies[1] == other else -on_second)
            if other == "object":
                deepest = max(deepest, -contact.dist)
    return count, force, deepest


def test_contacts_forces_and_penetration_are_those_of_mujocos_contacts(gripping, allegro):
    state, touched = gripping.state, {"object": 0, "world": 0}
    for row in range(4):
        count, force, deepest = contacts(gripping, row)
        assert float(state.penetration_m[row]) == pytest.approx(deepest, abs=EXACT)
        for i, body in enumerate(allegro.contact_bodies):
            for other, flag, net in (
                ("object", state.object_contact, state.object_force_w),
                ("world", state.table_contact, state.table_force_w),
            ):
                assert bool(flag[row, i]) == ((body, other) in count)
                np.testing.assert_allclose(net[row, i], force.get((body, other), np.zeros(3)), atol=EXACT)
                touched[other] += (body, other) in count
    assert touched["object"] >= 6
    assert touched["world"] >= 1


def test_the_hand_presses_the_table_down(gripping):
    pressed = gripping.state.table_force_w[gripping.state.table_force_w.norm(dim=-1) > 0.1]
    assert len(pressed) > 0
    assert (pressed[:, 2] < 0).all()
