"""How far a run is: a live bar with rate, time left and a few numbers; plain lines where there is no terminal."""

import collections
import contextlib
import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich import console, progress

_SECONDS_BETWEEN_LINES = 10.0
_RATE_WINDOW_SECONDS = 20.0


class Progress:
    """Shows steps done on stderr. Use it in a `with` statement.

    Args:
        total_steps: the step at which the run is complete.
        description: one or two words that name the phase.
        start: step at which this attempt begins, above 0 after a resume.
        max_seconds: time limit of the run; the time left is then the smaller of both.
        enabled: False shows nothing (processes other than the first).
        spent_seconds: part of `max_seconds` used up by earlier attempts.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        description: str,
        start: int = 0,
        max_seconds: float | None = None,
        enabled: bool = True,
        spent_seconds: float = 0.0,
    ) -> None:
        self._total = total_steps
        self._description = description
        self._step = start
        self._limit = max_seconds
        self._spent = spent_seconds
        self._enabled = enabled
        self._began = time.monotonic()
        self._recent: collections.deque[tuple[float, int]] = collections.deque()
        self._next_line = self._began + _SECONDS_BETWEEN_LINES
        self._line_is_stale = False
        self._values: dict[str, float] = {}
        self._bar: progress.Progress | None = None
        self._task = progress.TaskID(0)

    def __enter__(self) -> Self:
        """Starts the display."""
        self._began = time.monotonic()
        self._next_line = self._began + _SECONDS_BETWEEN_LINES
        screen = console.Console(file=sys.stderr)
        if self._enabled and screen.is_terminal and not screen.is_dumb_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("[bold]{task.description}"),
                progress.BarColumn(bar_width=24),
                progress.TextColumn("{task.fields[status]}"),
                console=screen,
                refresh_per_second=5,
            )
            self._task = self._bar.add_task(
                self._description, total=self._total, completed=self._step, status="starting (compiling) ..."
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the display with one last line of state."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self._enabled and self._line_is_stale:
            self._print_line()

    def update(self, step: int, values: Mapping[str, Any] | None = None) -> None:
        """Reports that `step` steps are done; cheap enough to call after every step.

        Args:
            step: number of finished steps, earlier attempts included.
            values: numbers to show; those of earlier calls stay until replaced. They must be host numbers: a device
                array here would make the loop wait for the device.
        """
        if not self._enabled:
            return
        now = time.monotonic()
        self._step = step
        self._recent.append((now, step))
        while len(self._recent) > 2 and now - self._recent[0][0] > _RATE_WINDOW_SECONDS:
            self._recent.popleft()
        if values:
            self._values.update({name: float(value) for name, value in values.items()})
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=self.status())
            return
        self._line_is_stale = True
        if now >= self._next_line:
            self._print_line()
            self._next_line = now + _SECONDS_BETWEEN_LINES

    def steps_per_second(self) -> float | None:
        """Rate over the last 20 s, the first step (which compiles) left out; None before two steps are done."""
        if len(self._recent) < 2:
            return None
        (first_time, first_step), (last_time, last_step) = self._recent[0], self._recent[-1]
        elapsed = last_time - first_time
        return (last_step - first_step) / elapsed if elapsed > 0 and last_step > first_step else None

    def seconds_left(self) -> float | None:
        """Time until the last step or the time limit, whichever comes first; None while unknown."""
        rate = self.steps_per_second()
        bounds = []
        if rate:
            bounds.append(max(self._total - self._step, 0) / rate)
        if self._limit is not None:
            bounds.append(max(self._limit - self._spent - (time.monotonic() - self._began), 0.0))
        return min(bounds) if bounds else None

    def status(self) -> str:
        """The line of numbers: steps, share, rate, time left, values."""
        rate, left = self.steps_per_second(), self.seconds_left()
        share = 100.0 * self._step / self._total if self._total else 100.0
        words = [
            f"{self._step}/{self._total}",
            f"{share:.0f}%",
            "- steps/s" if rate is None else f"{rate:.3g} steps/s",
            f"{clock(time.monotonic() - self._began)} elapsed",
            "ETA -:--" if left is None else f"ETA {clock(left)}",
            *(f"{name} {value:.4g}" for name, value in self._values.items()),
        ]
        return "  ".join(words)

    def _print_line(self) -> None:
        print(f"{self._description}: {self.status()}", file=sys.stderr, flush=True)
        self._line_is_stale = False


class Phases:
    """One display after the other for work in phases, each of its own number of parts. Use it in a `with` statement.

    Args:
        enabled: False shows nothing.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._phase = ""
        self._shown = contextlib.ExitStack()
        self._current: Progress | None = None

    def __enter__(self) -> Self:
        """Shows nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the last phase's display."""
        self._shown.close()

    def update(self, phase: str, done: int, total: int) -> None:
        """Reports that `done` of a phase's `total` parts are done; another phase's display ends."""
        if self._current is None or phase != self._phase:
            self._shown.close()
            self._phase = phase
            self._current = self._shown.enter_context(Progress(total, description=phase, enabled=self._enabled))
        self._current.update(done)


def clock(seconds: float) -> str:
    """A duration as `m:ss` or `h:mm:ss`, rounded up to whole seconds."""
    whole = math.ceil(max(seconds, 0.0))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
