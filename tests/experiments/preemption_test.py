import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments import preemption

_ROOT = pathlib.Path(__file__).parents[2]


def _wait(condition):
    end = time.monotonic() + 5.0
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    assert condition()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signal_raises_the_flag_and_names_itself(number, capfd):
    with preemption.StopSignal() as stop:
        stop.exit_if_requested()
        assert not stop.requested
        os.kill(os.getpid(), number)
        _wait(lambda: stop.requested)
        assert stop.reason == number.name
        with pytest.raises(SystemExit) as caught:
            stop.exit_if_requested()
    assert caught.value.code == 75
    assert capfd.readouterr().err.startswith(number.name)


def test_former_handlers_come_back():
    received = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
    try:
        with preemption.StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            _wait(lambda: stop.requested)
            assert received == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert received == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert signal.set_wakeup_fd(-1) == -1
    _wait(lambda: all(thread.name != "stop-signal" for thread in threading.enumerate()))


def test_install_takes_a_stolen_signal_back():
    with preemption.StopSignal() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as jax.distributed.initialize does, in its way
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        assert not stop.requested
        stop.install()
        os.kill(os.getpid(), signal.SIGTERM)
        _wait(lambda: stop.requested)


def _run_blocked(grace, numbers):
    """A program whose main thread sits in C code that never comes back: sends it signals, returns its end."""
    script = (
        "import hashlib; from experiments import preemption\n"
        f"with preemption.StopSignal(grace_seconds={grace}):\n"
        "    print('ready', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)\n"  # Releases the interpreter lock, as XLA does.
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.05)
        _, err = process.communicate(timeout=20)
        return process.returncode, err, time.monotonic() - began
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_grace_time_ends_a_program_that_does_not_come_back():
    code, err, seconds = _run_blocked(0.5, [signal.SIGTERM])
    assert code == 75
    assert 0.4 < seconds < 3.0
    assert "no step boundary within 0.5 s of SIGTERM" in err


def test_second_interrupt_leaves_at_once_but_a_second_sigterm_does_not():
    code, err, seconds = _run_blocked(60.0, [signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
    assert code == 75
    assert seconds < 3.0
    assert err.count("stopping at the next step boundary") == 1
    assert "leaving at once" in err
