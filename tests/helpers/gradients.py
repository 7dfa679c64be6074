"""Gradients against central differences, and gradients that must be finite."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_STEP = 1e-6  # near the cube root of float64's rounding error: truncation and rounding are then both about 1e-11


def assert_finite_gradients(function: Callable, *arguments) -> None:
    """Value and reverse-mode gradient of every float leaf of the arguments are finite."""
    evaluate = jax.jit(jax.value_and_grad(_scalar(function), argnums=tuple(range(len(arguments)))))
    value, gradients = evaluate(*arguments)
    assert np.isfinite(value), f"the function itself gives {value}"
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        bad = np.argwhere(~np.isfinite(np.asarray(leaf)))
        assert bad.size == 0, f"gradient {jax.tree_util.keystr(path)} is not finite at {bad[:5].tolist()}: {leaf}"


def assert_gradients_match(
    function: Callable, *arguments, rtol: float = 1e-6, atol: float = 1e-8, max_entries: int = 48, step: float = _STEP
) -> None:
    """Reverse-mode gradients equal central differences entry by entry; float64 arguments, so under `enable_x64`.

    Array-valued functions are weighted with fixed random numbers. Of larger leaves `max_entries` random entries are
    checked. `atol` is relative to the largest entry of each leaf's gradient, or to 1 if that is smaller.
    """
    scalar = jax.jit(_scalar(function))
    gradients = jax.jit(jax.grad(scalar, argnums=tuple(range(len(arguments)))))(*arguments)
    leaves, treedef = jax.tree_util.tree_flatten(arguments)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(arguments)]
    rng = np.random.default_rng(0)
    for number, (path, gradient) in enumerate(zip(paths, jax.tree_util.tree_leaves(gradients), strict=True)):
        leaf, gradient = np.asarray(leaves[number]), np.asarray(gradient)
        assert leaf.dtype == np.float64, f"argument {path} is {leaf.dtype}: differences need float64, use enable_x64"
        entries = rng.permutation(leaf.size)[:max_entries]
        bound = atol * max(1.0, float(np.max(np.abs(gradient), initial=0.0)))
        for entry in entries:
            index = np.unravel_index(entry, leaf.shape)
            values = []
            for sign in (1.0, -1.0):
                moved = leaf.copy()
                moved[index] += sign * step
                values.append(float(scalar(*treedef.unflatten([*leaves[:number], moved, *leaves[number + 1 :]]))))
            difference, found = (values[0] - values[1]) / (2.0 * step), float(gradient[index])
            assert abs(found - difference) <= bound + rtol * abs(difference), (
                f"gradient {path}{[int(i) for i in index]} is {found:.12g}, central difference {difference:.12g}"
            )


def _scalar(function):
    """The sum of all float outputs, each weighted with fixed random numbers so that no direction cancels."""

    def scalar(*arguments):
        rng = np.random.default_rng(1)
        total = 0.0
        for leaf in jax.tree_util.tree_leaves(function(*arguments)):
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                weights = rng.uniform(0.5, 1.5, leaf.shape) * rng.choice([-1.0, 1.0], leaf.shape)
                total = total + jnp.sum(leaf * jnp.asarray(weights, leaf.dtype))
        return total

    return scalar
