import enum
import errno
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import tempfile

import numpy as np
import pytest

from experiments import errors, workdir
from tests.helpers import programs

HOLD = """
import sys, time
from experiments import workdir
workdir.open_workdir("toy", sys.argv[1], resume=True, config={})
print("held", flush=True)
time.sleep(60)
"""
AS_NOBODY = """
import os, sys
from experiments import errors, workdir
if os.geteuid() == 0:  # Root may write anywhere.
    os.setgid(65534)
    os.setuid(65534)
try:
    workdir.open_workdir("toy", sys.argv[1], resume=False, config={})
except errors.InputError as error:
    print("InputError:", error)
"""


class Color(enum.Enum):
    RED = 1


@pytest.fixture(autouse=True)
def _release_locks():
    yield
    while workdir._held_locks:
        os.close(workdir._held_locks.popitem()[1])


def open_run(path, *, resume=False, **config):
    return workdir.open_workdir("toy", str(path), resume=resume, config=config)


def test_a_new_run_describes_itself(tmp_path):
    folder = open_run(tmp_path / "a" / "b", seed=3, lr=0.1, names=("x", "y"), color=Color.RED, most=float("inf"))
    config = json.loads((folder / "config.json").read_text())
    assert config["flags"] == {"seed": 3, "lr": 0.1, "names": ["x", "y"], "color": "RED", "most": "inf"}
    assert config["packages"]["jax"] and config["packages"]["numpy"] == np.__version__
    assert config["device"]["platform"] == "cpu" and config["device"]["num_devices"] == 4
    assert config["name"] == "toy" and config["hostname"] and config["argv"]
    assert "git_commit" in config


def test_the_default_folder_is_named_by_time_and_never_shared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = workdir.open_workdir("toy", None, resume=False, config={})
    second = workdir.open_workdir("toy", None, resume=False, config={})
    assert first != second and first.parent == second.parent == tmp_path / "runs" / "toy"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-\d+)?", second.name)


def test_resuming_without_a_folder_names_the_newest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert workdir.open_workdir("toy", None, resume=True, config={}).is_dir()  # Nothing to resume: starts afresh.
    with pytest.raises(errors.InputError, match=r"--resume needs the run's --workdir; the newest here is .*runs/toy/"):
        workdir.open_workdir("toy", None, resume=True, config={})


@pytest.mark.parametrize("sign", ["config.json", "metrics.jsonl", "checkpoints"])
def test_a_folder_that_holds_a_run_is_refused(tmp_path, sign):
    (tmp_path / sign).mkdir() if sign == "checkpoints" else (tmp_path / sign).write_text("{}")
    with pytest.raises(errors.InputError, match=f"already holds a run .{sign}.*--resume.*--workdir"):
        open_run(tmp_path)
    assert open_run(tmp_path, resume=True) == tmp_path


def test_other_files_in_a_folder_are_no_run_and_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    open_run(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_resuming_with_other_flags_warns_and_keeps_the_old_description(tmp_path, capsys):
    open_run(tmp_path, seed=1, lr=0.1)
    original = (tmp_path / "config.json").read_bytes()
    open_run(tmp_path, resume=True, seed=1, lr=0.1)
    assert (tmp_path / "config.json").read_bytes() == original and capsys.readouterr().err == ""
    open_run(tmp_path, resume=True, seed=1, lr=0.2)
    warning = capsys.readouterr().err
    assert "--lr: 0.1 -> 0.2" in warning and "seed" not in warning
    assert (tmp_path / "config.1.json").read_bytes() == original
    assert json.loads((tmp_path / "config.json").read_text())["flags"]["lr"] == 0.2
    open_run(tmp_path, resume=True, seed=1, lr=0.3)
    assert (tmp_path / "config.2.json").exists()


def test_a_damaged_description_does_not_stop_a_resume(tmp_path, capsys):
    open_run(tmp_path, seed=1)
    (tmp_path / "config.json").write_text('{"flags": ')
    open_run(tmp_path, resume=True, seed=1)
    assert "unreadable" in capsys.readouterr().err
    assert json.loads((tmp_path / "config.json").read_text())["flags"] == {"seed": 1}
    assert (tmp_path / "config.1.json").read_text() == '{"flags": '


def test_two_processes_cannot_share_a_folder_and_a_kill_frees_it(tmp_path):
    holder = subprocess.Popen(
        [*programs.command("this")[:1], "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=programs.environment(),
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.InputError, match=f"in use by process {holder.pid} on .*another --workdir"):
            open_run(tmp_path, resume=True)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert open_run(tmp_path, resume=True) == tmp_path


@pytest.mark.parametrize("name", ["with space", "ünïcödé 椅子 🪑", "-dash", "quo'te\"", "a" * 255])
def test_any_name_will_do(tmp_path, name):
    folder = open_run(tmp_path / name, prompt=name)
    workdir.write_bytes_atomic(folder / ("b" * 251 + ".bin"), b"x")
    assert json.loads((folder / "config.json").read_text())["flags"]["prompt"] == name


def test_a_path_that_is_not_unicode_works(tmp_path):
    folder = open_run(tmp_path / os.fsdecode(b"caf\xe9"), prompt=os.fsdecode(b"caf\xe9"))
    assert json.loads((folder / "config.json").read_text(errors="surrogateescape"))["name"] == "toy"


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_nonsense_is_refused(path):
    with pytest.raises(errors.InputError, match="--workdir must name a folder"):
        open_run(path)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(errors.InputError, match="is a file"):
        open_run(tmp_path / "file")
    with pytest.raises(errors.InputError, match="cannot write"):
        open_run(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_read_only_folder_is_bad_input():
    base = pathlib.Path(tempfile.mkdtemp(prefix="galatea-readonly-"))
    try:
        base.chmod(0o555)
        for path in (base, base / "new" / "run"):
            done = programs.run_code(AS_NOBODY, str(path))
            expected = r"InputError: cannot write .*: Permission denied; choose a writable place with --workdir"
            assert re.match(expected, done.stdout), done
    finally:
        base.chmod(0o755)
        shutil.rmtree(base)


def test_only_process_0_writes(tmp_path):
    path = tmp_path / "shared"
    assert workdir.open_workdir("toy", str(path), resume=False, config={}, process_index=1, process_count=2) == path
    assert not path.exists()
    with pytest.raises(errors.InputError, match="same --workdir"):
        workdir.open_workdir("toy", None, resume=False, config={}, process_index=0, process_count=2)


def test_an_interrupted_write_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch):
    target = tmp_path / "state.json"
    workdir.write_json_atomic(target, {"step": 1})

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(errors.NoRoomError, match="no room to write .*state.json"):
        workdir.write_json_atomic(target, {"step": 2})
    assert json.loads(target.read_text()) == {"step": 1}
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_file_size_limit_counts_as_no_room(tmp_path):
    workdir.write_bytes_atomic(tmp_path / "x", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(errors.NoRoomError):
            workdir.write_bytes_atomic(tmp_path / "x", b"n" * 10000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "x").read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


def test_json_values_survive_or_become_the_nearest_thing(tmp_path):
    value = {"a": (1, 2), "b": np.float32(0.1), "c": np.arange(3), "d": pathlib.Path("/x"), 1: None, "e": -np.inf}
    workdir.write_json_atomic(tmp_path / "v.json", value)
    read = json.loads((tmp_path / "v.json").read_text())
    expected = {"a": [1, 2], "b": float(np.float32(0.1)), "c": [0, 1, 2], "d": "/x", "1": None, "e": "-inf"}
    assert read == expected
