"""Results of an identification: hand parameters and randomisation ranges as YAML, plots of the fits."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dexgrasp_ros.identification.fit import JointFit, JointLog

MIN_SPREAD = 0.1
"""Smallest relative randomisation: servos change with temperature and load."""
UNIDENTIFIED_RANGES = {"kp": (0.7, 1.4), "kd": (0.5, 2.0), "damping": (0.5, 2.0), "effort_limit": (0.7, 1.2)}
"""Randomisation factors of parameters that the log does not identify for every joint."""
SCALES = {"kp": "kp_scale", "kd": "kd_scale", "damping": "damping_scale", "effort_limit": "effort_scale"}
LATE_S = 0.005
"""Remainder of the delay above which commands are randomised to arrive late [s]."""
HEAD = """\
# Identified by `ros2 run dexgrasp_ros identification_node`. SI units.
# joints: values per joint for hand.yaml; it has no dry friction, which is listed in `measured`.
# measured: all fitted parameters, rms of measured against fitted positions, parameters that the log does not identify.
# randomization: an option for configs/randomization, about the joints above; delays in periods of {rate_hz:g} Hz.
"""


def parameters(hand: str, fits: Sequence[JointFit], rate_hz: float) -> dict[str, Any]:
    """Return the content of the YAML as plain values."""
    return {
        "hand": hand,
        "joints": {fit.name: _for_hand(fit) for fit in fits},
        "measured": {fit.name: _measured(fit) for fit in fits},
        "randomization": randomization(fits, rate_hz),
    }


def randomization(fits: Sequence[JointFit], rate_hz: float) -> dict[str, Any]:
    """Return the ranges of a RandomizationCfg from the uncertainty of the joints.

    See `dexgrasp.sim.randomization.episode_draws.RandomizationCfg`.
    """
    ranges: dict[str, Any] = {"name": "identified"}
    for name, scale in SCALES.items():
        spread = max(MIN_SPREAD, *(2 * fit.relative_sd[name] for fit in fits))
        unknown = any(name in fit.unidentified for fit in fits)
        low, high = UNIDENTIFIED_RANGES[name] if unknown else (1 - spread, 1 + spread)
        ranges[scale] = [_round(low), _round(high)]
    delay_s = max(fit.parameters.delay_s for fit in fits)
    ranges["action_delay"] = math.floor(delay_s * rate_hz)
    ranges["late_action_probability"] = 1.0 if delay_s - ranges["action_delay"] / rate_hz > LATE_S else 0.0
    noise_rad = max(fit.noise_rad for fit in fits)
    ranges["joint_noise_rad"] = _round(math.sqrt(3) * noise_rad)  # half-width of a uniform draw
    ranges["joint_bias_rad"] = _round(max(abs(fit.parameters.bias_rad) for fit in fits))
    return ranges


def write_parameters(path: Path, hand: str, fits: Sequence[JointFit], rate_hz: float) -> None:
    """Write the parameters and ranges as YAML."""
    text = yaml.safe_dump(parameters(hand, fits, rate_hz), sort_keys=False, default_flow_style=None, width=110)
    path.write_text(HEAD.format(rate_hz=rate_hz) + text, encoding="utf-8")


def plot_fits(path: Path, logs: Sequence[JointLog], fits: Sequence[JointFit]) -> None:
    """Plot measured and fitted positions, one row per joint, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.2 * len(logs)), layout="constrained")
    FigureCanvasAgg(figure)
    for row, (log, fit) in enumerate(zip(logs, fits, strict=True)):
        axes = figure.add_subplot(len(logs), 1, row + 1)
        start_s = log.target_time_s[0]
        axes.step(log.target_time_s - start_s, log.target, where="post", lw=0.6, color="0.7", label="target")
        axes.plot(log.time_s - start_s, log.position, lw=1.0, label="measured")
        axes.plot(log.time_s - start_s, fit.fitted, lw=1.0, ls="--", label="fitted")
        p = fit.parameters
        axes.set_title(
            f"{fit.name}: kp {p.kp:.2f}, kd {p.kd:.3f}, damping {p.damping:.3f}, friction {p.friction_loss:.3f}, "
            f"effort {p.effort_limit:.2f}, delay {1e3 * p.delay_s:.0f} ms; rms {1e3 * fit.rms_rad:.1f} mrad",
            fontsize=9,
        )
        axes.set_ylabel("rad")
    figure.axes[0].legend(loc="upper right", fontsize=8)
    figure.axes[-1].set_xlabel("s")
    figure.savefig(path, dpi=110)


def table(fits: Sequence[JointFit]) -> str:
    """Return a table with one line per joint; a question mark marks parameters that are not identified."""
    titles = ["joint", "kp", "kd", "damping", "friction_loss", "effort_limit", "delay_s", "bias_rad", "rms_rad"]
    rows = [titles]
    for fit in fits:
        values = {**asdict(fit.parameters), "rms_rad": fit.rms_rad}
        rows.append([fit.name, *(f"{values[key]:.4g}{'?' if key in fit.unidentified else ''}" for key in titles[1:])])
    widths = [max(len(row[k]) for row in rows) for k in range(len(titles))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def warnings(fits: Sequence[JointFit]) -> list[str]:
    """Return one line per joint whose fit is poor."""
    return [
        f"{fit.name}: measured and fitted positions differ by {1e3 * fit.rms_rad:.1f} mrad. Did the finger touch "
        "something, or was a computer overloaded? Repeat the test"
        for fit in fits
        if fit.poor
    ]


def _for_hand(fit: JointFit) -> dict[str, float]:
    return {name: _round(getattr(fit.parameters, name)) for name in ("kp", "kd", "damping", "effort_limit")}


def _measured(fit: JointFit) -> dict[str, Any]:
    values: dict[str, Any] = {name: _round(value) for name, value in asdict(fit.parameters).items()}
    values |= {"total_damping": _round(fit.total_damping), "rms_rad": _round(fit.rms_rad)}
    return values | {"noise_rad": _round(fit.noise_rad), "unknown": fit.unidentified}


def _round(value: float) -> float:
    return float(np.format_float_positional(value, precision=4, fractional=False))
