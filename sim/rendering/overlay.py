"""Text and diagrams over a video frame: trial, outcome, phase, contacts, and an inset image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Box = tuple[float, float, float, float]

INK, PALE, PANEL = (30, 36, 46, 255), (112, 120, 132, 255), (255, 255, 255, 205)
TOUCH, TRACK = (20, 150, 141, 255), (205, 210, 217, 255)
PHASES = ((58, 110, 165, 255), (20, 150, 141, 255), (112, 88, 160, 255))
"""Colours of the phases, in order."""
SUCCESS, FAILURE = (22, 101, 52, 255), (154, 52, 18, 255)
INSET_SHARE = 0.27
"""Width of the inset relative to the frame."""


@dataclass(frozen=True)
class Phase:
    """Phases of an attempt with their lengths, and the time since its start."""

    lengths_s: Mapping[str, float]
    """Length of each phase by name [s], in order."""
    time_s: float
    """Time since the start of the attempt [s]; negative while the hand moves to another pre-grasp."""
    name: str = ""
    """Name of the present phase, drawn before the attempt; the timeline has those of the others."""


@dataclass(frozen=True)
class Overlay:
    """Text and diagrams of one frame; empty parts are left out."""

    title: str = ""
    note: str = ""
    """Second line, smaller."""
    verdict: str = ""
    success: bool = False
    """Colour of the verdict."""
    phase: Phase | None = None
    contacts: Mapping[str, bool] = field(default_factory=dict)
    """Whether each finger touches the object, by its name."""
    inset: NDArray[np.uint8] | None = None
    """(rows, columns, 3) image for the upper right corner."""
    inset_title: str = ""


def draw_overlay(frame: NDArray[np.uint8], overlay: Overlay) -> NDArray[np.uint8]:
    """Return the frame (height, width, 3) with the overlay on it."""
    image = Image.fromarray(frame).convert("RGBA")
    layer = Image.new("RGBA", (2 * image.width, 2 * image.height))  # reduced below: PIL draws hard edges
    pen = _Pen(layer)
    if overlay.title or overlay.note or overlay.verdict:
        pen.heading(overlay)
    if overlay.inset is not None:
        pen.inset(overlay.inset, overlay.inset_title)
    if overlay.phase is not None:
        pen.timeline(overlay.phase)
    if overlay.contacts:
        pen.contacts(overlay.contacts)
    return np.asarray(Image.alpha_composite(image, layer.reduce(2)).convert("RGB"))


class _Pen:
    """Draws the parts of an overlay; all lengths are in units of the text size."""

    def __init__(self, layer: Image.Image) -> None:
        self._layer, self._draw = layer, ImageDraw.Draw(layer)
        self._width, self._height = layer.size
        self._unit = max(self._height / 32, 22.0)  # smaller text is not readable
        self._font, self._small = (ImageFont.load_default(size=self._unit * scale) for scale in (1.0, 0.85))

    def heading(self, overlay: Overlay) -> None:
        """Draw title, note and verdict on a panel in the upper left corner."""
        unit, lines = self._unit, [(overlay.title, self._font, INK), (overlay.note, self._small, PALE)]
        lines.append((overlay.verdict, self._font, SUCCESS if overlay.success else FAILURE))
        lines = [line for line in lines if line[0]]
        widest = max(self._draw.textlength(text, font=font) for text, font, _ in lines)
        left, top = 0.7 * unit, 0.7 * unit
        self._panel((left, top, left + widest + 1.2 * unit, top + 1.4 * unit * len(lines) + 0.5 * unit))
        for i, (text, font, colour) in enumerate(lines):
            self._draw.text((left + 0.6 * unit, top + (0.95 + 1.4 * i) * unit), text, colour, font, anchor="lm")

    def inset(self, image: NDArray[np.uint8], title: str) -> None:
        """Draw an image with a title in the upper right corner."""
        unit, width = self._unit, round(INSET_SHARE * self._width)
        height = round(width * image.shape[0] / image.shape[1])
        left, top = self._width - width - round(0.9 * unit), round(0.9 * unit)
        below = 1.5 * unit if title else 0.2 * unit
        self._panel((left - 0.2 * unit, top - 0.2 * unit, left + width + 0.2 * unit, top + height + below))
        small = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
        self._layer.paste(small, (left, top))
        self._draw.text((left + width / 2, top + height + 0.7 * unit), title, INK, self._small, anchor="mm")

    def timeline(self, phase: Phase) -> None:
        """Draw the phases as a bar along the lower edge, filled up to the present time."""
        unit, total_s = self._unit, sum(phase.lengths_s.values())
        left, right, y = 1.2 * unit, self._width - 1.2 * unit, self._height - 1.1 * unit
        self._panel((0.7 * unit, y - 1.75 * unit, self._width - 0.7 * unit, y + 0.6 * unit))
        start_s = 0.0
        for (name, length_s), colour in zip(phase.lengths_s.items(), _cycle(len(phase.lengths_s)), strict=True):
            ends = [left + (right - left) * time_s / total_s for time_s in (start_s, start_s + length_s)]
            now = start_s <= phase.time_s < start_s + length_s or (phase.time_s >= total_s == start_s + length_s)
            done = left + (right - left) * min(max(phase.time_s, 0.0), start_s + length_s) / total_s
            self._bar((ends[0], y - 0.25 * unit, ends[1] - 0.25 * unit, y + 0.25 * unit), TRACK)
            if done > ends[0]:
                self._bar((ends[0], y - 0.25 * unit, done - 0.25 * unit, y + 0.25 * unit), colour)
            self._draw.text((ends[0], y - 0.95 * unit), name, colour if now else PALE, self._small, anchor="lm")
            start_s += length_s
        if phase.time_s < 0:
            self._draw.text((right, y - 0.95 * unit), phase.name, FAILURE, self._small, anchor="rm")

    def contacts(self, contacts: Mapping[str, bool]) -> None:
        """Draw one dot per finger above the timeline, filled where it touches the object."""
        unit, widest = self._unit, max(self._draw.textlength(name, font=self._small) for name in contacts)
        bottom = self._height - 3.4 * unit
        top = bottom - 1.35 * unit * (len(contacts) + 1) - 0.3 * unit
        left, heading = 0.7 * unit, "contact"
        widest = max(widest + 1.2 * unit, self._draw.textlength(heading, font=self._small))
        self._panel((left, top, left + widest + 1.2 * unit, bottom))
        self._draw.text((left + 0.6 * unit, top + 0.85 * unit), heading, PALE, self._small, anchor="lm")
        for i, (name, touches) in enumerate(contacts.items()):
            x, y = left + 1.0 * unit, top + (2.2 + 1.35 * i) * unit
            ends = (x - 0.35 * unit, y - 0.35 * unit, x + 0.35 * unit, y + 0.35 * unit)
            self._draw.ellipse(ends, fill=TOUCH if touches else None, outline=TOUCH if touches else PALE, width=3)
            self._draw.text((x + 0.8 * unit, y), name, INK if touches else PALE, self._small, anchor="lm")

    def _panel(self, box: Box) -> None:
        self._draw.rounded_rectangle(box, radius=0.4 * self._unit, fill=PANEL)

    def _bar(self, box: Box, colour: tuple[int, int, int, int]) -> None:
        if box[2] > box[0]:
            self._draw.rounded_rectangle(box, radius=0.25 * self._unit, fill=colour)


def _cycle(count: int) -> Sequence[tuple[int, int, int, int]]:
    return [PHASES[i % len(PHASES)] for i in range(count)]
