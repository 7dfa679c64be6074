"""Named meshes join the prior's training: which rings they take, their words, and weights that learn more words."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import named_meshes
from experiments.data.blocks import rendering
from experiments.data.blocks.descriptions import vocabulary, words_of
from experiments.errors import InputError
from experiments.prior import model, rings
from experiments.prior.fit import Fit
from experiments.prior.settings import DataSettings, ModelSettings, MultiviewConfig, NamedSettings, OptimizerSettings
from experiments.prior.weights import Prior, load_prior, save_prior
from renderers.meshes.formats import write_mesh
from renderers.meshes.mesh import Mesh

_MODEL = ModelSettings(size=8, patch=4, rim=1, width=64, depth=1, text_width=64, text_depth=0)


def box(sides):
    """A closed box about the origin."""
    corners = np.array(list(np.ndindex(2, 2, 2)), np.float32) - 0.5
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = [[a, b, c] for q in quads for a, b, c in ((q[0], q[1], q[2]), (q[0], q[2], q[3]))]
    return Mesh(vertices=jnp.asarray(corners * sides), faces=jnp.asarray(faces, jnp.int32))


class NoStop:
    requested = False

    def exit_if_requested(self):
        pass


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "named"
    place.mkdir()
    for name, sides in (("Willow_Tree_2.ply", (0.2, 1.0, 0.2)), ("kit__Shoe.ply", (0.3, 0.2, 0.8))):
        write_mesh(place / name, box(np.array(sides, np.float32)))
    return str(place)


def test_a_share_of_the_rings_shows_meshes_under_their_names(folder):
    """Rows and meshes follow from seed and number alone; the other rows, and all cameras, stay."""
    guests = rings.Guests(meshes=named_meshes.read_folder(folder), share=0.4)
    numbers = np.arange(40)
    plain = rings.Rings(
        views=np.full((40, 4, 8, 8, 8), 7, np.uint8),
        words=np.full((40, rings.LENGTH), 3, np.int32),
        azimuths=np.linspace(-0.7, 0.7, 40, dtype=np.float32),
        elevations=np.full(40, rendering.ELEVATION, np.float32),
    )
    seated = guests.seated(plain, 5, numbers)
    drawn = [named_meshes.drawn(5, number, 0.4, 2) for number in range(40)]
    read = rings.tokenizer(named_meshes.captions_of(folder))
    assert read.vocabulary == (*vocabulary(), "shoe", "willow")
    for row, mesh in enumerate(drawn):
        if mesh is None:
            assert (seated.views[row] == 7).all() and (seated.words[row] == 3).all()
            continue
        one = guests.meshes[mesh]
        np.testing.assert_array_equal(seated.words[row], read.encode(words_of(one.caption)))
        at = (plain.azimuths[row : row + 1], plain.elevations[row : row + 1])
        np.testing.assert_array_equal(seated.views[row], named_meshes.render_meshes([one], *at, size=8)[0])
    assert 8 <= sum(mesh is not None for mesh in drawn) <= 24
    later = guests.seated(plain.rows(slice(30, 40)), 5, numbers[30:])
    np.testing.assert_array_equal(later.words, seated.words[30:])


@pytest.mark.slow
def test_weights_learn_words_and_are_read_again(folder, tmp_path):
    """The rows of known words, and all other weights, are those that training starts from; the file says the words."""
    params = model.initial_params(_MODEL, 3)
    config = MultiviewConfig(
        model=_MODEL,
        data=DataSettings(chunk=4, pool=2, first=1),
        named=NamedSettings(folder=folder),
        optimizer=OptimizerSettings(batch=4),
        init=str(tmp_path / "first.safetensors"),
    )
    first = Prior(settings=_MODEL, diffusion=config.diffusion, params=params, vocabulary=vocabulary(), about={})
    save_prior(tmp_path / "first.safetensors", first)
    with Fit(config, NoStop(), quiet=True) as fit:
        state, _ = fit.init()
    known = len(vocabulary())
    table = np.asarray(state.params["word_table"][...])
    half = np.asarray(params["word_table"][...]).astype(np.float16)
    np.testing.assert_array_equal(table[:known], half)
    assert len(table) == known + 2 and np.std(table[known:]) > 0.5
    words = (*vocabulary(), "shoe", "willow")
    settings = dataclasses.replace(_MODEL, words=len(words))
    more = dataclasses.replace(first, settings=settings, params=state.params, vocabulary=words)
    save_prior(tmp_path / "more.safetensors", more)
    read = load_prior(tmp_path / "more.safetensors")
    assert read.vocabulary == words
    np.testing.assert_array_equal(read.params["word_table"][...], table.astype(np.float16))
    again = dataclasses.replace(config, named=NamedSettings(), init=str(tmp_path / "more.safetensors"))
    with pytest.raises(InputError, match="knows 'shoe', which this run's captions lack"):
        Fit(again, NoStop(), quiet=True)
    with pytest.raises(InputError, match="--model.*: words=20 rows are too few"):
        Fit(dataclasses.replace(config, model=dataclasses.replace(_MODEL, words=20)), NoStop(), quiet=True)
