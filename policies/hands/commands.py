"""`dexgrasp hands new` and `hands check`: draft a hand.yaml, find what is wrong about one."""

import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from PIL import Image

from dexgrasp import assets
from dexgrasp.sim.hand_setup.checks import check_hand, overlapping_bodies
from dexgrasp.sim.hand_setup.draft import draft_hand
from dexgrasp.sim.hand_setup.hand_yaml import hand_yaml_text, with_styles
from dexgrasp.sim.hand_setup.opposition import opposed_styles
from dexgrasp.sim.hand_setup.picture import draw_hand
from dexgrasp.sim.rendering.offscreen import RenderUnavailable
from dexgrasp.sim.robots.hand import HandSpec
from dexgrasp.sim.robots.hand_file import read_hand_file
from dexgrasp.sim.robots.hand_model import PALM
from dexgrasp.sim.robots.models.model_sources import find_hand, given_model
from dexgrasp.utils.bounds import bounded
from dexgrasp.utils.files import PARTIAL, write_bytes
from dexgrasp.utils.output import FolderKind, claim_file, claimed_folder, demand_png, png_with_mark
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
    out: str = ""
    """PNG file to write; empty = hand.png beside the hand.yaml, for a shipped hand runs/NAME.png."""

    def __post_init__(self) -> None:
        if self.out:
            demand_png(self.out)


@dataclass(frozen=True)
@bounded
class NewHandCfg:
    """Draft the hand.yaml of a model: palm frame, fingers, thumb, keypoints, limits, first grasp styles."""

    model: str
    """MJCF or URDF of the hand, menagerie:NAME or robot_descriptions:NAME."""
    out: str
    """Folder of hand.yaml and hand.png; a new or empty one."""
    root: str = ""
    """Body of the palm; empty = the one from which most fingers branch off."""
    side: Literal["auto", "right", "left"] = "auto"
    """Side of the hand that the model shows; auto: by the place of the thumb."""
    thumb: str = ""
    """A body of the thumb; empty = by its name, else the finger that differs most from the others."""
    name: str = ""
    """Name of the hand; empty = that of the model's file."""


DRAFT = FolderKind("folder for a new hand", lambda _: False)


def new(cfg: NewHandCfg) -> None:
    """Write hand.yaml and hand.png, print the findings and the next commands."""
    side = None if cfg.side == "auto" else cfg.side
    model = given_model(cfg.model)  # before the folder is made
    with claimed_folder(cfg.out, DRAFT) as out:
        with tempfile.TemporaryDirectory(dir=out, prefix=PARTIAL) as folder:  # HandSpec reads files
            first = Path(folder) / "hand.yaml"
            draft = draft_hand(model, first.parent, side=side, root=cfg.root, thumb=cfg.thumb, name=cfg.name)
            first.write_text(hand_yaml_text(replace(draft, source=f"drafted from {cfg.model}")), encoding="utf-8")
            hand = HandSpec.load(first, side=draft.side)
            overlaps = overlapping_bodies(hand)
            file_names = {PALM: draft.root}
            pairs = tuple((file_names.get(one, one), file_names.get(other, other)) for one, other in overlaps)
            if pairs:
                first.write_text(hand_yaml_text(replace(read_hand_file(first), exclude=pairs)), encoding="utf-8")
                hand = HandSpec.load(first, side=draft.side)
            text = hand_yaml_text(with_styles(first, hand, opposed_styles(hand), out))
        write_bytes(out / "hand.yaml", text.encode())
        for (one, other), depth in zip(pairs, overlaps.values(), strict=True):
            print(f"exclude: {one} and {other} overlap by {1000 * depth:.1f} mm in the model; they do not collide")
        print(f"written: {out / 'hand.yaml'}")
        check(CheckHandCfg(hand=str(out), side=draft.side, out=str(out / "hand.png")))
        given = "" if draft.side == "right" else f" side={draft.side}"
        print(
            f"next: look at {out / 'hand.png'}, correct {out / 'hand.yaml'}, then\n"
            f"  dexgrasp hands check {out}{given}\n  dexgrasp hands tune {out}{given}   (about ten minutes)"
        )


def check(cfg: CheckHandCfg) -> int:
    """Print the findings, write the picture; return 1 where something is wrong, otherwise 0."""
    hand = HandSpec.load(cfg.hand, side=cfg.side)
    out = claim_file(cfg.out or _picture_beside(cfg.hand))
    found = check_hand(hand)
    print_table([("result", "check", "measured"), *((item.level, item.what, item.text) for item in found)])
    try:
        write_bytes(out, png_with_mark(Image.fromarray(draw_hand(hand))))
        print(f"picture: {out}")
    except RenderUnavailable as error:
        log.warning("no picture: %s", error)
    wrong, odd = (sum(item.level == level for item in found) for level in ("wrong", "odd"))
    print(f"{hand.name}: {counted(wrong, 'check')} wrong, {odd} odd, {len(found) - wrong - odd} ok")
    return int(wrong > 0)


def _picture_beside(hand: str) -> Path:
    """Return the default picture of a hand: beside its hand.yaml, but for shipped hands."""
    file = find_hand(hand)
    return Path("runs") / f"{hand}.png" if hand in assets.names("hands") else file.parent / "hand.png"
