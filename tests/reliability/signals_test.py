"""R8: a request to stop, in any phase, ends in a checkpoint and exit code 75, and the run goes on as if unbroken."""

import signal

import pytest

from tests.reliability import drivers
from tests.reliability.conftest import TOY


@pytest.mark.parametrize(
    ("phase", "number", "flags"),
    [
        ("import", signal.SIGTERM, ["--linger_in=import"]),
        ("compile", signal.SIGINT, ["--unroll=300", "--runtime.compilation_cache=off"]),
        ("train", signal.SIGTERM, ["--linger_in=train"]),
        ("evaluate", signal.SIGUSR1, ["--linger_in=evaluate"]),
        ("export", signal.SIGTERM, ["--linger_in=export"]),
    ],
)
def test_stopped_run_exits_75_and_resumes_bit_equal(phase, number, flags, unbroken, tmp_path, log):
    run = tmp_path / "run"
    ended = drivers.stop_at([*TOY, *flags], run, phase, [number], log)
    assert ended.code == 75, ended.err
    assert ended.seconds < 30.0
    assert number.name in ended.err
    assert "Traceback" not in ended.err
    ended = drivers.run([*TOY, f"--workdir={run}", "--resume"], log)
    assert ended.code == 0, ended.err
    assert drivers.final_arrays_digest(run) == unbroken.digest
    assert drivers.logged_numbers(run) == unbroken.numbers


def test_second_interrupt_leaves_at_once_even_while_compiling(tmp_path, log):
    command = [*TOY, "--unroll=6000", "--runtime.compilation_cache=off"]
    ended = drivers.stop_at(command, tmp_path / "run", "compile", [signal.SIGINT, signal.SIGINT], log)
    assert ended.code == 75
    assert ended.seconds < 1.0
    assert "leaving at once" in ended.err
