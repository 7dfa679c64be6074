import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cadence, checkpoints, errors, finite, metrics, preemption, progress, train_loop

_STEPS = 12
_CADENCE = cadence.Cadence(
    log_every=1, evaluate_every=3, preview_every=6, checkpoint_every=4, checkpoint_seconds=None, agree_every=1
)


@jax.jit(donate_argnums=0)
def _update(state, batch, step, fraction):
    gradient = state["x"] - batch + 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(0), step), (3,))
    new = {"x": state["x"] - 0.5 * (1.0 - fraction) * gradient, "seen": state["seen"].at[step].set(batch)}
    report = finite.finite_report({"gradient": {"x": gradient}})
    return new, {"loss": jnp.sum(gradient**2), "fraction": fraction}, report


def _step(state, aux, batch, step, fraction):
    return _update(state, batch, step, fraction)


def _batch(step):
    return np.float32(np.sin(step))


def _reshape(state, aux, step):
    if step < aux["rows"]:
        return state, aux
    rows = 2 * aux["rows"]
    return {**state, "seen": jnp.zeros((rows,)).at[: aux["rows"]].set(state["seen"])}, {**aux, "rows": rows}


def _evaluate(state, step):
    return {"error": float(np.sum(np.asarray(state["x"]) ** 2))}


def _program(**changes):
    functions = {"step": _step, "batch": _batch, "reshape": _reshape, "evaluate": _evaluate} | changes
    return train_loop.Program(**functions)


def _init():
    return {"x": jnp.ones((3,)), "seen": jnp.zeros((4,))}, {"rows": 4}


def _target(aux):
    return {"x": jnp.ones((3,)), "seen": jnp.zeros((aux["rows"],))}


def _run(folder, program, *, stop=None, resume=False, max_seconds=None, steps=_STEPS, rhythm=_CADENCE):
    with contextlib.ExitStack() as stack:
        stop = stop or preemption.StopSignal()  # Not entered: signals are not touched.
        saved = stack.enter_context(checkpoints.Checkpoints(folder / "checkpoints"))
        start = train_loop.resume_or_init(saved, resume=resume, init=_init, make_target=_target)
        writer = stack.enter_context(
            metrics.MetricWriter(folder, restored_step=start.step if start.resumed else None, tensorboard=False)
        )
        bar = stack.enter_context(progress.Progress(steps, description="test", enabled=False))
        return train_loop.train(
            start,
            num_steps=steps,
            max_seconds=max_seconds,
            program=program,
            cadence=rhythm,
            checkpoints=saved,
            writer=writer,
            progress=bar,
            stop=stop,
        )


def _numbers(folder):
    return [
        {name: value for name, value in line.items() if not name.endswith("seconds")}
        for line in metrics.read_metrics(folder)
    ]


