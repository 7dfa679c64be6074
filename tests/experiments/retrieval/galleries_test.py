"""Among which captions the right one is looked for: no two say the same. What the report shows of errors."""

import numpy as np
import pytest

from experiments.data.blocks.descriptions import parse
from experiments.prior import rings
from experiments.prior.rings import Rings
from experiments.retrieval import galleries


@pytest.fixture
def numbered(monkeypatch):
    """Views that show nothing but the object's number."""

    def made(seed, split, indices, *, size, canonical):
        numbers = np.asarray(indices, np.uint8).reshape(-1, 1, 1, 1, 1)
        views = np.broadcast_to(numbers, (len(indices), 4, size, size, 8))
        angles = np.zeros(len(indices), np.float32)
        return Rings(views=views, words=np.zeros((len(indices), 24), np.int32), azimuths=angles, elevations=angles)

    monkeypatch.setattr(rings, "make_rings", made)


def test_no_two_captions_say_the_same(numbered):
    gallery = galleries.make_gallery(0, "iid", 150, size=1)
    meanings = [parse(caption) for caption in gallery.captions]
    assert len(set(meanings)) == len(gallery.rings.views) == 150
    numbers = gallery.rings.views[:, 0, 0, 0, 0].tolist()
    assert numbers == sorted(numbers) and numbers[-1] > 149  # some were passed over
    for row, number in enumerate(numbers):
        assert galleries.blockworld.item(0, "iid", number).caption == gallery.captions[row]


def test_the_worst_mistakes_come_first_and_right_answers_are_none(numbered):
    gallery = galleries.make_gallery(0, "iid", 4, size=2)
    cosines = np.eye(4)
    cosines[1, 3], cosines[2, 0] = 1.1, 1.4
    missed = galleries.mistakes(gallery, cosines, most=9)
    said = gallery.captions
    assert [(one.own, one.found) for one in missed] == [(said[2], said[0]), (said[1], said[3])]
    assert [one.picture.shape for one in missed] == [(2, 8, 3)] * 2
    assert len(galleries.mistakes(gallery, cosines, most=1)) == 1
