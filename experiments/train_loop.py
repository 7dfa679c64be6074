"""One training loop for all experiments: plain, ordered, exactly resumable; copy it and change it when yours differs.

The order within a step is: evaluate the parameters as they are -> checkpoint (state, data cursor) -> next batch ->
step -> log the step before. A checkpoint thus holds the state between two updates, and its number, the count of updates
done, is also the data cursor: batch, random keys and schedules are functions of it. Stopped there and resumed, a run
repeats nothing and skips nothing: arrays, data order and logged numbers are bit-equal to those of the unbroken run.
Only with `max_seconds` does the clock have a say: the schedules anneal towards the time limit, and it ends the run.

The device is always one update ahead: while it computes update k, the host reads the finite check and the metrics of
update k-1. So a NaN stops the run within one step, before it is logged, evaluated or saved.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments import cadence as cadence_lib
from experiments import checkpoints as checkpoints_lib
from experiments import finite
from experiments.cadence import Cadence
from experiments.metrics import MetricWriter
from experiments.preemption import StopSignal
from experiments.progress import Progress
from experiments.runtime import Watchdog


def _no_batch(step: int) -> None:
    return None


def _same_shapes(state: Any, aux: dict[str, Any], step: int) -> tuple[Any, dict[str, Any]]:
    return state, aux


def _no_evaluation(state: Any, step: int) -> Mapping[str, float]:
    return {}


def _no_preview(state: Any, step: int) -> None:
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What is trained: the functions that the loop calls. `step` counts the updates done before the call.

    Attributes:
        step: `(state, aux, batch, step, fraction) -> (state, metrics, report)`: one update, jitted, the state donated.
            `step` (int32) and `fraction` (float32, how much of the run is over) are device scalars, so that no value of
            theirs compiles anew; `aux` is for static sizes. `metrics` are name -> scalar; `report` is what
            `finite.finite_report` made of gradients, loss or new parameters. It must not make host arrays into
            device arrays on the way: the loop disallows that, since it would stall the device.
        batch: `(step) -> batch`: the data of this update, host or device arrays; called while the device is busy.
        reshape: `(state, aux, step) -> (state, aux)`: work on the host between two updates, such as growing arrays;
            a function of its arguments only. Most calls should return them as they are.
        evaluate: `(state, step) -> name -> number`, or None if it broke off because a stop was asked for (then it is
            made up for after the resume).
        preview: `(state, step)`: writes pictures.
    """

    step: Callable[[Any, dict[str, Any], Any, Any, Any], tuple[Any, Mapping[str, Any], finite.FiniteReport]]
    batch: Callable[[int], Any] = _no_batch
    reshape: Callable[[Any, dict[str, Any], int], tuple[Any, dict[str, Any]]] = _same_shapes
    evaluate: Callable[[Any, int], Mapping[str, float] | None] = _no_evaluation
    preview: Callable[[Any, int], None] = _no_preview


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Where training begins: the state after `step` updates, its `aux`, and whether it comes from a checkpoint."""

    state: Any
    aux: dict[str, Any]
    step: int
    resumed: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """How training ended: the state after `step` updates, `seconds` of training so far, and if a signal stopped it."""

    state: Any
    aux: dict[str, Any]
    step: int
    seconds: float
    stopped: bool


def train(
    start: Start,
    *,
    num_steps: int,
    max_seconds: float | None,
    program: Program,
    cadence: Cadence,
    checkpoints: checkpoints_lib.Checkpoints,
    writer: MetricWriter,
    progress: Progress,
    stop: StopSignal,
    watchdog: Watchdog | None = None,
) -> Finished:
    """Trains until `num_steps` updates are done, the time is over or a stop is asked for, and saves the last state.

    A checkpoint that fails for want of room is reported and tried again at the next one that is due; only the last one
    has to succeed.

    Args:
        start: where to begin. Its state, a pytree of arrays without typed PRNG keys, is donated. Its `aux`, JSON values
            saved along such as buffer sizes, gets `seconds` (training time, earlier attempts included) and `evaluated`
            (step of the last evaluation).
        num_steps: updates to reach.
        max_seconds: training time to stop at, compilation and earlier attempts included; None for no limit.
        program: what is trained.
        cadence: how often things happen.
        checkpoints: where the state goes.
        writer: where the numbers go.
        progress: where the user looks.
        stop: the flag that signals raise.
        watchdog: ends the process when no step comes.

    Raises:
        NonFiniteError: an array of a finite report was not finite; the last good checkpoint is left as it is.
        NoRoomError: the last state, or a line of metrics, could not be written.
    """
    stop.install()
    watchdog = watchdog or Watchdog()  # One that is not entered watches nothing.
    state, aux, step = start.state, dict(start.aux), start.step
    clock = _Clock(aux.get("seconds", 0.0), max_seconds, cadence, stop)
    log = _Log(num_steps, cadence, writer, progress, watchdog, clock)
    last_save = clock.seconds
    # jax_debug_nans runs a step that gave a NaN again, operation by operation, each with transfers of its own.
    transfers = "allow" if jax.config.jax_debug_nans else "disallow"  # pyright: ignore[reportAttributeAccessIssue]
    while True:
        clock.agree(step, log.settle)
        done = step >= num_steps or clock.over
        evaluate = cadence_lib.due(cadence.evaluate_every, step) and aux.get("evaluated") != step
        preview = cadence_lib.due(cadence.preview_every, step) and step > start.step
        late = cadence.checkpoint_seconds is not None and clock.seconds - last_save >= cadence.checkpoint_seconds
        save = step > start.step and (cadence_lib.due(cadence.checkpoint_every, step) or late)
        if evaluate or preview or save or done or clock.stopping:
            log.settle()
        with watchdog.paused():
            if evaluate and not clock.stopping:
                values = program.evaluate(state, step)
                if values is not None:
                    writer.write(step, {**values, "seconds": clock.now()})
                    progress.update(step, values)
                    aux["evaluated"] = step
            if preview and not clock.stopping:
                program.preview(state, step)
            if evaluate or preview:
                clock.agree(step, log.settle, now=True)  # Both may have taken long, and poll the flag themselves.
            aux["seconds"] = clock.seconds
            if save and not (done or clock.stopping):
                checkpoints.save(step, state, aux)
                last_save = clock.seconds
        if done or clock.stopping:
            break
        state, aux = program.reshape(state, aux, step)
        batch = jax.tree.map(_on_device, program.batch(step))
        where, fraction = jax.device_put((np.int32(step), np.float32(clock.fraction(step, num_steps))))
        with jax.transfer_guard_host_to_device(transfers):
            state, metrics, report = program.step(state, aux, batch, where, fraction)
        log.settle()
        step += 1
        log.begin(step, metrics, report)
    with watchdog.paused():
        if not checkpoints.saved(step):
            checkpoints.save(step, state, aux)
        checkpoints.wait()
    return Finished(state=state, aux=aux, step=step, seconds=clock.seconds, stopped=clock.stopping)


def resume_or_init(
    checkpoints: checkpoints_lib.Checkpoints,
    *,
    resume: bool,
    init: Callable[[], tuple[Any, dict[str, Any]]],
    make_target: Callable[[dict[str, Any]], Any],
    say: Callable[[str], None] = print,
) -> Start:
    """The state to start from.

    Args:
        checkpoints: where earlier states are.
        resume: whether to look for them; the caller has refused a folder with a run in it if not.
        init: makes a fresh `(state, aux)`.
        make_target: from `aux` to the shapes of the state, see `Checkpoints.restore_newest`.
        say: where the sentence about the start goes.

    Raises:
        InputError: the checkpoint is of another kind of run.
    """
    if resume:
        # 1. --resume and a checkpoint that is whole: it alone decides, `init` is not called.
        restored = checkpoints.restore_newest(make_target)
        if restored is not None:
            say(f"resuming from the checkpoint of step {restored.step}")
            return Start(state=restored.state, aux=restored.aux, step=restored.step, resumed=True)
        # 2. --resume and none: a fresh start, said aloud, since the user expected otherwise.
        say("no checkpoint to resume from: starting afresh")
    # 3. A fresh start.
    state, aux = init()
    return Start(state=state, aux=aux, step=0, resumed=False)


def _on_device(leaf: Any) -> Any:
    # Arrays that are spread over processes are in place already, and device_put refuses them.
    return leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf)


class _Clock:
    """Time and stop, as all processes see them: process 0's clock, anybody's signal, exchanged every few updates."""

    def __init__(self, before: float, limit: float | None, cadence: Cadence, stop: StopSignal) -> None:
        self._began, self._before, self._limit, self._stop = time.monotonic(), before, limit, stop
        self._every = cadence.agree_every
        self.seconds = before
        self.stopping = False

    def now(self) -> float:
        return self._before + time.monotonic() - self._began

    def agree(self, step: int, settle: Callable[[], None], *, now: bool = False) -> None:
        if jax.process_count() == 1:
            self.seconds, self.stopping = self.now(), self._stop.requested
        elif now or step % self._every == 0:
            # The CPU backend runs independent programs in any order, and two processes that each run an exchange and an
            # update in another order wait for each other for ever: so none is under way during the exchange.
            settle()
            own = np.array([self.now(), self._stop.requested], np.float32)
            views = np.asarray(multihost_utils.process_allgather(own))
            self.seconds, self.stopping = float(views[0, 0]), bool(views[:, 1].any())

    @property
    def over(self) -> bool:
        return self._limit is not None and self.seconds >= self._limit

    def fraction(self, step: int, num_steps: int) -> float:
        spent = 0.0 if self._limit is None else self.seconds / self._limit
        return min(max(step / num_steps, spent), 1.0)


class _Log:
    """Keeps the newest update's outcome until the next one is under way, then checks and logs it."""

    def __init__(
        self,
        num_steps: int,
        cadence: Cadence,
        writer: MetricWriter,
        progress: Progress,
        watchdog: Watchdog,
        clock: _Clock,
    ) -> None:
        self._num_steps, self._every, self._clock = num_steps, cadence.log_every, clock
        self._writer, self._progress, self._watchdog = writer, progress, watchdog
        self._pending: tuple[int, Mapping[str, Any], finite.FiniteReport] | None = None
        self._first: dict[str, float] = {}
        self._began: float | None = time.monotonic()

    def begin(self, step: int, metrics: Mapping[str, Any], report: finite.FiniteReport) -> None:
        self._pending = (step, metrics, report)
        if self._began is not None:
            self.settle()

    def settle(self) -> None:
        if self._pending is None:
            return
        (step, metrics, report), self._pending = self._pending, None
        problem = finite.describe_non_finite(report)
        if problem is not None:
            raise finite.NonFiniteError(
                f"step {step - 1}: {problem}; nothing of it was saved; --resume and JAX_DEBUG_NANS=1 show the operation"
            )
        self._watchdog.beat()
        if self._began is not None:  # The first update of a process compiles: its time is logged apart.
            self._first, self._began = {"first_step_seconds": time.monotonic() - self._began}, None
        if cadence_lib.due(self._every, step) or step == self._num_steps:
            values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
            self._writer.write(step, {**values, **self._first, "seconds": self._clock.now()})
            self._first = {}
            self._progress.update(step, values)
        else:
            self._progress.update(step)