def _bits(state):
    return {name: (np.asarray(leaf).shape, np.asarray(leaf).tobytes()) for name, leaf in state.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finished = _run(folder, _program())
    assert (finished.step, finished.stopped) == (_STEPS, False)
    return _bits(finished.state), _numbers(folder)


def test_numbers_are_those_of_the_plain_loop(whole):
    """The loop adds order and safety, not arithmetic."""
    state, aux = _init()
    lines = []
    for step in range(_STEPS):
        state, aux = _reshape(state, aux, step)
        state, values, _ = _update(state, _batch(step), jnp.int32(step), jnp.float32(step / _STEPS))
        lines.append({"step": step + 1, "loss": float(values["loss"]), "fraction": float(values["fraction"])})
        if (step + 1) % 3 == 0:
            lines.append({"step": step + 1, **_evaluate(state, step + 1)})
    assert whole == (_bits(state), lines)
    np.testing.assert_array_equal(state["seen"][:_STEPS], [_batch(step) for step in range(_STEPS)])


@pytest.mark.parametrize("at", range(_STEPS))
def test_stopped_at_any_step_and_resumed_is_bit_equal(at, whole, tmp_path):
    stop = preemption.StopSignal()

    def batch(step):
        if step == at:
            stop.request("test")
        return _batch(step)

    stopped = _run(tmp_path, _program(batch=batch), stop=stop)
    # The update that was begun when the request came is finished, saved and logged.
    assert (stopped.step, stopped.stopped) == (at + 1, True)
    finished = _run(tmp_path, _program(), resume=True)
    assert (finished.step, finished.stopped) == (_STEPS, False)
    assert (_bits(finished.state), _numbers(tmp_path)) == whole


def test_evaluation_broken_off_by_a_stop_is_made_up_for(whole, tmp_path):
    stop = preemption.StopSignal()

    def evaluate(state, step):
        if step == 6:
            stop.request("test")
            return None
        return _evaluate(state, step)

    assert _run(tmp_path, _program(evaluate=evaluate), stop=stop).step == 6
    assert all("error" not in line for line in _numbers(tmp_path) if line["step"] == 6)
    finished = _run(tmp_path, _program(), resume=True)
    assert (_bits(finished.state), _numbers(tmp_path)) == whole


def test_order_of_side_effects(tmp_path, monkeypatch):
    events = []

    def note(name, function):
        def noted(*arguments):
            events.append((name, arguments[-1] if isinstance(arguments[-1], int) else None))
            return function(*arguments)

        return noted

    monkeypatch.setattr(
        checkpoints.Checkpoints,
        "save",
        lambda self, step, state, aux: events.append(("save", step)) or _saves(self, step, state, aux),
    )
    program = _program(
        step=note("step", _step),
        batch=note("batch", _batch),
        evaluate=note("evaluate", _evaluate),
        preview=note("preview", lambda state, step: None),
    )
    rhythm = cadence.Cadence(evaluate_every=2, preview_every=2, checkpoint_every=2, checkpoint_seconds=None)
    _run(tmp_path, program, steps=4, rhythm=rhythm)
    two = [("batch", 0), ("step", None), ("batch", 1), ("step", None), ("evaluate", 2), ("preview", 2), ("save", 2)]
    assert events == two + [(name, step + 2 if step is not None else None) for name, step in two]


_saves = checkpoints.Checkpoints.save


@pytest.mark.parametrize("at", [0, 3, 4, 7, 11])
def test_nan_stops_within_one_step_and_is_neither_logged_evaluated_nor_saved(at, tmp_path):
    evaluated, begun = [], []

    def batch(step):
        begun.append(step)
        return np.float32(np.nan) if step == at else _batch(step)

    def evaluate(state, step):
        evaluated.append(step)
        return _evaluate(state, step)

    with pytest.raises(finite.NonFiniteError, match=rf"^step {at}: non-finite gradient in x \(3 of 3 entries\)"):
        _run(tmp_path, _program(batch=batch, evaluate=evaluate))
    assert max(begun) <= at + 1
    assert max(checkpoints.Checkpoints(tmp_path / "checkpoints").steps(), default=0) == at // 4 * 4
    assert max(evaluated, default=0) == at // 3 * 3
    assert max((line["step"] for line in _numbers(tmp_path)), default=0) == at
    assert "nonfinite" not in (tmp_path / "metrics.jsonl").read_text()


def test_device_is_one_update_ahead(tmp_path, monkeypatch):
    """The report of an update is read only when the next one is under way (not so the first)."""
    dispatched, waits = [], []
    real = finite.describe_non_finite

    def describe(report):
        waits.append(len(dispatched))
        return real(report)

    def step(*arguments):
        dispatched.append(1)
        return _step(*arguments)

    monkeypatch.setattr(finite, "describe_non_finite", describe)
    rhythm = cadence.Cadence(log_every=2, checkpoint_seconds=None)
    _run(tmp_path, _program(step=step), steps=8, rhythm=rhythm)
    assert waits == [1, 3, 4, 5, 6, 7, 8, 8]


def test_time_limit_ends_the_run_and_anneals_the_schedule(tmp_path):
    now = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_loop.time, "monotonic", lambda: now[0])

        def batch(step):
            now[0] += 1.0
            return _batch(step)

        finished = _run(tmp_path, _program(batch=batch), max_seconds=8.0, steps=100)
        assert (finished.step, finished.seconds, finished.stopped) == (8, 8.0, False)
        fractions = [line["fraction"] for line in _numbers(tmp_path) if "fraction" in line]
        np.testing.assert_allclose(fractions, np.arange(8) / 8.0)
        # Time goes on adding up: of a limit of 11 s, three are left.
        finished = _run(tmp_path, _program(batch=batch), max_seconds=11.0, steps=100, resume=True)
        assert (finished.step, finished.seconds) == (11, 11.0)
        seconds = [line["seconds"] for line in metrics.read_metrics(tmp_path)]
        assert seconds == sorted(seconds)


