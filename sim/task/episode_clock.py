"""Control steps of each episode, on the task's device and on the host."""

import torch
from torch import Tensor


class EpisodeClock:
    """Counts control steps on the device for arithmetic, and on the host for decisions without a wait.

    The host knows the counts, because it sets them at resets and adds 1 per step. On the CPU both are one tensor.
    """

    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        self.since_reset = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """(env,) control steps since the reset."""
        self.since_pregrasp = torch.zeros_like(self.since_reset)
        """(env,) control steps since the palm was at its latest pre-grasp; negative while it moves there."""
        self.host_since_reset, self.host_since_pregrasp = (
            counts if counts.device.type == "cpu" else torch.zeros(num_envs, dtype=torch.int64)
            for counts in (self.since_reset, self.since_pregrasp)
        )
        """`since_reset` and `since_pregrasp` on the host."""

    def tick(self) -> None:
        """Count a control step."""
        self.since_reset += 1
        self.since_pregrasp += 1
        if self.host_since_reset is not self.since_reset:
            self.host_since_reset += 1
            self.host_since_pregrasp += 1

    def reset(self, rows: Tensor) -> None:
        """Set the counts of new episodes in `rows` to zero."""
        self.since_reset[rows] = self.since_pregrasp[rows] = 0
        host_rows = rows.cpu()
        self.host_since_reset[host_rows] = self.host_since_pregrasp[host_rows] = 0

    def set_since_pregrasp(self, rows: Tensor, steps: Tensor | int) -> None:
        """Set the steps since the pre-grasp in `rows`; waits for the device."""
        self.since_pregrasp[rows] = steps
        self.host_since_pregrasp[rows.cpu()] = steps.cpu() if isinstance(steps, Tensor) else steps
