"""Coverage of a scan: the sides of a thing from which the camera has looked at it.

There are 25 sides: 12 of 30 degrees around the thing while the camera stands low (less than 40 degrees above the
table), 12 while it stands at half height (40 to 65 degrees), and one from above.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SECTORS = 12
BANDS_DEG = {"low": (0.0, 40.0), "half height": (40.0, 65.0)}
"""Elevations of the camera above the table, seen from the thing."""
ABOVE = "from above"
SIDES = (*((band, sector) for band in BANDS_DEG for sector in range(SECTORS)), (ABOVE, 0))
"""(band, number of the sector), counted from the x axis of the table frame."""


@dataclass
class Coverage:
    """Sides from which a camera has looked at a thing in the middle of the table frame."""

    seen: set[tuple[str, int]] = field(default_factory=set)

    def add(self, T_table_cam: NDArray[np.float64]) -> None:
        """Count the side on which a camera stands."""
        x, y, z = T_table_cam[:3, 3]
        elevation_deg = float(np.degrees(np.arctan2(z, np.hypot(x, y))))
        sector = int(np.degrees(np.arctan2(y, x)) % 360 // (360 / SECTORS)) % SECTORS
        band = next((band for band, (_, end) in BANDS_DEG.items() if elevation_deg < end), ABOVE)
        self.seen.add((band, 0 if band == ABOVE else sector))

    @property
    def share(self) -> float:
        """Return the share of the sides that were seen."""
        return len(self.seen) / len(SIDES)

    def text(self) -> str:
        """Return the share and the missing sides in one line."""
        missing = [
            f"{band} {spans}"
            for band in BANDS_DEG
            if (spans := _spans(sector for sector in range(SECTORS) if (band, sector) not in self.seen))
        ]
        if (ABOVE, 0) not in self.seen:
            missing.append(ABOVE)
        share = f"{100 * self.share:.0f} % of the sides seen"
        return f"{share}, missing: {'; '.join(missing)}" if missing else share


def _spans(sectors: Iterable[int]) -> str:
    """Return sectors as spans of angles: 30-90, 180-210 deg."""
    width, spans = 360 // SECTORS, []
    for sector in sectors:
        if spans and spans[-1][1] == sector * width:
            spans[-1][1] += width
        else:
            spans.append([sector * width, (sector + 1) * width])
    return ", ".join(f"{start}-{end}" for start, end in spans) + " deg" if spans else ""
