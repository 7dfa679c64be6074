"""Leaving on request without losing work: SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 ask for a checkpoint and exit code 75.

A signal only raises a flag; every loop (training, evaluation, export) polls it at its next boundary. Python runs its
own handlers only between byte codes of the main thread, so nothing would happen during a long compilation. The
interpreter's C handler however writes the signal's number to a pipe at once; a thread reads that pipe, raises the flag,
and ends the process when the grace time is over or on a second Ctrl-C, whatever the main thread is doing (short of C
code that keeps the interpreter lock). Leaving that way is safe: a checkpoint appears by one rename, and a half-written
one is swept away at the next start.
"""

import os
import signal
import threading
from types import TracebackType
from typing import Any, Self

from experiments import errors

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_GRACE_SECONDS = 25.0


class StopSignal:
    """The flag that asks a run to stop. Use it in a `with` statement around the whole program, in the main thread.

    Only the standard library is imported here, so that it can be in place before jax is imported.

    Args:
        grace_seconds: time from the first signal to the unconditional end of the process. Launchers kill after 30 s
            (Kubernetes, most SLURM set-ups), so the default leaves 5 s for the end itself.
    """

    def __init__(self, *, grace_seconds: float = _GRACE_SECONDS) -> None:
        self._grace = grace_seconds
        self._event = threading.Event()
        self._reason = ""
        self._previous: dict[signal.Signals, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._previous_wakeup = -1
        self._deadline: threading.Timer | None = None

    def __enter__(self) -> Self:
        """Takes over the signals."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        threading.Thread(target=self._watch, args=(self._pipe[0],), name="stop-signal", daemon=True).start()
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        self._previous_wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            # None stands for a handler that was not set from Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._pipe is not None:
            os.close(self._pipe[1])  # The watching thread reads the end of the pipe and ends.
            self._pipe = None

    def install(self) -> None:
        """Puts the handlers in place again: `jax.distributed.initialize` takes SIGTERM for itself."""
        if self._pipe is None:
            return
        for number in _SIGNALS:
            signal.signal(number, _noted_by_the_watching_thread)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)

    @property
    def requested(self) -> bool:
        """Whether the run was asked to stop."""
        return self._event.is_set()

    @property
    def reason(self) -> str:
        """Name of the signal (or the words given to `request`); empty before."""
        return self._reason

    def request(self, reason: str) -> None:
        """Asks the run to stop, as a signal does, but without the time limit."""
        if not self._event.is_set():
            self._reason = reason
            self._event.set()

    def exit_if_requested(self) -> None:
        """Leaves with code 75 if a stop was asked for: for the stages before and after the training loop.

        Raises:
            SystemExit: with `EXIT_STOPPED`; there is nothing to save at this place.
        """
        if self._event.is_set():
            raise SystemExit(errors.EXIT_STOPPED)

    def _watch(self, descriptor: int) -> None:
        while received := os.read(descriptor, 64):
            for number in received:
                if number in _SIGNALS:
                    self._receive(signal.Signals(number))
        os.close(descriptor)

    def _receive(self, number: signal.Signals) -> None:
        if self._event.is_set() and number == signal.SIGINT:
            _leave_now("second SIGINT: leaving at once; --resume continues from the newest checkpoint")
        if self._deadline is not None:
            return
        self.request(number.name)
        _say(
            f"{number.name}: stopping at the next step boundary with a checkpoint and exit code {errors.EXIT_STOPPED} "
            "(a second Ctrl-C leaves at once)"
        )
        late = (
            f"no step boundary within {self._grace:g} s of {number.name}: leaving; --resume continues from the newest "
            "checkpoint"
        )
        self._deadline = threading.Timer(self._grace, _leave_now, args=(late,))
        self._deadline.daemon = True
        self._deadline.start()


def _noted_by_the_watching_thread(number: int, frame: Any) -> None:
    pass


def _leave_now(message: str) -> None:
    _say(message)
    os._exit(errors.EXIT_STOPPED)


def _say(message: str) -> None:
    try:
        os.write(2, f"{message}\n".encode())
    except OSError:
        pass  # A closed terminal (SIGHUP came along) must not keep the run from stopping.
