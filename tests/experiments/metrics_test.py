import json
import math
import os
import resource
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import errors, media, metrics

ENOUGH = st.floats(allow_nan=False, allow_infinity=False)


def write_steps(folder, steps, **options):
    with metrics.MetricWriter(folder, tensorboard=False, **options) as writer:
        for step in steps:
            writer.write(step, {"loss": 1.0 / (step + 3)})


def lines(folder):
    return (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)


@given(st.dictionaries(st.text(max_size=8).filter(lambda s: s != "step" and "_nonfinite" not in s), st.floats()))
def test_every_number_reads_back_bit_equal(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("run")
    with metrics.MetricWriter(folder, tensorboard=False) as writer:
        writer.write(3, values)
    (record,) = metrics.read_metrics(folder)
    assert record.pop("step") == 3 and record.keys() == values.keys()
    for name, value in values.items():
        assert (
            struct.pack("d", record[name]) == struct.pack("d", value) or math.isnan(record[name]) and math.isnan(value)
        )


def test_lines_are_strict_json_even_for_nan(tmp_path):
    with metrics.MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(1, {"loss": float("nan"), "psnr": jnp.float32(jnp.inf), "n": np.int64(5), "ok": True})

    def refuse(word):
        raise AssertionError(f"not JSON: {word}")

    record = json.loads(lines(tmp_path)[0], parse_constant=refuse)
    assert record == {
        **{"step": 1, "loss": None, "loss_nonfinite": "nan", "psnr": None, "psnr_nonfinite": "inf"},
        **{"n": 5, "ok": 1},
    }


def test_float32_losses_that_differ_in_the_last_bit_give_different_lines(tmp_path):
    a = np.float32(0.1)
    with metrics.MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(0, {"a": a, "b": np.nextafter(a, np.float32(1)), "c": jnp.asarray(a)})
    (record,) = metrics.read_metrics(tmp_path)
    assert record["a"] != record["b"] and np.float32(record["a"]) == a and record["c"] == record["a"]


def test_resuming_cuts_back_to_the_restored_step_byte_by_byte(tmp_path):
    write_steps(tmp_path, range(10))
    before = lines(tmp_path)
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 10, "lo')  # Torn by a kill.
    assert [r["step"] for r in metrics.read_metrics(tmp_path)] == list(range(10))
    write_steps(tmp_path, range(7, 10), restored_step=6)
    assert lines(tmp_path) == before


def test_a_torn_line_that_happens_to_be_json_is_dropped_too(tmp_path):
    # The tail of `{"step": 12, ...` may be complete but for its newline, or be cut to a shorter number.
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "a": 2.0}\n{"step": 2, "a": 3.0}')
    write_steps(tmp_path, [], restored_step=5)
    assert lines(tmp_path) == [b'{"step": 1, "a": 2.0}\n']


def test_a_fresh_start_moves_the_lines_of_an_earlier_attempt_aside(tmp_path):
    write_steps(tmp_path, range(3))
    before = lines(tmp_path)
    write_steps(tmp_path, range(2))
    assert (tmp_path / "metrics.1.jsonl").read_bytes().splitlines(keepends=True) == before
    assert lines(tmp_path) == before[:2]


def test_a_line_is_with_the_operating_system_when_write_returns(tmp_path):
    with metrics.MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(0, {"a": 1.0})
        assert metrics.read_metrics(tmp_path) == [{"step": 0, "a": 1.0}]


def test_no_room_leaves_whole_lines(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with metrics.MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(0, {"a": 1.0})
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))
        try:
            with pytest.raises(errors.NoRoomError, match="no room to write .*metrics.jsonl"):
                for step in range(1, 9):
                    writer.write(step, {"a": 0.1234567890123})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        good = lines(tmp_path)
        assert good[-1].endswith(b"\n") and len(good) == len(metrics.read_metrics(tmp_path)) >= 1
        writer.write(99, {"a": 2.0})  # Room again: nothing is glued to a torn line.
    assert lines(tmp_path)[:-1] == good and metrics.read_metrics(tmp_path)[-1] == {"step": 99, "a": 2.0}


def test_other_processes_check_but_do_not_write(tmp_path):
    with metrics.MetricWriter(tmp_path / "absent", process_index=1) as writer:
        writer.write(0, {"a": 1.0})
        writer.image(0, "render", np.zeros((2, 2, 3), np.uint8))
        with pytest.raises(ValueError):
            writer.write(0, {"step": 1.0})
    assert not (tmp_path / "absent").exists()
    assert metrics.read_metrics(tmp_path / "absent") == []


@pytest.mark.parametrize("values", [{"step": 1.0}, {"a_nonfinite": 1.0}, {"a": np.zeros(2)}, {"a": "x"}, {"a": 1j}])
def test_what_is_not_a_named_number_is_refused(tmp_path, values):
    with metrics.MetricWriter(tmp_path, tensorboard=False) as writer, pytest.raises(ValueError, match="metric"):
        writer.write(0, values)


def read_events(folder):
    """Events of a TensorBoard folder by the published record format: length, its CRC, data, its CRC."""
    from tensorboardX.proto import event_pb2

    events = []
    for file in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            events.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return events


def test_tensorboard_sees_the_numbers_and_forgets_what_was_cut(tmp_path):
    with metrics.MetricWriter(tmp_path) as writer:
        writer.write(4, {"loss": 0.25})
        writer.image(4, "render", np.full((2, 3, 3), 200, np.uint8))
    scalars = [(e.step, v.tag, v.simple_value) for e in read_events(tmp_path / "tensorboard") for v in e.summary.value]
    assert scalars[0] == (4, "loss", 0.25) and scalars[1][:2] == (4, "render")
    for file in (tmp_path / "tensorboard").iterdir():
        file.unlink()
    with metrics.MetricWriter(tmp_path, restored_step=2):
        pass
    starts = [e for e in read_events(tmp_path / "tensorboard") if e.HasField("session_log")]
    assert [(e.step, e.session_log.status) for e in starts] == [(3, 1)]  # 1 is START.


def test_tensorboard_failing_does_not_end_the_run(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file in the way")
    with metrics.MetricWriter(tmp_path) as writer:
        writer.write(0, {"a": 1.0})
    assert metrics.read_metrics(tmp_path) == [{"step": 0, "a": 1.0}]
    assert "TensorBoard files are no longer written" in capsys.readouterr().err


def test_images_are_kept_by_name_and_step(tmp_path):
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    with metrics.MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.image(12, "held out/0042".replace(" ", "_"), picture)
        for name in ("../x", "/x", "a/../b", "a//b", "", "..", "a/.."):
            with pytest.raises(ValueError, match="name"):
                writer.image(0, name, picture)
    np.testing.assert_array_equal(media.read_png(tmp_path / "images/held_out/0042/00000012.png"), picture)
    assert sorted(os.listdir(tmp_path)) == ["images", "metrics.jsonl"]


def test_final_numbers_are_flat_json(tmp_path):
    metrics.write_final(tmp_path, {"psnr": np.float32(21.5), "route": "splat", "steps": 7, "x": math.nan, "none": None})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        **{"psnr": 21.5, "route": "splat", "steps": 7, "x": None, "x_nonfinite": "nan", "none": None}
    }
    with pytest.raises(ValueError, match="real number"):
        metrics.write_final(tmp_path, {"nested": {"a": 1}})
