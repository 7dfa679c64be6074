"""Exponential moving averages of weights whose memory grows with the run."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


def ramped_decay(step: Int[Array, ""], most: float) -> Float[Array, ""]:
    """Share of the average that an update keeps: `min(most, 1 - 9 / (step + 10))`.

    Early on the average is over about the last tenth of the run so far, so that it forgets the weights that training
    started from; in the end it is over the last 1 / (1 - most) steps. The ramp (1 + n) / (10 + n) is that of
    TensorFlow's ExponentialMovingAverage.

    Args:
      step: updates done before.
      most: the decay in the end, below 1.
    """
    return jnp.minimum(most, 1 - 9 / (step.astype(jnp.float32) + 10))


def averaged(average: PyTree[Array], params: PyTree[Array], decay: float | Float[Array, ""]) -> PyTree[Array]:
    """`decay average + (1 - decay) params`, leaf by leaf."""
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
