"""Writers of the curves of a training run beside RUN/progress.csv: TensorBoard, or Weights & Biases."""

import logging
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, TensorBoardOutputFormat

from dexgrasp import configs
from dexgrasp.policies.training.config import TrainCfg
from dexgrasp.utils.files import write_text
from dexgrasp.utils.text import install_command, one_line

RUN_ID = "wandb_id.txt"
"""File of a run directory with the identifier of its Weights & Biases run, which a resumed training continues."""

log = logging.getLogger("dexgrasp")


class WandbWriter(KVWriter):
    """Writer of scalars to one Weights & Biases run, which also holds the configuration."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        """Open the run of the run directory `path`, or continue it."""
        import wandb

        file = path / RUN_ID
        before = file.read_text(encoding="utf-8").strip() if file.is_file() else None
        resume = "allow" if before else None
        try:
            self._run = wandb.init(
                project="dexgrasp", name=path.name, dir=path, config=config, id=before, resume=resume
            )
        except wandb.Error as error:
            raise ValueError(
                f"tracker=wandb: {one_line(error)} (WANDB_MODE=offline in the environment needs no key)"
            ) from error
        write_text(file, self._run.id)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """Write the scalars of one iteration at `step` control steps."""
        scalars = {key: value for key, value in key_values.items() if isinstance(value, (int, float))}
        self._run.log({**scalars, "time/total_timesteps": step}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def make_tracker(cfg: TrainCfg, path: Path) -> KVWriter | None:
    """Return the writer that `tracker` names, or None. Raises ImportError if its package is missing.

    tracker=auto logs that TensorBoard is missing, and goes on without.
    """
    if cfg.tracker == "wandb":
        return WandbWriter(path, configs.as_dict(cfg))
    if cfg.tracker in ("auto", "tensorboard"):
        try:
            return TensorBoardOutputFormat(str(path))
        except AssertionError as error:  # raised where the package is missing
            if cfg.tracker == "tensorboard":
                raise ImportError(f"tracker=tensorboard needs tensorboard: {install_command('tensorboard')}") from error
            log.info("TensorBoard is not installed, curves go to progress.csv: %s", install_command("tensorboard"))
    return None
