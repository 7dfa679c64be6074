"""Views of one object agree; views with one thing made wrong by a known amount do not."""

import jax
import numpy as np
import pytest

from experiments.data.blocks import objects, rendering
from experiments.data.blocks.descriptions import parse
from experiments.evaluation import consistency
from experiments.prior.evaluation import FIXED_PROMPTS

_TURN = np.radians(10.0)


@jax.jit
def rendered(assembly, azimuth):
    cameras = rendering.ring_cameras(azimuth, rendering.ELEVATION, views=4, size=32)
    return jax.lax.map(lambda camera: rendering.to_channels(rendering.render(assembly, camera), camera), cameras)


def rings_of(text):
    """Canonical rings of four objects of a class, and that of the first one turned."""
    built = [objects.build(parse(text), np.random.default_rng(seed)) for seed in range(4)]
    given = [*((each, 0.0) for each in built), (built[0], _TURN)]
    return [np.array(rendered(assembly, np.float32(azimuth))) for assembly, azimuth in given]


@pytest.fixture(scope="module")
def poses():
    return consistency.canonical_poses()


@pytest.fixture(scope="module")
def rings():
    return rings_of("a red box left of a blue sphere")


def test_exact_renders_agree(rings, poses):
    for ring in rings[:4]:
        assert consistency.hull_iou(ring, poses) > 0.96
        assert consistency.depth_agreement(ring, poses) > 0.97
        found = consistency.reprojection(ring, poses)
        assert found.psnr > 25.0 and found.contradicted < 0.02 and found.overlap > 0.05


def test_a_view_turned_by_10_degrees_costs_more_than_3_db(rings, poses):
    exact, turned = consistency.reprojection(rings[0], poses), rings[0].copy()
    turned[1] = rings[4][1]
    found = consistency.reprojection(turned, poses)
    assert found.psnr < exact.psnr - 3.0 and found.contradicted > exact.contradicted


def test_views_of_four_objects_cost_more_than_3_db(rings, poses):
    mixed = np.stack([rings[view][view] for view in range(4)])
    exact = np.mean([consistency.reprojection(ring, poses).psnr for ring in rings[:4]])
    assert consistency.reprojection(mixed, poses).psnr < exact - 3.0


def test_views_that_do_not_belong_together_are_found_out(rings, poses):
    """A view moved by four pixels leaves its hull, and depths too near contradict what the others see through."""
    ring = rings[0]
    moved = ring.copy()
    moved[1] = np.roll(moved[1], 4, axis=1)
    assert consistency.hull_iou(moved, poses) < consistency.hull_iou(ring, poses) - 0.05
    nearer = ring.copy()
    inside = nearer[..., 7] > 0.9
    nearer[..., 6][inside] += 0.3
    assert consistency.depth_agreement(nearer, poses) < 0.8
    recolored = ring.copy()
    recolored[1, ..., :3] = 0.5 * (recolored[1, ..., 7:8] + 1) * np.array([-1, 1, -1])  # one view is all green
    assert consistency.reprojection(recolored, poses).l1 > consistency.reprojection(ring, poses).l1 + 0.05


def test_colours_that_differ_by_a_known_amount_everywhere(rings, poses):
    """Two views of one pose show every point to each other: psnr and l1 are those of the two pictures."""
    twice = np.stack([rings[0][0], rings[0][0]])
    twice[1, ..., :3] += 0.2 * 0.5 * (twice[1, ..., 7:] + 1.0)  # 0.1 of the range [0, 1]
    found = consistency.reprojection(twice, poses[[0, 0]])
    assert found.psnr == pytest.approx(20.0, abs=0.1) and found.l1 == pytest.approx(0.1, abs=1e-3)
    assert found.overlap > 0.9 and found.contradicted == 0
    empty = np.zeros_like(twice)
    empty[..., 6:] = -1.0
    assert np.isnan(consistency.reprojection(empty, poses[[0, 0]]).psnr)


@pytest.mark.slow
def test_the_ceiling_is_the_stated_one(poses):
    scored = []
    for text in FIXED_PROMPTS:
        rings = rings_of(text)
        turned = rings[0].copy()
        turned[1] = rings[4][1]
        given = (rings[0], turned, np.stack([rings[view][view] for view in range(4)]))
        scored.append([consistency.reprojection(ring, poses).psnr for ring in given])
    exact, turned, mixed = np.mean(scored, axis=0)
    assert exact == pytest.approx(33.6, abs=1.5)
    assert turned < exact - 2.0 and mixed < exact - 7.0
