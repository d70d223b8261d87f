"""Schedule of control ticks: at the rate of the policy on average, each right after a new cloud."""

EARLY, LATE = 0.25, 0.5
"""A cloud starts a tick up to so many periods before it is due; without one, the tick comes so many periods late."""
LEAST = 0.5
"""Least time between two ticks, in periods."""
LIVE = 3.0
"""Clouds are waited for if one arrived within so many periods."""


class TickSchedule:
    """Decides whether a new cloud starts a tick, and when a tick comes without one.

    Ticks are due one period apart, whatever the rate of the clouds: with clouds at 30 Hz and ticks at 20 Hz, every
    other interval is one frame and the next two frames long.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._due_s = self._last_s = self._cloud_s = -float("inf")

    def cloud_arrived(self, now_s: float) -> bool:
        """Record a new cloud; return whether to tick now. `now_s`: time on the clock of the ticks [s]."""
        self._cloud_s, period_s = now_s, self._period_s
        return now_s >= self._due_s - EARLY * period_s and now_s >= self._last_s + LEAST * period_s

    def ticked(self, now_s: float) -> float:
        """Record a tick; return the time after which the next one comes without a cloud [s]."""
        period_s = self._period_s
        late = not 0.0 <= now_s - self._due_s <= LATE * period_s and not 0.0 <= self._due_s - now_s <= EARLY * period_s
        self._due_s = (now_s if late else self._due_s) + period_s
        self._last_s = now_s
        wait = LATE if now_s - self._cloud_s <= LIVE * period_s else 0.0
        return max(self._due_s + wait * period_s - now_s, LEAST * period_s)
