"""Away from a grasp that took hold of nothing: up, the fingers opening, aside to look, then to where the next begins.

 via ----> look ----> next pre-grasp      each way rises first, then goes across
  ^
grasp
"""

import torch
from torch import Tensor

from perception.geometry import quat_conjugate, quat_from_rotvec, quat_multiply, quat_rotate, rotvec_from_quat
from perception.pregrasp import Pregrasp
from perception.tried import Tried
from sim.actions import HandControl

PALM_M_S, PALM_RAD_S = 0.3, 1.5
"""Mean speeds of the palm on its way; a UR5e turns twice as fast."""
OPEN_S = 0.4
"""The fingers have at least so long before the palm moves across."""
ASIDE_M, ABOVE_M = 0.25, 0.3
"""The palm goes so far back, against the fingers' direction, and so high over the table, to let the camera see."""
REST_S = 0.2
"""The palm rests so long at the end of each way."""


class Retreat:
    """The ways of all palms."""

    def __init__(self, num_envs: int, joints: int, step_s: float, device: torch.device | str = "cpu") -> None:
        self._step_s = step_s

        def zeros(*size: int) -> Tensor:
            return torch.zeros(num_envs, *size, dtype=torch.float64, device=device)

        self._from_pos_w, self._from_quat_w = zeros(3), zeros(4)
        self._to_pos_w, self._to_quat_w, self._fingers = zeros(3), zeros(4), zeros(joints)
        self._up_steps, self._across_steps, self._steps = zeros(), zeros(), zeros()
        self.under_way = False
        """Whether any palm may be on its way; a GPU is not asked."""
        self.looks = zeros().bool()
        """(env,) the way leads aside, for the camera to see; else to a pre-grasp."""
        self.tried = Tried(num_envs, device)
        """Grasps that were begun in each trial."""

    def begin(self, rows: Tensor, plan: Pregrasp) -> None:
        """The trials of `rows` begin, with their first grasps."""
        self.tried.forget(rows)
        self.tried.add(rows, plan.mark)

    def aside(self, rows: Tensor, control: HandControl) -> Tensor:
        """The palms of `rows` set out from their targets to where they are in nobody's way; control steps (row,)."""
        course = control.course
        pos, quat = course.palm_pos_w[rows], course.palm_quat_w[rows]
        back = -quat_rotate(quat, quat.new_tensor([0.0, 0.0, 1.0]))[:, :2]
        away = ASIDE_M * back / back.norm(dim=1, keepdim=True).clamp(min=1e-9)
        goal = torch.nn.functional.pad(pos[:, :2] + away, (0, 1), value=ABOVE_M)
        self.looks[rows] = self.under_way = True
        self._set_out(rows, control, goal, quat, control.style.open_pose[rows])
        return self._steps[rows].long()

    def on(self, rows: Tensor, control: HandControl, plan: Pregrasp) -> Tensor:
        """The palms of `rows` go on to their next pre-grasps; control steps (row,)."""
        self.tried.add(rows, plan.mark)
        self.looks[rows] = False
        self._set_out(rows, control, plan.palm_pos_w, plan.palm_quat_w, plan.style.open_pose)
        return self._steps[rows].long()

    def steer(
        self, control: HandControl, clock: Tensor, targets: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`targets` of `control`, but for the palms on their way, whose `clock` (env,) counts up to zero."""
        if not self.under_way:
            return targets
        rows = (clock < 0).nonzero().squeeze(1)
        step = self._steps[rows] + clock[rows] + 1  # the first is 1
        up = (step / self._up_steps[rows]).clamp(max=1.0)[:, None]
        across = ((step - self._up_steps[rows]) / self._across_steps[rows]).clamp(0.0, 1.0)[:, None]
        pos = torch.lerp(self._from_pos_w[rows], self._via(rows), up)
        pos = torch.lerp(pos, self._to_pos_w[rows], across)
        quat = quat_multiply(self._from_quat_w[rows], quat_from_rotvec(across * self._turn(rows)))
        control.steer(rows, pos, quat)
        return targets[0].index_copy(0, rows, self._fingers[rows]), control.palm_pos_w, control.palm_quat_w

    def _set_out(self, rows: Tensor, control: HandControl, pos_w: Tensor, quat_w: Tensor, fingers: Tensor) -> None:
        self._from_pos_w[rows], self._from_quat_w[rows] = control.palm_pos_w[rows], control.palm_quat_w[rows]
        self._to_pos_w[rows], self._to_quat_w[rows], self._fingers[rows] = pos_w, quat_w, fingers
        via = self._via(rows)
        up_s = ((via - self._from_pos_w[rows])[:, 2] / PALM_M_S).clamp(min=OPEN_S)
        across_s = torch.maximum((pos_w - via).norm(dim=1) / PALM_M_S, self._turn(rows).norm(dim=1) / PALM_RAD_S)
        self._up_steps[rows] = (up_s / self._step_s).ceil()
        self._across_steps[rows] = (across_s / self._step_s).ceil().clamp(min=1.0)
        self._steps[rows] = self._up_steps[rows] + self._across_steps[rows] + round(REST_S / self._step_s)

    def _via(self, rows: Tensor) -> Tensor:
        """Above the start (row, 3), as high as the higher end."""
        start, end = self._from_pos_w[rows], self._to_pos_w[rows]
        return torch.cat([start[:, :2], torch.maximum(start, end)[:, 2:]], dim=1)

    def _turn(self, rows: Tensor) -> Tensor:
        """From the first orientation to the last: rotation vector (row, 3) in the palm frame."""
        return rotvec_from_quat(quat_multiply(quat_conjugate(self._from_quat_w[rows]), self._to_quat_w[rows]))
