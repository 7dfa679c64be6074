import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from experiments import checkpoints, errors, finite, manifest


def _state(rows=6):
    return {
        "params": [jnp.arange(rows * 3, dtype=jnp.float32).reshape(rows, 3) * -0.1, (jnp.array([-0.0, 0.0]),)],
        "half": jnp.asarray([1.5, -2.0], jnp.bfloat16),
        "dead": jnp.zeros((0, 3)),
        "mask": jnp.array([True, False]),
        "count": jnp.int32(7),
    }


def _bits(tree):
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in jax.tree.leaves_with_path(tree)}


def _saved(folder, *steps, keep=3):
    with checkpoints.Checkpoints(folder, keep=keep) as saved:
        for step in steps:
            saved.save(step, _state(step), {"rows": step})


def test_restores_bits_types_and_aux_of_the_newest(tmp_path):
    _saved(tmp_path, 9, 10)
    asked = []

    def make_target(aux):
        asked.append(aux)
        return jax.eval_shape(lambda: _state(aux["rows"]))

    with checkpoints.Checkpoints(tmp_path) as saved:
        restored = saved.restore_newest(make_target)
        assert saved.saved(10) and not saved.saved(9)
    assert (restored.step, restored.aux, asked) == (10, {"rows": 10}, [{"rows": 10}])
    assert _bits(restored.state) == _bits(_state(10))
    assert jax.tree.map(lambda leaf: leaf.dtype, restored.state) == jax.tree.map(lambda leaf: leaf.dtype, _state(10))


def test_no_checkpoint_is_none(tmp_path):
    with checkpoints.Checkpoints(tmp_path / "never") as saved:
        assert saved.restore_newest(lambda aux: {}) is None
        assert saved.steps() == []
    assert not (tmp_path / "never").exists()


def test_keeps_the_newest_few(tmp_path):
    _saved(tmp_path, 1, 2, 10, 9, 11, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["10", "11"]


def test_saving_a_step_again_replaces_it(tmp_path):
    with checkpoints.Checkpoints(tmp_path) as saved:
        for value in (1.0, 2.0):
            saved.save(5, {"x": jnp.float32(value)}, {"value": value})
            saved.wait()
        restored = saved.restore_newest(lambda aux: {"x": jnp.float32(0)})
    assert float(restored.state["x"]) == restored.aux["value"] == 2.0
    assert os.listdir(tmp_path) == ["5"]


def test_later_changes_of_the_state_do_not_reach_the_copy(tmp_path):
    """The next step may overwrite donated buffers while the save is still being written."""
    state = {"x": np.ones(200_000, np.float32)}
    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(1, state, {})
        state["x"][:] = 2.0
        saved.wait()
        restored = saved.restore_newest(lambda aux: state)
    assert float(restored.state["x"].max()) == 1.0


@pytest.mark.parametrize("spec", [("views",), ()])
def test_restores_onto_the_given_sharding(spec, tmp_path):
    mesh = jax.make_mesh((jax.device_count(),), ("views",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = 4 * jax.device_count()
    values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    split = jax.device_put(values, NamedSharding(mesh, PartitionSpec("views")))
    target = jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))
    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(1, {"x": split}, {})
        saved.wait()
        restored = saved.restore_newest(lambda aux: {"x": target}).state["x"]
    assert restored.sharding == target.sharding
    np.testing.assert_array_equal(restored, values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": jnp.float32(7)}, "count is int32[], this run has float32[]"),
        ({"mask": jnp.ones((3,), bool)}, "mask is bool[2], this run has bool[3]"),
        ({"extra": jnp.ones(1)}, "extra is missing"),
        ({"half": None}, "half is not part of this run"),
    ],
)
def test_another_kind_of_run_is_refused_and_nothing_is_set_aside(change, words, tmp_path):
    _saved(tmp_path, 4)
    with checkpoints.Checkpoints(tmp_path) as saved:
        with pytest.raises(errors.InputError) as caught:
            saved.restore_newest(lambda aux: {**_state(4), **change})
    assert words in str(caught.value)
    assert "--workdir" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["4"]


