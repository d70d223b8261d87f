"""A reward term and a task of your own; `plugins=examples/upright_grasp.py` registers them for any command."""

from collections.abc import Mapping

import torch
from torch import Tensor

import dexgrasp
from dexgrasp.perception.observations import Layout, Term
from dexgrasp.sim.task import GraspTask
from dexgrasp.sim.task.rewards import RewardContext


def up_axis(object_quat_w: Tensor) -> Tensor:
    """Return the z axis (env, 3) of objects with orientations (env, 4) wxyz, world frame."""
    w, x, y, z = object_quat_w.unbind(-1)
    return torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], dim=-1)


def upright(context: RewardContext) -> Tensor:
    """Return the cosine of the angle (env,) between the object's z axis and the vertical, from the lift on."""
    return ~context.phases.grasping * up_axis(context.state.object_quat_w)[:, 2]


class UprightGrasp(GraspTask):
    """Grasp whose teacher also observes the object's z axis, and whose objects start in the right half of the table."""

    def make_layouts(self) -> dict[str, Layout]:
        """Return the layouts of the observation groups, with the added term at the end of the teacher's."""
        layouts = super().make_layouts()
        return layouts | {"teacher": Layout((*layouts["teacher"].terms, Term("object_up", 3, "1")))}

    def observation_terms(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the values of the terms, with the object's z axis in the world frame."""
        terms = super().observation_terms()
        return terms | {"teacher": {**terms["teacher"], "object_up": up_axis(self.engine.state.object_quat_w)}}

    def reset_scene(self, rows: Tensor) -> None:
        """Move the drawn object positions to y < 0, then place objects and hands."""
        self.draws.object_xy[rows, 1] = -self.draws.object_xy[rows, 1].abs()
        super().reset_scene(rows)


dexgrasp.register_reward("upright", upright)
dexgrasp.register_task("UprightGrasp", UprightGrasp)
