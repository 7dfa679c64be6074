"""Every backend of the hash encoding against the reference in float64: values, gradients, gradients of gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renderers.kernels.dispatch import Unsupported
from renderers.kernels.hash_encode.api import hash_encode
from renderers.kernels.hash_encode.levels import HashLevels, dense_levels, hash_levels

# 4, 9 (dense), 19 and 40 vertices an axis; hundreds of vertices share a row of the finest
LEVELS = hash_levels(4, 4, 40, 9)
BOX = dense_levels((2, 3, 5), (7, 3, 4))


@dataclasses.dataclass(frozen=True)
class Row:
    """A backend at a precision, and its largest error relative to each array's largest entry."""

    backend: str
    dtype: str
    first: float
    second: float

    def __str__(self):
        return f"{self.backend}-{self.dtype}"


ROWS = (
    Row("xla", "float64", first=1e-13, second=1e-12),
    Row("xla", "float32", first=1e-5, second=5e-5),  # positions to 40 x 6e-8 of a cell
    Row("cpu", "float32", first=1e-5, second=5e-5),
    Row("pallas_gpu", "float32", first=1e-5, second=5e-5),
)


def points(levels: HashLevels) -> np.ndarray:
    """Inside, outside, on the cube's faces, edges and corners; away from the cells' borders, where derivatives jump."""
    rng = np.random.default_rng(0)
    inside = rng.uniform(0, 1, (70, 3))
    for resolution in levels.resolutions:  # float32 must not fall into another cell than float64
        scaled = inside * (np.array(resolution) - 1)
        inside = inside[(np.abs(scaled - np.round(scaled)) > 1e-4).all(1)]
    outside = rng.uniform(-0.5, 1.5, (20, 3)).round(3)
    faces = np.where(rng.uniform(size=(20, 3)) < 0.5, rng.integers(0, 2, (20, 3)), rng.uniform(0, 1, (20, 3)))
    return np.concatenate([inside, outside[((outside < 0) | (outside > 1)).any(1)], faces]).astype(np.float32)


@functools.cache
def _compiled(backend, levels):
    """Features, their pullback, and the pullback of both gradients."""

    def evaluate(points, table, g, directions):
        def gradients(points, table, g):
            return jax.vjp(functools.partial(hash_encode, levels=levels, backend=backend), points, table)[1](g)

        features = hash_encode(points, table, levels, backend=backend)
        first, pull = jax.vjp(gradients, points, table, g)
        return features, first, pull(directions)

    return jax.jit(evaluate)


def inputs(levels, width):
    """Points, table, cotangents of the features, and directions for the points and the table."""
    rng = np.random.default_rng(1)
    at = points(levels)
    table = rng.normal(size=(levels.num_rows, width)).astype(np.float32)
    g = rng.normal(size=(len(at), levels.num_levels * width)).astype(np.float32)
    return at, table, g, (rng.normal(size=at.shape).astype(np.float32), rng.normal(size=table.shape).astype(np.float32))


