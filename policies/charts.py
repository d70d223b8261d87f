"""Draw bar charts as inline SVG, without a library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from policies.statistics import wilson_interval

WIDTH = 760
ROW = 24
LABEL = 200
COUNT = 120
GOOD, TRACK, WHISKER = "#0d9488", "#e8ecf1", "#0f172a"


@dataclass(frozen=True)
class Bar:
    """One row of a chart of success rates."""

    label: str
    successes: int
    trials: int


def rate_chart(bars: Sequence[Bar], intervals: bool = True) -> str:
    """Return horizontal bars from 0 to 100 %, with 95 % Wilson intervals as whiskers."""
    rows = "".join(_rate_row(bar, i * ROW, intervals) for i, bar in enumerate(bars))
    return _svg(rows, len(bars) * ROW + 22, _axis(len(bars) * ROW))


def share_chart(parts: Mapping[str, tuple[int, str]]) -> str:
    """Return one stacked bar of {label: (count, colour)} with a legend; labels with count 0 are omitted."""
    total = sum(count for count, _ in parts.values())
    shown = {label: part for label, part in parts.items() if part[0]}
    pieces, x = [], 0.0
    for label, (count, colour) in shown.items():
        width = WIDTH * count / total
        pieces.append(
            f'<rect x="{x:.1f}" y="0" width="{max(width - 1.5, 0.5):.1f}" height="30" rx="3" fill="{colour}">'
            f"<title>{escape(label)}: {count} of {total}</title></rect>"
        )
        x += width
    keys = "".join(
        f'<li><i style="background:{colour}"></i>{escape(label)} <b>{count}</b> '
        f"<small>{100 * count / total:.1f} %</small></li>"
        for label, (count, colour) in shown.items()
    )
    return f'{_svg("".join(pieces), 30)}<ul class="legend">{keys}</ul>'


def interval_gauge(rate: float, low: float, high: float) -> str:
    """Return the success rate as a point on a line from 0 to 100 %, with its interval as a band."""
    y, span = 16, WIDTH - 40

    def at(share: float) -> str:
        return f"{20 + span * share:.1f}"

    ticks = "".join(
        f'<text x="{at(t / 4)}" y="44" class="tick" text-anchor="middle">{25 * t} %</text>' for t in range(5)
    )
    band = f'<rect x="{at(low)}" y="{y - 7}" width="{span * (high - low):.1f}" height="14" rx="7" fill="#99d5cf"/>'
    return _svg(
        f'<rect x="20" y="{y - 3}" width="{span}" height="6" rx="3" fill="{TRACK}"/>{band}'
        f'<circle cx="{at(rate)}" cy="{y}" r="7" fill="{GOOD}"/>{ticks}',
        50,
    )


def _rate_row(bar: Bar, y: float, intervals: bool) -> str:
    rate, span = bar.successes / bar.trials, WIDTH - LABEL - COUNT
    middle = y + ROW / 2
    label = bar.label if len(bar.label) <= 28 else bar.label[:27] + "…"
    whisker = ""
    if intervals:
        low, high = (LABEL + span * end for end in wilson_interval(bar.successes, bar.trials))
        whisker = (
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8" '
            f'stroke="{WHISKER}" stroke-width="1.3" fill="none"/>'
        )
    return (
        f'<text x="{LABEL - 10}" y="{middle + 4}" text-anchor="end">{escape(label)}'
        f"<title>{escape(bar.label)}</title></text>"
        f'<rect x="{LABEL}" y="{y + 4}" width="{span}" height="{ROW - 8}" rx="3" fill="{TRACK}"/>'
        f'<rect x="{LABEL}" y="{y + 4}" width="{span * rate:.1f}" height="{ROW - 8}" rx="3" fill="{GOOD}"/>{whisker}'
        f'<text x="{WIDTH}" y="{middle + 4}" text-anchor="end" class="count">'
        f"{100 * rate:.0f} %  ·  {bar.successes}/{bar.trials}</text>"
    )


def _axis(height: float) -> str:
    span = WIDTH - LABEL - COUNT
    marks = []
    for tick in range(0, 101, 25):
        x = LABEL + span * tick / 100
        marks.append(
            f'<path d="M{x:.1f} 0V{height}" stroke="#fff" stroke-opacity=".7"/>'
            f'<text x="{x:.1f}" y="{height + 15}" class="tick" text-anchor="middle">{tick}</text>'
        )
    return "".join(marks)


def _svg(content: str, height: float, over: str = "") -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{content}{over}</svg>'
