"""The forward process, and conversions among what a network may predict.

Kinds of prediction, all statements about the same two unknowns x_0 and eps of `z_t = alpha x_0 + sigma eps`:
    clean     x_0
    noise     eps
    velocity  v = alpha eps - sigma x_0 (arXiv 2202.00512, appendix D); for schedules that preserve variance the
              derivative of z with respect to the angle atan2(sigma, alpha)
    flow      eps - x_0, the velocity of rectified flow (arXiv 2209.03003)
    score     gradient of the log density of z_t, -eps / sigma (arXiv 2011.13456)

A conversion solves two linear equations, z and the prediction. It fails only where these say the same:
    from \\ to   clean        noise        their determinant
    clean       always       sigma > 0    -sigma
    noise       alpha > 0    always       alpha
    velocity    always       always       alpha^2 + sigma^2
    flow        always       always       alpha + sigma
    score       alpha > 0    always       as noise
So pure noise (t = 1, zero terminal signal-to-noise) needs a network that predicts x_0, v or the flow. Where a
conversion fails it gives infinities or NaN, never a made-up number; `require_defined` refuses it beforehand.
"""

import typing
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Num

from generators.diffusion.schedules import Schedule

Prediction = typing.Literal["clean", "noise", "velocity", "flow", "score"]
Examples = Float[Array, " b *n"]
Times = Num[Array, "*t"]  # [b], one for each example, or [], one for all

# From noisy examples z [b *n] and one time t [] to a prediction [b *n].
Denoiser = Callable[[Array, Array], Array]


def factors(
    schedule: Schedule, t: Num[Array, "*b"], like: Float[Array, "*n"]
) -> tuple[Float[Array, "*m"], Float[Array, "*m"]]:
    """alpha and sigma in the dtype of an array of images, with axes of size 1 to multiply it by.

    Args:
      schedule: any.
      t: a time for each example along the first axes of the images, or one for all.
      like: the images.
    """
    shape = t.shape + (1,) * (like.ndim - t.ndim)
    return schedule.alpha(t).astype(like.dtype).reshape(shape), schedule.sigma(t).astype(like.dtype).reshape(shape)


def add_noise(clean: Examples, noise: Examples, t: Times, schedule: Schedule) -> Examples:
    """`z_t = alpha x_0 + sigma eps`.

    Args:
      clean: examples x_0.
      noise: eps, standard normal.
      t: times, one [b] for each example or one [] for all.
      schedule: of the process.
    """
    alpha, sigma = factors(schedule, t, clean)
    return alpha * clean + sigma * noise


def target(
    kind: Prediction,
    clean: Examples,
    noise: Examples,
    t: Times,
    schedule: Schedule,
) -> Examples:
    """What a network should predict of an example and its noise; the score at sigma = 0 is infinite."""
    of_clean, of_noise = _equation(kind, *factors(schedule, t, clean))
    return of_clean * clean + of_noise * noise


def to_clean(
    prediction: Examples,
    kind: Prediction,
    z: Examples,
    t: Times,
    schedule: Schedule,
) -> Examples:
    """x_0 that a prediction means.

    Args:
      prediction: of the kind.
      kind: see the module.
      z: noisy examples that it was made for.
      t: their times, [b] or [].
      schedule: of the process.
    """
    if kind == "clean":
        return prediction
    alpha, sigma = factors(schedule, t, z)
    if kind == "score":
        prediction, kind = -sigma * prediction, "noise"
    of_clean, of_noise = _equation(kind, alpha, sigma)
    return (of_noise * z - sigma * prediction) / (alpha * of_noise - sigma * of_clean)


def to_noise(
    prediction: Examples,
    kind: Prediction,
    z: Examples,
    t: Times,
    schedule: Schedule,
) -> Examples:
    """eps that a prediction means; arguments as for `to_clean`."""
    if kind == "noise":
        return prediction
    alpha, sigma = factors(schedule, t, z)
    if kind == "score":
        return -sigma * prediction
    of_clean, of_noise = _equation(kind, alpha, sigma)
    return (alpha * prediction - of_clean * z) / (alpha * of_noise - sigma * of_clean)


def to_velocity(
    prediction: Examples,
    kind: Prediction,
    z: Examples,
    t: Times,
    schedule: Schedule,
) -> Examples:
    """v that a prediction means; arguments as for `to_clean`. From x_0 it needs sigma > 0, from eps alpha > 0."""
    return _converted(prediction, kind, "velocity", z, t, schedule)


def to_flow(
    prediction: Examples,
    kind: Prediction,
    z: Examples,
    t: Times,
    schedule: Schedule,
) -> Examples:
    """eps - x_0 that a prediction means; arguments as for `to_clean`, needs as for `to_velocity`."""
    return _converted(prediction, kind, "flow", z, t, schedule)


def to_score(
    prediction: Examples,
    kind: Prediction,
    z: Examples,
    t: Times,
    schedule: Schedule,
) -> Examples:
    """Gradient of the log density of z that a prediction means; arguments as for `to_clean`; sigma must not be 0."""
    if kind == "score":
        return prediction
    return -to_noise(prediction, kind, z, t, schedule) / factors(schedule, t, z)[1]


def clean_denoiser(predict: Denoiser, kind: Prediction, schedule: Schedule) -> Denoiser:
    """A network of any kind of prediction as what samplers ask: (z, t) to an estimate of x_0."""
    return lambda z, t: to_clean(predict(z, t), kind, z, t, schedule)


def require_defined(kind: Prediction, times: Num[Array, " n"], schedule: Schedule) -> None:
    """Refuses times at which a prediction of this kind says nothing of x_0; for times that are known before a trace.

    Raises:
      ValueError: alpha is 0 at one of them and the prediction is of eps or the score.
    """
    if kind in ("noise", "score"):
        silent = np.asarray(times)[np.asarray(schedule.alpha(times)) == 0]
        if silent.size:
            raise ValueError(
                f"a prediction of the {kind} says nothing of the clean data at time {silent[0]}, where alpha is 0; "
                "train the network to predict v or x_0, or start later"
            )


def _converted(prediction, kind, wanted, z, t, schedule):
    if kind == wanted:
        return prediction
    of_clean, of_noise = _equation(wanted, *factors(schedule, t, z))
    x_0, eps = to_clean(prediction, kind, z, t, schedule), to_noise(prediction, kind, z, t, schedule)
    return of_clean * x_0 + of_noise * eps


def _equation(kind, alpha, sigma):
    """Factors of x_0 and eps in a prediction."""
    match kind:
        case "clean":
            return 1, 0
        case "noise":
            return 0, 1
        case "velocity":
            return -sigma, alpha
        case "flow":
            return -1, 1
        case "score":
            return 0, -1 / sigma
    raise ValueError(f"a prediction is clean, noise, velocity, flow or score, not {kind!r}")
