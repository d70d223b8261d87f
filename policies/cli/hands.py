"""`dexgrasp hands check`: what is wrong or odd about a hand's description, with a picture."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from dexgrasp.policies.hand_setup.checks import check_hand
from dexgrasp.policies.hand_setup.picture import draw_hand
from dexgrasp.sim.rendering.offscreen import RenderUnavailable
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.utils.bounds import bounded
from dexgrasp.utils.files import atomic_path
from dexgrasp.utils.output import claim_file
from dexgrasp.utils.text import counted, print_table

log = logging.getLogger("dexgrasp")


@dataclass(frozen=True)
@bounded
class CheckHandCfg:
    """Check a hand: contacts in the open pose, palm frame, opposition, aperture, torques; draw it."""

    hand: str = "allegro"
    """Hand by name (a folder of assets/hands) or path."""
    side: Literal["right", "left"] = "right"
    """Side of the hand."""
    out: str = "runs/hand.png"
    """PNG file to write."""

    def __post_init__(self) -> None:
        if Path(self.out).suffix.lower() != ".png":
            raise ValueError(f"out must be a .png file, got '{self.out}'")


def check(cfg: CheckHandCfg) -> int:
    """Print the findings, write the picture; return 1 where something is wrong, otherwise 0."""
    hand = HandSpec.load(cfg.hand, side=cfg.side)
    out = claim_file(cfg.out)
    found = check_hand(hand)
    print_table([("result", "check", "measured"), *((item.level, item.what, item.text) for item in found)])
    try:
        with atomic_path(out) as partial:
            Image.fromarray(draw_hand(hand)).save(partial)
        print(f"picture: {out}")
    except RenderUnavailable as error:
        log.warning("no picture: %s", error)
    wrong, odd = (sum(item.level == level for item in found) for level in ("wrong", "odd"))
    print(f"{hand.name}: {counted(wrong, 'check')} wrong, {odd} odd, {len(found) - wrong - odd} ok")
    return int(wrong > 0)
