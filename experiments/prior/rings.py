"""The objects that a multi-view model is trained on: rendered by chunks ahead of use, drawn at random from the newest.

Chunk c holds objects c * size .. (c + 1) * size - 1 of a split; which chunks are there at a step, and what is drawn
from them, are functions of the seeds and the step: a resumed run renders its pool again and goes on as if never
stopped.
"""

import concurrent.futures
import dataclasses
import functools
import typing
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from experiments import keys, progress
from experiments.data import blockworld, named_meshes
from experiments.data.blocks import rendering, solids
from experiments.data.blocks.descriptions import Split, vocabulary, words_of
from experiments.data.named_meshes import NamedMesh
from experiments.prior.settings import DataSettings
from generators.text.words import WordTokenizer

_SIZES = (1, 2, 3, 4, 8)  # solids of an object, as programs are compiled for
_AT_ONCE = 16  # objects rendered in one call
_MOST_TURNED = np.pi / 4
_HIGHEST = np.pi / 6
LENGTH = 24  # words of a caption


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class Rings:
    """Objects seen by four cameras each, on the host.

    Attributes:
      views: channels as bytes, see `rendering.to_bytes`.
      words: numbers of the caption's words.
      azimuths: of the first camera, radians.
      elevations: of all cameras, radians.
    """

    views: UInt8[np.ndarray, "*b 4 h w 8"]
    words: Int[np.ndarray, "*b l"]
    azimuths: Float[np.ndarray, "*b"]
    elevations: Float[np.ndarray, "*b"]

    def rows(self, index) -> "Rings":
        """Some of them."""
        return jax.tree.map(lambda leaf: leaf[index], self)


def tokenizer(captions: Sequence[str] = ()) -> WordTokenizer:
    """Of the block world's captions, and of those given: what they add to the vocabulary comes last."""
    known = vocabulary()
    return WordTokenizer((*known, *named_meshes.new_words(captions, known)), LENGTH)


def make_rings(seed: int, split: Split, indices, *, size: int, canonical: float) -> Rings:
    """Rings of objects given by number; a caption with words that the vocabulary lacks is left out.

    Args:
      seed: of the world.
      split: of the world.
      indices: numbers of the objects.
      size: pixels along a side.
      canonical: share seen from azimuth 0 and the canonical elevation; of the others, azimuths are within 45 degrees
        and elevations between 0 and 30.
    """
    items = [blockworld.item(seed, split, int(index)) for index in indices]
    read = tokenizer()
    said = [words_of(item.caption) for item in items]
    words = np.stack([read.nothing() if read.unknown(each) else read.encode(each) for each in said])
    azimuths, elevations = (np.zeros(len(items), np.float32) for _ in range(2))
    for row, index in enumerate(indices):
        rng = keys.host_rng(seed, f"blockworld {split} cameras", int(index))
        turned = rng.random() >= canonical
        azimuths[row] = rng.uniform(-_MOST_TURNED, _MOST_TURNED) if turned else 0.0
        elevations[row] = rng.uniform(0.0, _HIGHEST) if turned else rendering.ELEVATION
    views = render_objects([item.assembly for item in items], azimuths, elevations, size=size)
    return Rings(views=views, words=words, azimuths=azimuths, elevations=elevations)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Guests:
    """Named meshes that take the place of some objects of the block world.

    Attributes:
      meshes: of a folder.
      share: of objects that they replace, in [0, 1].
    """

    meshes: Sequence[NamedMesh]
    share: float

    def seated(self, rings: Rings, seed: int, indices: Int[np.ndarray, " b"]) -> Rings:
        """Rings of which a share, by seed and number of the object, shows meshes from the same cameras instead."""
        drawn = [named_meshes.drawn(seed, int(index), self.share, len(self.meshes)) for index in indices]
        rows = [row for row, mesh in enumerate(drawn) if mesh is not None]
        if not rows:
            return rings
        shown = [self.meshes[mesh] for mesh in drawn if mesh is not None]
        read = tokenizer([one.caption for one in self.meshes])
        views, words = rings.views.copy(), rings.words.copy()
        size = views.shape[-2]
        views[rows] = named_meshes.render_meshes(shown, rings.azimuths[rows], rings.elevations[rows], size=size)
        words[rows] = [read.encode(words_of(one.caption)) for one in shown]
        return dataclasses.replace(rings, views=views, words=words)


