"""R2: whatever happens to the files of the newest checkpoint is noticed, named, and costs one checkpoint interval."""

import pathlib
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoints

_MUTATIONS = ("truncate", "zero", "delete", "flip")


def _state(step):
    values = np.random.default_rng(step).normal(size=(40, 3)).astype(np.float32)
    return {"means": jnp.asarray(values), "opacity": {"logits": jnp.asarray(values[:, 0])}, "count": jnp.int32(step)}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine")
    with checkpoints.Checkpoints(folder) as saved:
        for step in (5, 10):
            saved.save(step, _state(step), {"seconds": step / 3})
    return folder


def _mutate(path: pathlib.Path, mutation: str, chance: random.Random) -> bool:
    """Damages a file; False if the file is as it was (an empty file cannot be truncated)."""
    data = path.read_bytes()
    if mutation == "delete":
        path.unlink()
        return True
    changed = bytearray(data)
    if mutation == "truncate":
        changed = changed[: chance.randrange(len(data))] if data else changed
    elif mutation == "zero":
        first = chance.randrange(max(len(data), 1))
        changed[first : first + 64] = bytes(len(changed[first : first + 64]))
    elif data:
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(changed)
    return bytes(changed) != data


def test_every_damage_to_every_file_is_noticed(pristine, tmp_path, capsys):
    chance = random.Random(0)
    names = sorted(path.relative_to(pristine) for path in (pristine / "10").rglob("*") if path.is_file())
    target = jax.eval_shape(lambda: _state(0))
    tried = 0
    for mutation in [*_MUTATIONS, *["truncate", "flip", "flip", "flip"] * 5]:
        for name in names:
            folder = tmp_path / str(tried)
            shutil.copytree(pristine, folder)
            if not _mutate(folder / name, mutation, chance):
                shutil.rmtree(folder)
                continue
            tried += 1
            with checkpoints.Checkpoints(folder) as saved:
                restored = saved.restore_newest(lambda aux: target)
            assert restored is not None and restored.step == 5, (mutation, name)
            assert str(name) in capsys.readouterr().err, (mutation, name)
            assert sorted(entry.name for entry in folder.iterdir()) == ["10.damaged", "5"]
            if mutation == "delete":
                jax.tree.map(np.testing.assert_array_equal, restored.state, _state(5))
                assert restored.aux == {"seconds": 5 / 3}
            shutil.rmtree(folder)
    assert tried >= 200


def test_every_byte_of_a_manifest_counts(pristine, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pristine, folder)
    path = folder / "10" / "manifest.json"
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x01]) + whole[position + 1 :])
        with pytest.raises(checkpoints.manifest.DamagedError, match="manifest.json"):
            checkpoints.manifest.verify(folder / "10")
    path.write_bytes(whole)
    assert checkpoints.manifest.verify(folder / "10").step == 10


@pytest.mark.parametrize("extra", ["state/d/extra", "second_manifest.json"])
def test_a_file_or_link_that_does_not_belong_is_noticed(extra, pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "a")
    (tmp_path / "a/10" / extra).write_text("x")
    with pytest.raises(checkpoints.manifest.DamagedError, match="does not belong"):
        checkpoints.manifest.verify(tmp_path / "a/10")
    (tmp_path / "a/10" / extra).unlink()
    (tmp_path / "a/10" / extra).symlink_to("/etc/passwd")
    with pytest.raises(checkpoints.manifest.DamagedError, match="not a plain file"):
        checkpoints.manifest.verify(tmp_path / "a/10")


def test_all_steps_damaged_leaves_none_and_deletes_nothing(pristine, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(pristine, folder)
    for step in ("5", "10"):
        (folder / step / "state" / "_METADATA").unlink()
    with checkpoints.Checkpoints(folder) as saved:
        assert saved.restore_newest(lambda aux: _state(0)) is None
    assert sorted(entry.name for entry in folder.iterdir()) == ["10.damaged", "5.damaged"]
    assert capsys.readouterr().err.count("is damaged") == 2