@functools.cache
def _evaluated(backend, dtype, levels, width):
    """Under x64, as a float32 form must not widen there either."""
    with jax.enable_x64(True):
        arrays = jax.tree.map(lambda array: jnp.asarray(array, dtype), inputs(levels, width))
        found = _compiled(backend, levels)(*arrays)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
        return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(
    ("levels", "width"),
    [
        pytest.param(LEVELS, 2, id="hash2"),
        pytest.param(LEVELS, 3, id="hash3", marks=pytest.mark.slow),
        pytest.param(BOX, 2, id="box2", marks=pytest.mark.slow),
        pytest.param(BOX, 3, id="box3", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_values_and_derivatives_to_the_second_order(row, levels, width):
    if row.backend == "pallas_gpu" and (levels, width) != (LEVELS, 2):
        pytest.skip("interpreted kernels are slow: one case has hashed and dense levels")
    features, first, second = _evaluated(row.backend, row.dtype, levels, width)
    expected = _evaluated("reference", "float64", levels, width)
    names = ("features", "points", "table", "points twice", "table twice", "g")
    found = zip(names, (features, *first, *second), jax.tree.leaves(expected), strict=True)
    for name, array, truth in found:
        bound = (row.first if name in names[:3] else row.second) * np.abs(truth).max()
        assert np.abs(truth).max() > 0.1 and np.abs(array - truth).max() <= bound, name


def test_the_cpu_result_does_not_depend_on_how_the_work_is_shared():
    """Bit by bit, also with more threads than levels, where parts of a level's rows are dealt out."""
    numba = pytest.importorskip("numba")
    from renderers.kernels.hash_encode import cpu

    levels, width = hash_levels(2, 8, 64, 12), 2
    rng = np.random.default_rng(2)
    at = rng.uniform(0, 1, (3, 2000)).astype(np.float32)
    g = rng.normal(size=(2000, 4)).astype(np.float32)
    rows = zip(levels.resolutions, levels.offsets, levels.sizes, levels.dense, strict=True)
    columns = np.array([[*resolution, *rest] for resolution, *rest in rows], np.int32)
    none = np.zeros((3, 0), np.float32)
    tables = []
    for threads in (1, 2, 3, 16):
        assert numba.get_num_threads() >= 1
        table = np.full(levels.num_rows * width, np.nan, np.float32)
        cpu.scatter(at, g, columns, none, np.int32(threads), table)
        tables.append(table)
    for table in tables[1:]:
        np.testing.assert_array_equal(table, tables[0])
    expected = jax.vjp(lambda t: hash_encode(jnp.asarray(at.T), t, levels, backend="xla"), tables[0].reshape(-1, 2))
    np.testing.assert_allclose(tables[0].reshape(-1, 2), expected[1](jnp.asarray(g))[0], atol=2e-5)


def is_feature_by_feature(module) -> bool:
    """Whether the sums of a module like `cpu` treat each of three features as if it were alone."""
    levels = hash_levels(2, 4, 9, 6)
    rng = np.random.default_rng(3)
    at, along = rng.uniform(0, 1, (2, 3, 16)).astype(np.float32)
    table, g = (rng.normal(size=(rows, 2, 3)).astype(np.float32) for rows in (levels.num_rows, 16))
    table = table[:, 0]
    rows = zip(levels.resolutions, levels.offsets, levels.sizes, levels.dense, strict=True)
    columns = np.array([[*resolution, *rest] for resolution, *rest in rows], np.int32)

    def sums(table, g):
        table, g = np.ascontiguousarray(table), np.ascontiguousarray(g)
        features, rows, slopes = np.empty(g.size, np.float32), np.empty(table.size, np.float32), np.empty_like(at)
        shaped = features.reshape(16, -1)
        module.gather(at, table.ravel(), columns, along, np.int32(1), shaped)
        module.scatter(at, g.reshape(16, -1), columns, along, np.int32(1), rows)
        module.contract(at, table.ravel(), g.reshape(16, -1), columns, along, np.int32(1), slopes)
        return features.reshape(g.shape), rows.reshape(table.shape), slopes

    together = sums(table, g)
    alone = [sums(table[:, k : k + 1], g[..., k : k + 1]) for k in range(3)]
    pair = sums(table[:, :2], g[..., :2])  # has code of its own
    return all(
        np.allclose(one, truth, rtol=1e-4, atol=1e-4)
        for k in range(2)
        for one, truth in (
            (together[k], np.concatenate([part[k] for part in alone], -1)),
            (pair[k], together[k][..., :2]),
        )
    ) and np.allclose(together[2], sum(part[2] for part in alone), rtol=1e-4, atol=1e-3)


def test_the_cpu_result_of_each_feature_does_not_depend_on_how_many_there_are():
    pytest.importorskip("numba")
    from renderers.kernels.hash_encode import cpu

    assert is_feature_by_feature(cpu)


@pytest.mark.parametrize(
    "backend", [*[pytest.param(name, marks=pytest.mark.slow) for name in ("reference", "xla")], "cpu"]
)
def test_what_is_not_a_number_stays_so_and_harms_no_other_point(backend):
    at = jnp.asarray([[0.3, 0.4, 0.5], [jnp.nan, 0.5, 0.5], [jnp.inf, -jnp.inf, 0.5]], jnp.float32)
    table = jnp.asarray(np.random.default_rng(0).normal(size=(LEVELS.num_rows, 2)), jnp.float32)
    features = np.asarray(hash_encode(at, table, LEVELS, backend=backend))
    assert np.isnan(features[1]).all() and np.isfinite(features[[0, 2]]).all()
    alone = hash_encode(jnp.clip(at[2:], 0, 1), table, LEVELS, backend=backend)
    np.testing.assert_array_equal(features[2:], alone)


@pytest.mark.parametrize("backend", [pytest.param("xla", marks=pytest.mark.slow), "cpu"])
def test_vmap_over_tables_is_one_call_each(backend):
    rng = np.random.default_rng(0)
    tables = jnp.asarray(rng.normal(size=(2, BOX.num_rows, 2)), jnp.float32)
    at = jnp.asarray(rng.uniform(0, 1, (2, 9, 3)), jnp.float32)

    def gradient(at, table):
        return jax.grad(lambda at, table: (hash_encode(at, table, BOX, backend=backend) ** 2).sum(), (0, 1))(at, table)

    together = jax.vmap(gradient)(at, tables)
    for k in range(2):
        for one, both in zip(gradient(at[k], tables[k]), together, strict=True):
            np.testing.assert_allclose(both[k], one, atol=1e-5)


def test_forward_mode_and_its_refusals():
    at, table = jnp.full((1, 3), 0.3), jnp.ones((BOX.num_rows, 2))
    encode = functools.partial(hash_encode, table=table, levels=BOX)
    _, pushed = jax.jvp(lambda at: encode(at * at, derivative="forward"), (at,), (jnp.ones_like(at),))
    np.testing.assert_allclose(pushed, 0, atol=1e-5)
    with pytest.raises(ValueError, match="forward mode"):
        encode(at, derivative="forward", backend="cpu")
    with pytest.raises(Unsupported, match="use 'xla'"):
        encode(at, backend="pallas_tpu")
    with pytest.raises(ValueError, match="rows for these levels, got 3"):
        hash_encode(at, table[:3], BOX)
    with pytest.raises(ValueError, match="one dtype"):
        hash_encode(at.astype(jnp.float16), table, BOX)
