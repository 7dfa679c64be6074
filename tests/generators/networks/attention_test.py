import jax
import jax.numpy as jnp
import numpy as np

from generators.networks.attention import attend, root_mean_square_norm


def random_sets(*lengths, width=8):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(2, n, width)), jnp.float32) for n in lengths]


def by_softmax(queries, keys, values, head_size):
    """Attention head by head with a softmax over all keys, in float64 on the host."""
    out = np.zeros(queries.shape)
    for start in range(0, queries.shape[-1], head_size):
        q, k, v = (np.asarray(x, np.float64)[..., start : start + head_size] for x in (queries, keys, values))
        q, k = (x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-6) for x in (q, k))
        logits = q @ k.transpose(0, 2, 1) / np.sqrt(head_size)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        out[..., start : start + head_size] = weights / weights.sum(-1, keepdims=True) @ v
    return out


def test_several_sets_of_keys_are_one_softmax_over_all_of_them():
    queries, keys, values, more_keys, more_values = random_sets(5, 4, 4, 7, 7)
    found = attend(queries, [(keys, values), (more_keys, more_values)], head_size=4)
    together = by_softmax(
        queries, np.concatenate([keys, more_keys], 1), np.concatenate([values, more_values], 1), head_size=4
    )
    np.testing.assert_allclose(found, together, atol=2e-6)


def test_logits_are_bounded_so_that_nothing_overflows():
    """However large queries and keys are, logits stay within sqrt(head size): no weight is above exp of twice that."""
    queries, keys, values = random_sets(5, 6, 6)
    found = attend(1e15 * queries, [(1e15 * keys, values)], head_size=4)
    assert np.isfinite(np.asarray(found)).all()
    np.testing.assert_allclose(found, by_softmax(queries, keys, values, 4), atol=1e-5)
    same = jnp.broadcast_to(queries[:, :1], keys.shape)
    aligned = attend(queries[:, :1], [(same.at[:, 1:].multiply(-1), values)], head_size=8)
    weight = 1 / (1 + 5 * np.exp(-2 * np.sqrt(8)))
    expected = weight * values[:, 0] + (1 - weight) * values[:, 1:].mean(1)
    np.testing.assert_allclose(aligned[:, 0], expected, atol=1e-5)


def test_gradients_are_finite_at_zero():
    _, keys, values = random_sets(5, 6, 6)
    slope = jax.grad(lambda q: jnp.sum(attend(q, [(keys, values)], head_size=4) ** 2))(jnp.zeros((2, 5, 8)))
    assert np.isfinite(np.asarray(slope)).all()


def test_the_norm_forgets_lengths_and_keeps_directions():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)), jnp.float32)
    np.testing.assert_allclose(jnp.mean(root_mean_square_norm(x) ** 2, -1), 1, rtol=1e-4)
    np.testing.assert_allclose(root_mean_square_norm(5 * x), root_mean_square_norm(x), rtol=1e-4)
