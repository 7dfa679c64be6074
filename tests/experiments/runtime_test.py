import json
import os
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import errors, runtime
from tests.helpers import programs


@pytest.fixture
def restored_cache_settings():
    names = [
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    ]
    values = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in values.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("restored_cache_settings")
def test_where_compiled_programs_go(tmp_path, capsys):
    chosen = runtime.set_compilation_cache(str(tmp_path / "a"), {})
    assert chosen == tmp_path / "a" and chosen.is_dir()
    named = runtime.set_compilation_cache(None, {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "b"), "HOME": "/x"})
    assert named == tmp_path / "b" and jax.config.jax_compilation_cache_dir == str(named)
    default = runtime.set_compilation_cache(None, {"XDG_CACHE_HOME": str(tmp_path / "c"), "HOME": "/x"})
    assert default.parent == tmp_path / "c" / "galatea3d"
    assert runtime.set_compilation_cache(None, {"HOME": str(tmp_path)}).parent == tmp_path / ".cache" / "galatea3d"
    assert runtime.set_compilation_cache(None, {}) is None  # No home.
    assert runtime.set_compilation_cache("off", {"HOME": str(tmp_path)}) is None
    assert jax.config.jax_compilation_cache_dir is None
    assert capsys.readouterr().err == ""
    (tmp_path / "file").write_text("")
    assert runtime.set_compilation_cache(str(tmp_path / "file" / "x"), {}) is None
    assert "compiled programs are not kept" in capsys.readouterr().err


def test_the_mesh_splits_views_over_all_devices():
    mesh = runtime.data_mesh()
    views = jax.device_put(jnp.arange(8.0), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("views")))
    parts = [np.asarray(shard.data) for shard in views.addressable_shards]
    assert len(parts) == jax.device_count() == 4
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(8.0))
    assert float(jax.jit(jnp.sum)(views)) == 28.0


def test_the_report_is_json_and_true():
    report = json.loads(json.dumps(runtime.platform_report()))
    assert report["platform"] == "cpu" and report["num_devices"] == 4 and report["num_processes"] == 1
    assert report["cpu_count"] == len(os.sched_getaffinity(0))


def test_the_watchdog_allows_ten_medians_but_never_less_than_its_minimum(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    dog = runtime.Watchdog(60.0, first_seconds=900.0)
    assert dog.limit() == 900.0  # The first step compiles.
    for seconds in (500.0, 9.0, 8.0, 7.0):
        now[0] += seconds
        dog.beat()
    assert dog.limit() == 80.0  # The compiling step does not count.
    for _ in range(200):
        now[0] += 1.0
        dog.beat()
    assert dog.limit() == 60.0


STUCK = """
import time
from experiments import runtime
def a_loop_that_is_stuck():
    with runtime.Watchdog(0.3, first_seconds=0.3) as dog:
        with dog.paused():
            time.sleep(0.8)
        for _ in range(10):
            time.sleep(0.02)
            dog.beat()
        print("went well until here", flush=True)
        time.sleep(30)
a_loop_that_is_stuck()
"""


def test_a_stuck_process_shows_its_stacks_and_ends():
    done = programs.run_code(STUCK)
    assert done.returncode == errors.EXIT_STOPPED and done.stdout == "went well until here\n"
    assert "watchdog: no step for" in done.stderr and "a_loop_that_is_stuck" in done.stderr


def test_a_watchdog_that_is_switched_off_or_left_ends_nothing():
    with runtime.Watchdog(0.0) as dog:
        assert not dog._thread.is_alive()
    with runtime.Watchdog(0.05, first_seconds=5.0) as dog:
        dog.beat()
    assert not dog._thread.is_alive()


PAIR = """
import json, sys, time
from experiments import config_fields, runtime
address, index, ending = sys.argv[1], int(sys.argv[2]), sys.argv[3]
config = config_fields.RuntimeConfig(coordinator=address, num_processes=2, process_id=index, platform="cpu",
                                     num_cpu_devices=2, compilation_cache="off")
processes = runtime.setup(config)
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
sharding = NamedSharding(runtime.data_mesh(), PartitionSpec("views"))
x = jax.make_array_from_callback((4,), sharding, lambda i: jnp.arange(4.0)[i])
total = float(jax.jit(jnp.sum, out_shardings=NamedSharding(runtime.data_mesh(), PartitionSpec()))(x))
port = int(address.rpartition(":")[2])
listening = [line.split()[1] for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}").readlines()[1:]
             if line.split()[3] == "0A" and int(line.split()[1].rpartition(":")[2], 16) == port]
print(json.dumps([processes.index, processes.count, jax.device_count(), total, listening]), flush=True)
if ending == "raise" and index == 1:
    raise RuntimeError("only this process has failed")
if ending == "raise":
    time.sleep(100)
"""


def start_pair(ending):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        subprocess.Popen(
            [sys.executable, "-c", PAIR, address, str(index), ending],
            env=programs.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in range(2)
    ]


def test_two_processes_meet_on_the_given_address_only():
    pair = start_pair("well")
    outcomes = [(*process.communicate(timeout=120), process.returncode) for process in pair]
    for index, (out, err, code) in enumerate(outcomes):
        assert code == 0, err
        *found, listening = json.loads(out.splitlines()[-1])  # The collectives library talks on stdout before.
        assert found == [index, 2, 4, 6.0]
        # 127.0.0.1 in the kernel's notation, or the same mapped to IPv6.
        assert [end.partition(":")[0][-8:] for end in listening] == ["0100007F"]


@pytest.mark.slow
def test_when_one_process_fails_the_others_do_not_hang():
    pair = start_pair("raise")
    began = time.monotonic()
    try:
        _, err = pair[1].communicate(timeout=60)
        assert pair[1].returncode == 1 and "only this process has failed" in err
        pair[0].communicate(timeout=60)
        assert pair[0].returncode != 0
    finally:
        for process in pair:
            process.kill()
    assert time.monotonic() - began < 30
