"""Random numbers that are drawn row by row on the host and used on the task's device."""

import torch
from torch import Tensor


class Drawn:
    """A tensor in two places; on the CPU, where both are one, nothing is ever copied."""

    def __init__(self, host: Tensor, device: torch.device | str) -> None:
        self.host = host
        """(env, ...) where draws are written."""
        self.there = host.to(device)
        """The same on the device, as of the last `send`."""

    def send(self, rows: Tensor) -> None:
        """Take over what was drawn for `rows` (row,), which lie on the device."""
        if self.there is not self.host and len(self.host):
            self.there[rows] = self.host[rows.cpu()].to(self.there.device)
