"""Rows of a batch that something happens to, chosen without a question to a GPU.

How many entries of a mask are true is known at once on the CPU; for a GPU the host would have to wait. What the host
knows (clocks of the episodes) gives rows by `rows_of`. What only the device knows gives `Rows`: on the CPU the true
rows alone, on a GPU all rows, with a mask of those that count.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


def rows_of(mask: Tensor, device: torch.device) -> Tensor | None:
    """Return the numbers (row,), on `device`, of the true entries of a mask (env,) on the host.

    None where no entry is true.
    """
    if not mask.any():
        return None
    if mask.all():
        return torch.arange(len(mask), device=device)
    return mask.nonzero().squeeze(1).to(device)


def where_rows(mask: Tensor, value: Tensor, otherwise: Tensor) -> Tensor:
    """Return the rows (row, ...) of `value` where the mask (row,) is true, those of `otherwise` elsewhere."""
    return torch.where(mask.view(-1, *[1] * (otherwise.dim() - 1)), value, otherwise)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows for which something is computed, and which of the results count."""

    index: Tensor
    """(row,) int64."""
    counted: Tensor | None
    """(row,) bool: the others are computed in vain; None: all count."""

    @classmethod
    def where(cls, mask: Tensor) -> "Rows":
        """Return the rows of a mask (env,): the true ones on the CPU; all on a GPU, with the mask."""
        if mask.device.type == "cpu":
            return cls(mask.nonzero().squeeze(1), None)
        return cls(torch.arange(len(mask), device=mask.device), mask)

    def __len__(self) -> int:
        return len(self.index)

    def of(self, numbers: Tensor) -> "Rows":
        """Return these rows in another numbering: row i has number `numbers` (env,)[i]."""
        return Rows(numbers[self.index], self.counted)

    def write(self, target: Tensor, value: Tensor, where: Tensor | None = None) -> None:
        """Set the counted rows of `target` to `value` (row, ...), only where the mask `where` (row,) is true."""
        masks = [mask for mask in (self.counted, where) if mask is not None]
        if masks:
            both = masks[0] if len(masks) == 1 else masks[0] & masks[1]
            value = where_rows(both, value, target[self.index])
        target[self.index] = value
