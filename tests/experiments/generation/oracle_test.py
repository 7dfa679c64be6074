"""Every distillation loss on every representation reaches the one object that an exact score speaks of.

The score is the oracle's of a single object, so whatever is missing is the fault of the loss, the descent or the
renderer. Quality: PSNR of colours and coverage on rings at azimuths and elevations that no step takes its cameras from,
and the Chamfer distance between the extracted surface and points on the object's exact one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.blocks import geometry, rendering, solids
from experiments.generation import field_distillation, field_surface, score, splat_distillation, splat_surface
from experiments.generation.distillation_settings import Loss, NerfConfig, ScoreConfig, SplatsConfig
from experiments.generation.guides import OracleGuide
from experiments.generation.routes.nerf import fitting_capacity
from renderers.meshes import sampling
from renderers.meshes.metrics import point_to_surface
from tests.experiments.generation import mesh_descent

pytestmark = pytest.mark.timeout(3600)  # a row takes a minute or two alone on two cores, and far more beside others

PAIR = "a small blue sphere on top of a green box"
CHAIR = "a red chair with blue legs"
UNSEEN = ((1.0, 0.35), (2.2, 0.1))  # azimuth and elevation, radians
DRAWS = 16  # of a field's picture, whose mean is the guide's: one has a ray a pixel
LOSSES = ("x0", "sds", "csd", "ism")
CSD_ON_NERF = "csd on a field ends at 19.1 dB and 34.3 mm: far from the bound, and why is not known"

# PSNR in dB that each loss must reach, and Chamfer in millimetres that it must stay below, after 200 steps. Measured:
# splats 34.1 and 7.0, 35.2 and 6.5, 25.5 and 10.0, 27.9 and 10.0; nerf 32.9 and 9.1, 33.4 and 7.7, 19.1 and 34.3;
# mesh 32.3 and 3.1, 30.1 and 5.3, 28.5 and 17.2: csd and ism exaggerate, their equilibrium at a noise level is off by
# 1 / alpha.
# The bounds of ism on nerf and on mesh have not been measured yet.
BOUNDS = {
    "splats": {"x0": (32.0, 10.0), "sds": (32.0, 10.0), "csd": (24.0, 13.0), "ism": (26.0, 13.0)},
    "nerf": {"x0": (30.0, 12.0), "sds": (30.0, 11.0), "csd": (22.0, 30.0), "ism": (22.0, 30.0)},
    "mesh": {"x0": (30.0, 5.0), "sds": (28.0, 8.0), "csd": (26.0, 22.0), "ism": (24.0, 22.0)},
}


def oracle_of(caption: str, size: int) -> OracleGuide:
    return OracleGuide(caption, count=1, seed=0, size=size)


def unseen_psnr(render, guide: OracleGuide) -> float:
    """Mean over rings that no step saw; `render` makes pictures of stacked cameras."""
    found = []
    for azimuth, elevation in UNSEEN:
        cameras = rendering.ring_cameras(azimuth, elevation, views=4, size=guide.size)
        ring = jax.vmap(rendering.to_channels)(render(cameras), cameras)
        found.append(float(score.agreement(ring, guide.rings(azimuth, elevation)[0])))
    return float(np.mean(found))


def chamfer_millimetres(mesh, guide: OracleGuide) -> float:
    """Mean of the distances from the mesh's points to the exact surface and of that one's points to the mesh."""
    assembly = jax.tree.map(lambda leaf: np.asarray(leaf)[0], guide.objects)
    truth = geometry.surface_points(assembly, 5000, np.random.default_rng(0))[0]
    points = sampling.sample_surface(jax.random.key(0), mesh.vertices, mesh.faces, 5000).points
    there = float(jnp.mean(jnp.abs(solids.signed_distance(assembly, points))))
    return 500.0 * (there + point_to_surface(truth, mesh.vertices, mesh.faces))


def distilled_splats(guide, config: SplatsConfig):
    state = splat_distillation.fresh_state(config, seed=0, size=guide.size)
    for step in range(config.steps):
        if step and step % config.grow_every == 0 and step < config.settle * config.steps:
            state = splat_distillation.grow(state, jnp.int32(step), config=config, seed=0)
        fraction = jnp.float32(step / config.steps)
        state, _, _ = splat_distillation.update(state, guide, jnp.int32(step), fraction, config=config, seed=0)
    see = jax.jit(splat_distillation.see)
    return lambda cameras: see(state.gaussians, state.alive, cameras), lambda: splat_surface.extract(
        splat_distillation.living(state), config, size=splat_distillation.POOLED * guide.size
    )


def distilled_field(guide, config: NerfConfig):
    state, capacity = field_distillation.fresh_state(config=config, seed=0, size=guide.size), 1 << 16
    for step in range(config.steps):
        if step % 16 == 0:
            capacity = fitting_capacity(capacity, int(state.wanted)) if step else capacity
            state = field_distillation.look_around(state, jnp.int32(step), config=config, seed=0)
        at, fraction = jnp.int32(step), jnp.float32(step / config.steps)
        state, _, _ = field_distillation.update(state, guide, at, fraction, config=config, seed=0, capacity=capacity)

    @jax.jit
    def see(state, cameras):
        field = field_distillation.merged(state.params, config)

        def draw(key):
            return field_distillation.see(field, state.grid, cameras, key, config=config, capacity=1 << 16)[0]

        drawn = jax.lax.map(draw, jax.random.split(jax.random.key(0), DRAWS))
        return jax.tree.map(lambda rows: jnp.mean(rows, 0), drawn)

    return lambda cameras: see(state, cameras), lambda: field_surface.extract(state, config)


def distilled_mesh(guide, config: ScoreConfig, steps: int):
    state, mesh = mesh_descent.distil(guide, config, steps=steps)
    see = jax.jit(mesh_descent.see)
    return lambda cameras: see(state.vertices, state.features, state, cameras), lambda: mesh


@pytest.mark.slow
def test_splats_reach_the_oracles_object_in_seconds():
    """Small: 16 pixels, 400 splats, 80 steps; the ball that they start from has 12 dB."""
    guide = oracle_of("a red box", 16)
    config = SplatsConfig(first=300, most=400, steps=80)
    render, _ = distilled_splats(guide, config)
    assert unseen_psnr(render, guide) > 26.0


@functools.cache
def measured(representation: str, loss: Loss, caption: str, steps: int = 200) -> tuple[float, float]:
    """PSNR in dB on unseen rings, Chamfer in millimetres."""
    guide, config = oracle_of(caption, 32), ScoreConfig(loss=loss)
    if representation == "splats":
        render, extract = distilled_splats(guide, SplatsConfig(score=config, steps=steps))
    elif representation == "nerf":
        render, extract = distilled_field(guide, NerfConfig(score=config, steps=steps))
    else:
        render, extract = distilled_mesh(guide, config, steps)
    found = unseen_psnr(render, guide), chamfer_millimetres(extract(), guide)
    print(f"{representation} {loss} {caption}: {found[0]:.2f} dB, {found[1]:.2f} mm", flush=True)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("representation", list(BOUNDS))
def test_every_loss_on_every_representation_reaches_the_oracles_object(representation, loss, request):
    if (representation, loss) == ("nerf", "csd"):
        request.applymarker(pytest.mark.xfail(reason=CSD_ON_NERF, strict=True))
    decibels, millimetres = measured(representation, loss, PAIR)
    least, most = BOUNDS[representation][loss]
    assert decibels > least
    assert millimetres < most


@pytest.mark.slow
@pytest.mark.parametrize("representation", list(BOUNDS))
def test_a_chair_has_its_legs(representation):
    decibels, millimetres = measured(representation, "x0", CHAIR)
    assert decibels > (28.0 if representation == "splats" else 24.0)  # 30.8 dB and 6.0 mm measured of splats, 300 steps
    assert millimetres < (10.0 if representation == "splats" else 20.0)