def render_objects(assemblies, azimuths, elevations, *, size: int) -> np.ndarray:
    """Channels of objects on their rings as bytes [n, 4, size, size, 8]; grouped by their number of solids."""
    counts = np.array([len(assembly.centers) for assembly in assemblies])
    views = np.zeros((len(assemblies), 4, size, size, rendering.CHANNELS), np.uint8)
    for fewest, most in zip((0, *_SIZES), _SIZES, strict=False):
        group = np.flatnonzero((counts > fewest) & (counts <= most))
        for start in range(0, len(group), _AT_ONCE):
            rows = np.resize(group[start : start + _AT_ONCE], _AT_ONCE)  # the last call repeats some
            packed = solids.stacked([assemblies[row] for row in rows], most)
            views[rows] = np.asarray(_render(packed, azimuths[rows], elevations[rows], size))
    return views


@functools.partial(jax.jit, static_argnames="size")
def _render(packed, azimuths, elevations, size):
    rings = jax.vmap(functools.partial(rendering.render_ring, size=size))(packed, azimuths, elevations)
    return jnp.round(jnp.clip(rings, -1.0, 1.0) * 127.0 + 128.0).astype(jnp.uint8)


class RingPool:
    """What each step is trained on.

    Args:
      settings: which objects, and how often each is shown.
      size: pixels along a side.
      batch: rings of a step.
      seed: of the draws.
      guests: that join the block world's objects.
    """

    def __init__(
        self, settings: DataSettings, *, size: int, batch: int, seed: int, guests: Guests | None = None
    ) -> None:
        self._settings, self._size, self._batch, self._seed = settings, size, batch, seed
        self._guests = guests
        self._chunks: dict[int, Rings] = {}
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self._ahead: tuple[int, concurrent.futures.Future[Rings]] | None = None

    def fill(self, step: int, stop, *, quiet: bool) -> None:
        """Renders what a step may draw and is not there yet, with a progress bar.

        Args:
          step: updates done before.
          stop: ends it between chunks.
          quiet: shows nothing.
        """
        missing, chunk = self._missing(step), self._settings.chunk
        with progress.Progress(len(missing) * chunk, description="objects", enabled=not quiet) as bar:
            for done, number in enumerate(missing):
                stop.exit_if_requested()
                bar.update(done * chunk)
                self._chunks[number] = self._take(number)
            bar.update(len(missing) * chunk)

    def __call__(self, step: int) -> Rings:
        """The rings of a step; what is not there yet is rendered.

        Args:
          step: updates done before.
        """
        present = self._present(step)
        for number in self._missing(step):
            self._chunks[number] = self._take(number)
        self._chunks = {number: self._chunks[number] for number in present}
        self._look_ahead(present.stop)
        size = self._settings.chunk
        drawn = [self._chunks[number // size].rows(number % size) for number in self.numbers(step)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)

    def numbers(self, step: int) -> Int[np.ndarray, " b"]:
        """Which objects of the split the rings of a step show."""
        present = self._present(step)
        rng = keys.host_rng(self._seed, "rings", step)
        chunks = rng.integers(present.start, present.stop, self._batch)
        return chunks * self._settings.chunk + rng.integers(0, self._settings.chunk, self._batch)

    def close(self) -> None:
        """Waits for the chunk that is being made."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _present(self, step: int) -> range:
        settings = self._settings
        made = settings.first + int(step * self._batch / (settings.reuse * settings.chunk))
        return range(max(0, made - settings.pool), made)

    def _missing(self, step: int) -> list[int]:
        return [number for number in self._present(step) if number not in self._chunks]

    def _take(self, number: int) -> Rings:
        if self._ahead is not None and self._ahead[0] == number:
            return self._ahead[1].result()
        return self._make(number)

    def _look_ahead(self, number: int) -> None:
        if self._ahead is None or self._ahead[0] < number:
            self._ahead = number, self._worker.submit(self._make, number)

    def _make(self, number: int) -> Rings:
        settings = self._settings
        indices = np.arange(number * settings.chunk, (number + 1) * settings.chunk)
        rings = make_rings(settings.seed, "train", indices, size=self._size, canonical=settings.canonical)
        return rings if self._guests is None else self._guests.seated(rings, settings.seed, indices)
