import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import finite


def test_counts_equal_a_count_on_the_host():
    chance = np.random.default_rng(0)
    arrays = {name: chance.normal(size=(20, 3)).astype(np.float32) for name in "abc"}
    for name, bad in (("a", np.nan), ("c", np.inf)):
        arrays[name][chance.random((20, 3)) < 0.2] = bad
    report = jax.jit(lambda tree: finite.finite_report({"gradient": tree}))({**arrays, "d": jnp.arange(3)})
    assert report.names == (("gradient", "a"), ("gradient", "b"), ("gradient", "c"))
    np.testing.assert_array_equal(report.counts, [np.sum(~np.isfinite(arrays[name])) for name in "abc"])
    assert report.sizes == (60, 60, 60)


def test_line_names_kind_path_and_count():
    means = jnp.ones((4, 3)).at[2, 1].set(-jnp.inf).at[0, 0].set(jnp.nan)
    trees = {"loss": jnp.float32(1.0), "gradient": {"params": [jnp.ones(2), {"means": means}]}}
    line = finite.describe_non_finite(finite.finite_report(trees))
    assert line == "non-finite gradient in params.1.means (2 of 12 entries)"
    trees["loss"] = jnp.float32(jnp.nan)
    line = finite.describe_non_finite(finite.finite_report(trees))
    assert line == "non-finite loss (1 of 1 entries; 1 more arrays are non-finite)"


@pytest.mark.parametrize("trees", [{}, {"state": {"count": jnp.int32(3)}}, {"loss": jnp.finfo(jnp.float32).max}])
def test_finite_or_empty_is_silent(trees):
    assert finite.describe_non_finite(finite.finite_report(trees)) is None


def test_uncaught_error_is_one_line_and_code_1():
    with pytest.raises(SystemExit) as caught:
        raise finite.NonFiniteError("step 3: non-finite loss")
    assert caught.value.code == "step 3: non-finite loss"  # Python prints it and exits with 1.
