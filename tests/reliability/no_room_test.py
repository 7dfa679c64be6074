"""R7: a full disk leaves the older steps intact; training goes on; it ends with 74 if the last state is not saved."""

import contextlib
import os
import re
import signal
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoints, errors
from tests.reliability import drivers
from tests.reliability.conftest import TOY


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0777", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def _filled(folder, *, leave):
    path = folder / "filler"
    status = os.statvfs(folder)
    path.write_bytes(bytes(max(status.f_bavail * status.f_frsize - leave, 0)))
    yield
    path.unlink()


def test_a_run_goes_on_over_a_full_disk_and_resumes_bit_equal(small_disk, unbroken, log):
    run = small_disk / "run"
    assert drivers.stop_at([*TOY, "--linger_in=train"], run, "train", [signal.SIGTERM], log).code == 75
    before = drivers.final_arrays_digest(run)
    with _filled(small_disk, leave=100_000):
        ended = drivers.run([*TOY, f"--workdir={run}", "--resume"], log)
        assert ended.code == 74, ended.err
        # Training reached its end, warning at every checkpoint that was due, and only then gave up.
        assert drivers.logged_numbers(run) == unbroken.numbers
        warnings = re.findall(
            r"no room for the checkpoint of step (\d+) .*? ([\d,]+) bytes needed, ([\d,]+) free", ended.err
        )
        assert [int(step) for step, _, _ in warnings] == [15, 20, 25, 30, 35, 40, 40]
        assert all(int(needed.replace(",", "")) > int(free.replace(",", "")) for _, needed, free in warnings)
        assert f"step {before[0]} is intact" in ended.err
        assert "Traceback" not in ended.err
        assert drivers.final_arrays_digest(run) == before
        assert drivers.leftovers(run) == []
    assert drivers.run([*TOY, f"--workdir={run}", "--resume"], log).code == 0
    assert drivers.final_arrays_digest(run) == unbroken.digest
    assert drivers.logged_numbers(run) == unbroken.numbers


def _state(step):
    # Noise, lest a sparse file take no room.
    return {"means": jnp.asarray(np.random.default_rng(step).normal(size=(100_000,)), jnp.float32)}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # coroutines that orbax drops
def test_disk_that_fills_up_while_writing_costs_that_step_only(small_disk, monkeypatch, capsys):
    folder = small_disk / "checkpoints"
    with checkpoints.Checkpoints(folder) as saved:
        saved.save(1, _state(1), {})
        saved.wait()
        real = checkpoints.shutil.disk_usage
        # The room seems to be there when it is measured, and is not when it is needed.
        monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: real(path)._replace(free=2**40))
        with _filled(small_disk, leave=150_000):
            saved.save(2, _state(2), {})
            with pytest.raises(errors.NoRoomError, match="no room for the checkpoint of step 2 .* step 1 is intact"):
                saved.wait()
            assert "no room for the checkpoint of step 2" in capsys.readouterr().err
            assert [entry.name for entry in folder.iterdir()] == ["1"]
            assert not saved.saved(2)
            restored = saved.restore_newest(lambda aux: _state(0))
            np.testing.assert_array_equal(restored.state["means"], _state(1)["means"])
        saved.save(3, _state(3), {})
        saved.wait()
        assert saved.steps() == [1, 3]


def test_file_size_limit_counts_as_no_room(tmp_path, log):
    """Works without root too: a limit of 64 kB a file stops a larger array."""
    script = (
        "import resource, sys, numpy as np; from experiments import checkpoints, errors\n"
        f"saved = checkpoints.Checkpoints({str(tmp_path / 'c')!r})\n"
        "saved.save(1, {'w': np.ones(8, np.float32)}, {}); saved.wait()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "saved.save(2, {'w': np.random.default_rng(0).normal(size=90000)}, {})\n"
        "try: saved.wait()\n"
        "except errors.NoRoomError: sys.exit(74)\n"
    )
    ended = drivers.run(["-c", script], log)
    assert ended.code == 74, ended.err
    assert sorted(entry.name for entry in (tmp_path / "c").iterdir()) == ["1"]
