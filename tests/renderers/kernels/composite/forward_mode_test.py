"""Forward mode of compositing: the transpose of reverse mode, the slope of the oracle, one walk for all directions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from renderers.cameras.camera import Camera
from renderers.cameras.pose import perturb
from renderers.gaussians.rasterize import rasterize
from renderers.kernels.composite.api import composite
from tests.renderers.kernels.composite import conformance_test, finite_differences, scenes
from tests.renderers.kernels.composite.conformance_test import ROWS, SCENES, Row, truth

INPUTS = ("means2d", "conics", "opacities", "features")
BACKENDS = ("reference", "xla", "cpu")
# float64: rounding of both sides; interpreted Pallas kernels have xla's forward mode, and need no rows of their own.
FORWARD_ROWS = (Row("reference", "float64", 1e-13, 1e-11), *(row for row in ROWS if "pallas" not in row.backend))
SMALL = (20, 37)


def _capacity(backend, scene, size):
    tiles = (-(-size[0] // 16)) * (-(-size[1] // 16))
    return None if backend == "cpu" else len(scene["depths"]) * tiles


def _function(backend, scene, size, mask=None):
    """Image and transmittance of the differentiable inputs, in forward mode."""

    def run(*inputs):
        blended = composite(
            *inputs,
            scene["extents"],
            scene["depths"],
            size=size,
            mask=mask,
            capacity=_capacity(backend, scene, size),
            backend=backend,
            derivative="forward",
        )
        return blended.image, blended.transmittance

    return run


def _along(run, inputs, directions):
    """Outputs, and tangents along each of the stacked directions."""
    return jax.vmap(lambda moved: jax.jvp(run, inputs, moved), out_axes=(None, 0))(directions)


@functools.cache
def _compiled(backend, size, capacity):
    def evaluate(scene, directions):
        return _along(_function(backend, scene, size), tuple(scene[name] for name in INPUTS), directions)

    return jax.jit(evaluate)


def _directions(scene):
    """One for each input, all in proportion to what is there, so that no input drowns another."""
    rng = np.random.default_rng(11)
    sizes = {name: 1.0 if name == "means2d" else np.abs(scene[name]) for name in INPUTS}
    moved = {name: rng.normal(size=scene[name].shape) * sizes[name] for name in INPUTS}
    return tuple(np.stack([moved[n] if m == n else np.zeros_like(moved[n]) for m in INPUTS]) for n in INPUTS)


@functools.cache
def _tangents(row, name):
    scene, (height, width) = SCENES[name](), scenes.SIZE
    with jax.enable_x64(True):
        arrays = {key: jnp.asarray(array, row.dtype) for key, array in scene.items()}
        directions = tuple(jnp.asarray(d, row.dtype) for d in _directions(scene))
        found = _compiled(row.backend, (height, width), _capacity(row.backend, scene, scenes.SIZE))(arrays, directions)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(row.dtype)}
        return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("row", FORWARD_ROWS, ids=str)
def test_is_the_transpose_of_reverse_mode(row, name):
    """<J v, u> = <v, J^T u> for a v in each input, u random where no threshold is near."""
    scene = SCENES[name]()
    *cotangents, safe = scenes.safe_cotangents(scene)
    (image, transmittance), (image_moved, transmittance_moved) = _tangents(row, name)
    expected = truth(name, scene, cotangents)
    gradients = conformance_test.evaluate(row.backend, row.dtype, scene, cotangents)[3]
    directions = _directions(scene)
    assert np.abs(image - expected[0])[safe].max() <= row.image * max(1.0, np.abs(scene["features"]).max())
    assert np.abs(transmittance - expected[1])[safe].max() <= row.image
    for k, wrt in enumerate(INPUTS):
        forward = np.vdot(image_moved[k], cotangents[0]) + np.vdot(transmittance_moved[k], cotangents[1])
        products = directions[k][k] * gradients[wrt]
        assert np.abs(products).max() > 0
        assert abs(forward - products.sum()) <= row.gradient * np.linalg.norm(products), wrt


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("row", FORWARD_ROWS[1:], ids=str)
def test_agrees_with_the_reference_at_every_pixel(row, name):
    scene = SCENES[name]()
    smooth = scenes.safe_cotangents(scene)[1] != 0
    _, expected = _tangents(FORWARD_ROWS[0], name)
    _, found = _tangents(row, name)
    for one, other in zip(found, expected, strict=True):
        for k, wrt in enumerate(INPUTS):
            error = np.abs(one[k] - other[k])[smooth].max()
            assert error <= row.gradient * max(np.abs(other[k]).max(), 1e-3), wrt


# Central differences of the numpy oracle, as in backward_test.py.
@pytest.mark.parametrize(("backend", "tolerance"), [("reference", 1e-7), ("xla", 1e-7), ("cpu", 2e-5)])
def test_agrees_with_central_differences(backend, tolerance):
    dtype = jnp.float32 if backend == "cpu" else jnp.float64
    with jax.enable_x64(True):
        scene = {name: jnp.asarray(array, dtype) for name, array in finite_differences.small_scene().items()}
        run = _function(backend, scene, finite_differences.SIZE)
        jacobians = jax.jit(jax.jacfwd(run, tuple(range(4))))(*(scene[name] for name in INPUTS))
    found = {}
    for name, image, transmittance in zip(INPUTS, *jacobians, strict=True):
        u_image, u_transmittance = finite_differences.cotangents()
        found[name] = np.tensordot(u_image, np.asarray(image), 3) + np.tensordot(
            u_transmittance, np.asarray(transmittance), 2
        )
    found["probe"] = finite_differences.expected_gradients()["probe"]  # reverse mode's own
    assert finite_differences.largest_error(found) < tolerance


def _small():
    scene = {name: jnp.asarray(array) for name, array in scenes.random_scene(seed=3, n=40, size=SMALL).items()}
    return scene, tuple(scene[name] for name in INPUTS)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_pixels_do_not_move_and_the_others_do_as_before(backend):
    scene, inputs = _small()
    mask = jnp.asarray(np.random.default_rng(0).uniform(size=SMALL) < 0.5)
    directions = tuple(jnp.ones((1, *v.shape)) for v in inputs)
    _, whole = jax.jit(functools.partial(_along, _function(backend, scene, SMALL)))(inputs, directions)
    _, part = jax.jit(functools.partial(_along, _function(backend, scene, SMALL, mask)))(inputs, directions)
    for one, other in zip(part, whole, strict=True):
        drawn = mask[None, ..., None] if one.ndim == 4 else mask[None]
        np.testing.assert_array_equal(one, jnp.where(drawn, other, 0.0))
        assert float(jnp.abs(jnp.where(drawn, 0.0, other)).max()) > 0.1


def test_all_directions_share_one_kernel_call():
    scene, inputs = _small()
    directions = tuple(jnp.ones((7, *v.shape)) for v in inputs)
    text = str(jax.make_jaxpr(functools.partial(_along, _function("cpu", scene, SMALL)))(inputs, directions))
    assert text.count("target_name=galatea_composite_tangents") == 1 and "scan[" not in text and "while[" not in text


def test_all_directions_share_the_exponentials():
    """What does not depend on the direction is not batched: neither alphas nor the decision to go on."""
    scene, inputs = _small()
    directions = tuple(jnp.ones((7, *v.shape)) for v in inputs)
    jaxpr = jax.make_jaxpr(functools.partial(_along, _function("xla", scene, SMALL)))(inputs, directions)
    exponentials, predicates = [], []
    _collect(jaxpr.jaxpr, exponentials, predicates)
    assert exponentials and all(shape == (16, 256) for shape in exponentials)
    assert predicates and all(shape == () for shape in predicates)


def _collect(jaxpr, exponentials, predicates):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "exp":
            exponentials.append(equation.outvars[0].aval.shape)
        if equation.primitive.name == "while":
            predicates.append(equation.params["cond_jaxpr"].out_avals[0].shape)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                _collect(inner, exponentials, predicates)


def _camera():
    pose = jnp.eye(4).at[2, 3].set(4.0)
    return Camera(pose, jnp.asarray([40.0, 41.0]), jnp.asarray([18.0, 10.5]), SMALL)


def _seen(backend, derivative):
    """Colours as a function of a twist of the camera and the logarithm of its focal lengths."""
    rng = np.random.default_rng(2)
    n = 60
    arrays = (
        rng.normal(0, 0.7, (n, 3)),
        rng.normal(size=(n, 4)),
        np.exp(rng.normal(-2, 0.3, (n, 3))),
        rng.uniform(0.2, 0.9, n),
        rng.uniform(0, 1, (n, 3)),
    )
    splats = tuple(jnp.asarray(v, jnp.float32) for v in arrays)

    def run(x):
        moved = perturb(_camera(), x[:6])
        camera = Camera(moved.camera_from_world, moved.focal * jnp.exp(x[6:8]), moved.principal, SMALL)
        capacity = None if backend == "cpu" else 1024
        seen = rasterize(*splats, camera, capacity=capacity, backend=backend, derivative=derivative)
        return seen.color, seen.depth

    return run


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cpu", pytest.param("xla", marks=pytest.mark.slow)])
def test_a_camera_s_jacobian_is_that_of_reverse_mode(backend):
    forward = jax.jit(jax.jacfwd(_seen(backend, "forward")))(jnp.zeros(8))
    outputs, pull = jax.vjp(_seen(backend, "reverse"), jnp.zeros(8))
    rng = np.random.default_rng(4)
    cotangents = tuple(jnp.asarray(rng.normal(size=v.shape), jnp.float32) for v in outputs)
    (expected,) = pull(cotangents)
    found = sum(jnp.tensordot(u, j, u.ndim) for u, j in zip(cotangents, forward, strict=True))
    np.testing.assert_allclose(found, expected, atol=2e-4 * float(jnp.abs(expected).max()), rtol=0)


def test_linearizes():
    scene, inputs = _small()
    run = _function("cpu", scene, SMALL)
    directions = tuple(jnp.ones_like(v) for v in inputs)
    _, push = jax.linearize(run, *inputs)
    for one, other in zip(push(*directions), jax.jvp(run, inputs, directions)[1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 * float(jnp.abs(other).max()))


def _many(backend):
    each = [scenes.random_scene(seed, n=40, size=SMALL) for seed in range(2)]
    stacked = {name: jnp.asarray(np.stack([scene[name] for scene in each])) for name in each[0]}
    rng = np.random.default_rng(1)
    directions = tuple(jnp.asarray(rng.normal(size=(3, *each[0][n].shape)), jnp.float32) for n in INPUTS)

    def one(scene, moved):
        return jax.jvp(_function(backend, scene, SMALL), tuple(scene[n] for n in INPUTS), moved)[1]

    return stacked, directions, one


@pytest.mark.parametrize(
    ("backend", "order"),
    [
        ("cpu", "directions of scenes"),
        ("cpu", "scenes of directions"),
        ("cpu", "shard_map"),
        pytest.param("xla", "shard_map", marks=pytest.mark.slow),
    ],
)
def test_many_scenes_and_directions_are_those_of_single_calls(backend, order):
    stacked, directions, one = _many(backend)
    single = jax.jit(one)
    expected = [
        [single(jax.tree.map(lambda v, s=s: v[s], stacked), tuple(d[k] for d in directions)) for k in range(3)]
        for s in range(2)
    ]
    if order == "directions of scenes":
        found = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(stacked, directions)
    elif order == "scenes of directions":
        found = jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0), out_axes=1))(stacked, directions)
    else:
        mesh = jax.make_mesh((2,), ("view",), axis_types=(AxisType.Auto,))
        each = PartitionSpec("view")

        @jax.jit
        @functools.partial(jax.shard_map, mesh=mesh, in_specs=(each, PartitionSpec()), out_specs=each)
        def sharded(scenes_here, directions):
            return jax.lax.map(lambda scene: jax.vmap(lambda moved: one(scene, moved))(directions), scenes_here)

        found = sharded(stacked, directions)
    for s in range(2):
        for k in range(3):
            for ours, theirs in zip(found, expected[s][k], strict=True):
                np.testing.assert_allclose(ours[s, k], theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_each_mode_refuses_the_other():
    scene, inputs = _small()
    with pytest.raises(ValueError, match="expected no probe"):
        composite(
            *scene.values(), size=SMALL, probe=jnp.zeros_like(inputs[0]), backend="reference", derivative="forward"
        )
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda m: composite(m, *list(scene.values())[1:], size=SMALL).image, inputs[:1], inputs[:1])