def test_checkpoints_by_the_clock(tmp_path, monkeypatch):
    now, steps = [0.0], []
    monkeypatch.setattr(train_loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        checkpoints.Checkpoints,
        "save",
        lambda self, step, state, aux: steps.append(step) or _saves(self, step, state, aux),
    )

    def batch(step):
        now[0] += 1.0
        return _batch(step)

    _run(tmp_path, _program(batch=batch), rhythm=cadence.Cadence(checkpoint_seconds=5.0))
    assert steps == [5, 10, 12]


def test_restored_step_is_neither_saved_nor_evaluated_again(tmp_path, monkeypatch):
    _run(tmp_path, _program(), steps=6)
    steps = []
    monkeypatch.setattr(checkpoints.Checkpoints, "save", lambda self, step, state, aux: steps.append(step))
    monkeypatch.setattr(checkpoints.Checkpoints, "saved", lambda self, step: True)
    rhythm = cadence.Cadence(checkpoint_every=2, evaluate_every=3, checkpoint_seconds=None)
    _run(tmp_path, _program(), resume=True, rhythm=rhythm)
    assert steps == [8, 10]
    assert [line["step"] for line in _numbers(tmp_path) if "error" in line] == [3, 6, 9, 12]


def test_first_step_is_timed_apart_once_per_process(tmp_path):
    _run(tmp_path, _program(), steps=3)
    _run(tmp_path, _program(), steps=6, resume=True)
    timed = [line["step"] for line in metrics.read_metrics(tmp_path) if "first_step_seconds" in line]
    assert timed == [1, 4]


def test_training_goes_on_without_room_and_ends_with_the_error_only_if_the_end_is_not_saved(
    tmp_path, monkeypatch, whole
):
    real, free = checkpoints.shutil.disk_usage, [2**40]
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: real(path)._replace(free=free[0]))

    def batch(step):
        free[0] = 0 if 2 <= step < full_until else 2**40
        return _batch(step)

    full_until = 11
    finished = _run(tmp_path / "a", _make(tmp_path / "a", batch))
    assert _bits(finished.state) == whole[0]
    assert checkpoints.Checkpoints(tmp_path / "a/checkpoints").steps() == [12]
    full_until = 100
    with pytest.raises(errors.NoRoomError, match="checkpoint of step 12"):
        _run(tmp_path / "b", _make(tmp_path / "b", batch))
    assert _numbers(tmp_path / "b") == whole[1]


def _make(folder, batch):
    folder.mkdir()
    return _program(batch=batch)


def test_hidden_transfers_in_the_step_are_refused(tmp_path):
    def step(state, aux, batch, step, fraction):
        return _update(state, np.float32(1.0), step, fraction)

    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        _run(tmp_path, _program(step=step))


def test_resume_without_a_checkpoint_says_so(tmp_path):
    said = []
    with checkpoints.Checkpoints(tmp_path) as saved:
        start = train_loop.resume_or_init(saved, resume=True, init=_init, make_target=_target, say=said.append)
    assert (start.step, start.resumed) == (0, False)
    assert said == ["no checkpoint to resume from: starting afresh"]


def test_a_finished_run_resumes_to_its_end_without_a_step(tmp_path, whole):
    _run(tmp_path, _program())

    def batch(step):
        raise AssertionError("no step is left")

    finished = _run(tmp_path, _program(batch=batch), resume=True)
    assert (_bits(finished.state), _numbers(tmp_path)) == whole