def test_non_finite_state_is_refused_by_name(tmp_path):
    state = _state()
    state["params"][0] = state["params"][0].at[1, 1].set(jnp.nan)
    with checkpoints.Checkpoints(tmp_path / "c") as saved:
        with pytest.raises(finite.NonFiniteError, match=r"step 3: params.0 has 1 non-finite entries"):
            saved.save(3, state, {})
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("state", "aux", "words"),
    [
        ({"key": jax.random.key(0)}, {}, "key is a PRNG key"),
        ({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, {}, "same dotted name"),
        ({}, {"size": (1, 2)}, "aux must hold"),
        ({}, {1: "one"}, "aux must hold"),
    ],
)
def test_what_would_not_come_back_is_refused(state, aux, words, tmp_path):
    with checkpoints.Checkpoints(tmp_path) as saved, pytest.raises(TypeError, match=words):
        saved.save(1, state, aux)


def test_leftovers_of_killed_saves_are_swept_and_other_files_are_not(tmp_path):
    _saved(tmp_path, 3)
    for name in ("4.saving", "4.saving.orbax-checkpoint-tmp", "1.deleting"):
        (tmp_path / name / "state").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    with checkpoints.Checkpoints(tmp_path) as saved:
        assert saved.restore_newest(lambda aux: _state(3)).step == 3
    assert sorted(os.listdir(tmp_path)) == ["3", "notes"]


def test_too_little_room_is_said_with_numbers_and_tried_again(tmp_path, monkeypatch, capsys):
    real = checkpoints.shutil.disk_usage
    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(1, _state(), {})
        saved.wait()
        monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
        saved.save(2, _state(), {})
        with pytest.raises(errors.NoRoomError) as caught:
            saved.wait()
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(_state())) + checkpoints._OVERHEAD_BYTES
        assert f"step 2 in {tmp_path}: {needed:,} bytes needed, 1,000 free" in str(caught.value)
        assert "step 1 is intact" in str(caught.value)
        assert str(caught.value) in capsys.readouterr().err
        monkeypatch.undo()
        saved.save(3, _state(), {})
        saved.wait()
        assert saved.steps() == [1, 3]


def test_room_asked_for_covers_what_is_written(tmp_path):
    """The free-space check must not promise room for a checkpoint that then does not fit."""
    state = {f"leaf{index}": jnp.ones((5,)) * index for index in range(60)}
    with checkpoints.Checkpoints(tmp_path) as saved:
        saved.save(1, state, {})
    blocks = sum(
        os.lstat(os.path.join(place, name)).st_blocks * 512 for place, _, names in os.walk(tmp_path) for name in names
    )
    assert 0.1 * checkpoints._OVERHEAD_BYTES < blocks < checkpoints._OVERHEAD_BYTES


def test_folder_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    saved = checkpoints.Checkpoints(tmp_path / "file" / "checkpoints")
    saved.save(1, _state(), {})
    with pytest.raises(errors.InputError, match="cannot write .*checkpoints"):
        saved.wait()
    saved.__exit__(None, None, None)


def test_newer_format_is_refused_not_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "_FORMAT", 99)
    _saved(tmp_path, 4)
    monkeypatch.undo()
    with checkpoints.Checkpoints(tmp_path) as saved, pytest.raises(errors.InputError, match="format 99.*update"):
        saved.restore_newest(lambda aux: _state(4))
    assert os.listdir(tmp_path) == ["4"]


def test_manifest_says_what_the_step_holds(tmp_path):
    _saved(tmp_path, 6)
    body = json.loads((tmp_path / "6" / "manifest.json").read_text())["manifest"]
    assert body["leaves"]["params.0"] == ["float32", [6, 3]]
    assert body["leaves"]["half"] == ["bfloat16", [2]]
    on_disk = {str(path.relative_to(tmp_path / "6")) for path in (tmp_path / "6").rglob("*") if path.is_file()}
    assert set(body["files"]) == on_disk - {"manifest.json"}
    assert manifest.verify(tmp_path / "6").aux == {"rows": 6}
