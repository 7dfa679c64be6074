"""Files of weights: what is written is read back, and what is anything else is refused in one line."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from experiments.data.blocks.descriptions import vocabulary
from experiments.errors import InputError
from experiments.prior import model, weights
from experiments.prior.settings import DiffusionSettings, ModelSettings
from experiments.prior.weights import Prior, load_prior, save_prior
from tests.helpers.mutants import mutants

_TINY = ModelSettings(size=8, patch=4, rim=1, width=64, depth=1, text_width=64, text_depth=0)


def prior_of(settings=_TINY):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.initial_params(settings, 0))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)
    about = {"steps": 7, "device": {"platform": "cpu"}}
    return Prior(
        settings=settings, diffusion=DiffusionSettings(shift=3.0), params=params, vocabulary=vocabulary(), about=about
    )


@pytest.fixture(scope="module")
def prior():
    return prior_of()


@pytest.fixture(scope="module")
def file(prior, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "prior.safetensors"
    save_prior(path, prior)
    return path


def refused(path):
    with pytest.raises(InputError) as caught:
        load_prior(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def changed(file, tmp_path, header=None, tensors=None):
    """A copy with other metadata or tensors, otherwise in order."""
    with safetensors.safe_open(file, framework="numpy") as stored:
        metadata = {**stored.metadata(), **(header or {})}
    path = tmp_path / "changed.safetensors"
    safetensors.numpy.save_file({**safetensors.numpy.load_file(file), **(tensors or {})}, path, metadata)
    return path


def test_weights_come_back_rounded_to_half_precision_and_all_settings_as_they_were(prior, file):
    found = load_prior(file)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(jnp.float32), prior.params)
    jax.tree.map(np.testing.assert_array_equal, found.params, rounded)
    assert (found.settings, found.diffusion, found.vocabulary) == (prior.settings, prior.diffusion, prior.vocabulary)
    assert found.about == prior.about


def test_tensors_are_named_by_their_path_in_the_network(file):
    stored = safetensors.numpy.load_file(file)
    assert stored["layers.0.mixed.kernel"].shape == (64, 192)
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}


def test_what_half_precision_cannot_hold_is_not_written(prior, tmp_path):
    huge = dataclasses.replace(prior, params=jax.tree.map(lambda leaf: leaf * 1e6, prior.params))
    with pytest.raises(ValueError, match="half precision"):
        save_prior(tmp_path / "prior.safetensors", huge)
    assert not list(tmp_path.iterdir())


def test_missing_weights_say_how_to_get_some(tmp_path, monkeypatch):
    assert "train_multiview" in refused(tmp_path / "none.safetensors")
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "prior.safetensors")
    assert "came without weights" in refused(None) and "train_multiview" in refused(None)
    assert "train_multiview" in refused(tmp_path)  # a folder without a run


def test_other_files_are_refused(tmp_path, file):
    (tmp_path / "text").write_text("no weights\n" * 50)
    refused(tmp_path / "text")
    (tmp_path / "empty").write_bytes(b"")
    refused(tmp_path / "empty")
    safetensors.numpy.save_file({"weight": np.zeros(3, np.float16)}, tmp_path / "other.safetensors")
    assert "format" in refused(tmp_path / "other.safetensors")
    with open(tmp_path / "large", "wb") as large:
        large.truncate(2**40)  # a sparse file: a terabyte of holes
    assert "more than a prior" in refused(tmp_path / "large")


def test_what_does_not_fit_is_named(file, tmp_path):
    words = json.dumps(["<pad>", "<null>", "unicorn", *vocabulary()[3:]])
    assert "unicorn" in refused(changed(file, tmp_path, {"vocabulary": words}))
    network = dataclasses.asdict(_TINY)
    assert "depth" in refused(changed(file, tmp_path, {"model": json.dumps({**network, "depth": 10**9})}))
    assert "turns" in refused(changed(file, tmp_path, {"model": json.dumps({**network, "turns": 1})}))
    assert "tile" in refused(changed(file, tmp_path, {"model": json.dumps({**network, "patch": 3})}))
    assert "missing" in refused(changed(file, tmp_path, {"model": json.dumps({**network, "depth": 2})}))
    wrong = {"given": np.zeros(63, np.float16)}
    assert "given is F16[63]" in refused(changed(file, tmp_path, tensors=wrong))
    wrong = {"given": np.full(64, np.nan, np.float16)}
    assert "given has 64 entries that are not finite" in refused(changed(file, tmp_path, tensors=wrong))


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_or_read(file, tmp_path, count):
    original, path, read = file.read_bytes(), tmp_path / "mutant.safetensors", 0
    for data in mutants(original, count):
        path.write_bytes(data)
        try:
            found = load_prior(path)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
        else:  # bits of a weight flip unseen, but never its shape
            read += 1
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))
            assert sum(leaf.size for leaf in jax.tree.leaves(found.params)) < 200_000
    assert read < count
