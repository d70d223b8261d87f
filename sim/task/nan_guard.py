"""Guard against non-finite physics: counts failed episodes and dumps the first one for replay."""

import json
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

REASONS = ("not_finite", "left_workspace")
"""Reasons for which an episode ends early."""


class NanGuard:
    """Records the actions of the running episodes, so that a failed one can be replayed."""

    def __init__(self, num_envs: int, episode_steps: int, num_actions: int, device: torch.device | str = "cpu") -> None:
        self._counts = torch.zeros(len(REASONS), dtype=torch.int64, device=device)
        self.dump_dir: Path | None = None
        """Folder of the dump; None writes none."""
        self._actions = torch.zeros(num_envs, episode_steps, num_actions, device=device)
        self._ended = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._dumped = False
        self.broken_at = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """(env,) control steps of the running episode until its physics failed; 0: it did not."""

    def reset(self, rows: Tensor) -> None:
        """Reset the records of `rows`."""
        self._actions[rows] = 0.0
        self._ended[rows] = False
        self.broken_at[rows] = 0

    def record(self, step_index: Tensor, action: Tensor) -> None:
        """Record the actions (env, action) of the next step, `step_index` (env,) steps after the reset."""
        step = step_index.clamp(max=self._actions.shape[1] - 1)
        self._actions[torch.arange(len(step), device=step.device), step] = action

    def note(self, broken: Tensor, steps: Tensor) -> None:
        """Note the `steps` (env,) after which the physics in the mask `broken` (env,) failed first."""
        self.broken_at = torch.where(broken & (self.broken_at == 0), steps, self.broken_at)

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of episodes that ended for each reason since the task was made."""
        return dict(zip(REASONS, self._counts.tolist(), strict=True))

    def count(self, not_finite: Tensor, left_workspace: Tensor) -> None:
        """Count each failing episode once, at its first failing step. Masks (env,)."""
        reasons = torch.stack([not_finite, left_workspace & ~not_finite])
        self._counts += (reasons & ~self._ended).sum(dim=1)
        self._ended |= not_finite | left_workspace

    def dump(self, row: int, trial: int, seed: int, name: str, steps: int) -> None:
        """Write the actions and the identity of the first episode whose physics failed."""
        if self._dumped or self.dump_dir is None:
            return
        path = self.dump_dir / "unstable.npz"
        identity = {"trial": trial, "seed": seed, "object": name, "steps": steps}
        np.savez(path, actions=self._actions[row, :steps].cpu().numpy(), identity=json.dumps(identity))
        log.warning("physics failed on %s, trial %d: %s replays it", name, trial, path)
        self._dumped = True
