"""Collects the comparisons of a replay and its first difference."""

from dataclasses import dataclass, field

NOTHING = "nothing was compared: expected a bag of the recorder node with a grasp or with points in it"


@dataclass(frozen=True)
class Difference:
    """A difference between recorded and replayed results."""

    time_s: float
    """Time since the start of the bag [s]."""
    topic: str
    text: str


@dataclass
class ReplayReport:
    """Comparisons by topic and their differences."""

    counts: dict[str, int] = field(default_factory=dict)
    worst: dict[str, dict[str, float]] = field(default_factory=dict)
    """Largest difference of each quantity, by topic."""
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Topics that could not be compared, and why; goals of actions and their results."""

    @property
    def first(self) -> Difference | None:
        """The earliest difference; None without one."""
        return min(self.differences, key=lambda item: item.time_s, default=None)

    def add_comparison(self, topic: str, time_s: float, gaps: dict[str, float], limits: dict[str, float]) -> None:
        """Add the comparison of a message: differences by quantity; one above its limit is reported."""
        self.counts[topic] = self.counts.get(topic, 0) + 1
        worst = self.worst.setdefault(topic, {})
        for kind, gap in gaps.items():
            worst[kind] = max(worst.get(kind, 0.0), gap)
        wrong = [f"{kind} {gap:.3g} (> {limits[kind]:g})" for kind, gap in gaps.items() if not gap <= limits[kind]]
        if wrong:
            self.add_difference(topic, time_s, "recorded and replayed differ by " + ", ".join(wrong))

    def add_difference(self, topic: str, time_s: float, text: str) -> None:
        """Add a difference that is described in words."""
        self.differences.append(Difference(time_s, topic, text))

    def text(self) -> str:
        """Return the report as text."""
        lines = [f"{topic}: {count} compared{self._gaps(topic)}" for topic, count in sorted(self.counts.items())]
        lines += self.notes
        if self.first is None:
            return "\n".join([*lines, "no difference" if self.counts else NOTHING])
        later = len(self.differences) - 1
        more = f" ({later} more after it)" if later else ""
        first = f"first difference at {self.first.time_s:.3f} s in {self.first.topic}: {self.first.text}{more}"
        return "\n".join([*lines, first])

    def _gaps(self, topic: str) -> str:
        gaps = ", ".join(f"{kind} {gap:.2g}" for kind, gap in self.worst.get(topic, {}).items())
        return f"; at most {gaps}" if gaps else ""
