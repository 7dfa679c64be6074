"""Noise schedules: two functions of time, alpha and sigma; everything else is derived from them.

Notation: `z_t = alpha(t) x_0 + sigma(t) eps` with eps of unit variance, `alpha / sigma` falling with time. All
schedules here but `RectifiedFlow` preserve variance, `alpha^2 + sigma^2 = 1`.
lambda = log(alpha^2 / sigma^2) is the log signal-to-noise ratio (variational diffusion models, arXiv 2107.00630).

Time is continuous, 0 for data and 1 for noise; or an integer timestep 0 .. T-1 of a `Table`, as in DDPM (arXiv
2006.11239), whose alpha_bar_t is `alpha(t)^2` and whose beta_t is `1 - alpha_bar_t / alpha_bar_(t-1)`, alpha_bar
being 1 before timestep 0.

Schedules are plain frozen dataclasses, equal and hashed by value: close over them, or pass them to a jitted function as
static arguments. Their numbers may be traced, to differentiate by them. Results have the dtype of a floating t, which
`generators.diffusion.process.factors` casts to that of the images.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

_HALF_PI = 0.5 * np.pi


@typing.runtime_checkable
class Schedule(typing.Protocol):
    """How much of the data and how much noise a noisy sample holds at a time."""

    def alpha(self, t: Num[Array, "*b"]) -> Float[Array, "*b"]:
        """Factor of the data."""
        ...

    def sigma(self, t: Num[Array, "*b"]) -> Float[Array, "*b"]:
        """Standard deviation of the noise."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """The cosine schedule in continuous time (arXiv 2102.09672, without its offset), shifted in signal-to-noise.

    Exact at both ends: alpha(0) = sigma(1) = 1 and alpha(1) = sigma(0) = 0.

    Attributes:
      shift: divides alpha / sigma at every time, positive (simple diffusion, arXiv 2301.11093, eq. 10: image side / 64
        there); above 1 for images with much redundancy, such as many views of one object.
    """

    shift: float | Float[Array, ""] = 1.0

    def alpha(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Factor of the data."""
        signal, noise = self._sides(t)
        return signal / jnp.hypot(signal, noise)

    def sigma(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Standard deviation of the noise."""
        signal, noise = self._sides(t)
        return noise / jnp.hypot(signal, noise)

    def _sides(self, t):
        # The sine of the complement, since the cosine of pi / 2 as rounded is not 0
        return jnp.sin(_HALF_PI * (1 - t)), self.shift * jnp.sin(_HALF_PI * t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearRate:
    """Noise that comes in at a rate beta(t) linear in continuous time: the VP process of arXiv 2011.13456, eq. 32-33.

    `alpha(t) = exp(-1/2 integral_0^t beta)`. Some of the data is left at the end: alpha(1) = 0.0066 by default. The
    slope of sigma at t = 0 is infinite.

    Attributes:
      first: beta(0), per unit of time.
      last: beta(1).
    """

    first: float | Float[Array, ""] = 0.1
    last: float | Float[Array, ""] = 20.0

    def alpha(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Factor of the data."""
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Standard deviation of the noise."""
        return jnp.sqrt(-jnp.expm1(2 * self._log_alpha(t)))

    def _log_alpha(self, t):
        return -0.5 * t * (self.first + 0.5 * t * (self.last - self.first))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RectifiedFlow:
    """Straight lines from data to noise, `z_t = (1 - t) x_0 + t eps` (arXiv 2209.03003); variance is not preserved.

    Attributes:
      shift: divides alpha / sigma at every time, positive; another speed along the same lines (arXiv 2403.03206,
        eq. 23: there sqrt(pixels / pixels)).
    """

    shift: float | Float[Array, ""] = 1.0

    def alpha(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Factor of the data."""
        return (1 - t) / (1 + (self.shift - 1) * t)

    def sigma(self, t: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """Standard deviation of the noise."""
        return self.shift * t / (1 + (self.shift - 1) * t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shifted:
    """Any schedule with its signal-to-noise ratio divided by shift^2 at every time; the result preserves variance.

    Attributes:
      base: the schedule; a table gives a schedule of the same timesteps.
      shift: divides alpha / sigma, positive (arXiv 2301.11093, eq. 10).
    """

    base: Schedule
    shift: float | Float[Array, ""]

    def alpha(self, t: Num[Array, "*b"]) -> Float[Array, "*b"]:
        """Factor of the data."""
        alpha = self.base.alpha(t)
        return alpha / jnp.hypot(alpha, self.shift * self.base.sigma(t))

    def sigma(self, t: Num[Array, "*b"]) -> Float[Array, "*b"]:
        """Standard deviation of the noise."""
        noise = self.shift * self.base.sigma(t)
        return noise / jnp.hypot(self.base.alpha(t), noise)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A schedule that is known at timesteps 0 .. T-1 only; timestep -1 is clean data, alpha = 1 and sigma = 0.

    Attributes:
      alphas: T factors of the data.
      sigmas: T standard deviations of the noise.

    Raises:
      ValueError: not as many alphas as sigmas, or none.
    """

    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]

    def __post_init__(self):
        if not len(self.alphas) == len(self.sigmas) > 0:
            raise ValueError(f"a table needs as many alphas as sigmas, got {len(self.alphas)} and {len(self.sigmas)}")

    @property
    def count(self) -> int:
        """T, the number of timesteps."""
        return len(self.alphas)

    def alpha(self, t: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """Factor of the data; NaN for timesteps after the last."""
        return _look_up(self.alphas, t, 1.0)

    def sigma(self, t: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """Standard deviation of the noise; NaN for timesteps after the last."""
        return _look_up(self.sigmas, t, 0.0)


def from_betas(betas: Num[np.ndarray, " T"]) -> Table:
    """The table of a process that adds noise of variance beta_t at timestep t: alpha_bar_t = prod_(s <= t) 1 - beta_s.

    Raises:
      ValueError: a beta is not in (0, 1].
    """
    betas = np.asarray(betas, np.float64)
    if not np.all((betas > 0) & (betas <= 1)):
        raise ValueError(f"betas must be above 0 and at most 1, got {betas.min()} .. {betas.max()}")
    with np.errstate(divide="ignore"):
        log_alpha_bars = np.cumsum(np.log1p(-betas))
    return _table(np.exp(0.5 * log_alpha_bars), np.sqrt(-np.expm1(log_alpha_bars)))


def linear(count: int = 1000, first: float = 1e-4, last: float = 0.02) -> Table:
    """Betas at equal steps (DDPM, arXiv 2006.11239, section 4)."""
    return from_betas(np.linspace(first, last, count))


def scaled_linear(count: int = 1000, first: float = 0.00085, last: float = 0.012) -> Table:
    """Betas whose square roots are at equal steps: latent diffusion, where it is called "linear"; MVDream."""
    return from_betas(np.linspace(first**0.5, last**0.5, count) ** 2)


def squared_cosine(count: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Table:
    """alpha_bar as the square of a cosine, the betas cut off (improved DDPM, arXiv 2102.09672, eq. 17).

    Args:
      count: timesteps.
      offset: s there: keeps the first betas from being too small.
      largest: of the betas.
    """
    alpha_bars = np.cos(0.5 * np.pi * (np.arange(count + 1) / count + offset) / (1 + offset)) ** 2
    return from_betas(np.minimum(1 - alpha_bars[1:] / alpha_bars[:-1], largest))


def discretized(schedule: Schedule, count: int = 1000) -> Table:
    """A continuous schedule at times 1/T, 2/T .. 1: timestep t is time (t + 1) / T, so that -1 is clean data."""
    # Concrete numbers also while a caller is traced, and in float64 whatever the caller's precision is
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        t = jnp.arange(1, count + 1) / count
        return _table(np.asarray(schedule.alpha(t)), np.asarray(schedule.sigma(t)))


def time_of_timestep(timestep: Int[Array, "*b"], count: int = 1000) -> Float[Array, "*b"]:
    """The continuous time of a timestep in a `discretized` schedule, (t + 1) / T."""
    return (timestep.astype(jnp.float32) + 1) / count


def zero_terminal_snr(table: Table) -> Table:
    """The table with its alphas shifted and stretched so that the last is 0 and the first stays.

    Then the last timestep is pure noise, as sampling assumes, and a network must predict v or x_0: eps would tell
    nothing there (arXiv 2305.08891, algorithm 1).

    Raises:
      ValueError: the table does not preserve variance, or has one timestep only.
    """
    alphas, sigmas = np.asarray(table.alphas), np.asarray(table.sigmas)
    if not np.allclose(alphas**2 + sigmas**2, 1, atol=1e-6):
        raise ValueError("only a table with alpha^2 + sigma^2 = 1 can be rescaled to zero terminal signal-to-noise")
    if table.count < 2:
        raise ValueError("a table of one timestep has no first alpha to keep beside a last one of 0")
    alphas = (alphas - alphas[-1]) * (alphas[0] / (alphas[0] - alphas[-1]))
    return _table(alphas, np.sqrt((1 - alphas) * (1 + alphas)))


def alpha_bars(table: Table) -> Float[Array, " T"]:
    """alpha^2, DDPM's cumulative products."""
    return jnp.asarray(np.square(table.alphas))


def betas(table: Table) -> Float[Array, " T"]:
    """Variances of the noise that each timestep adds, from the alphas; 1 at a last timestep without signal."""
    bars = np.square(table.alphas)
    return jnp.asarray(1 - bars / np.concatenate([[1.0], bars[:-1]]))


def timestep_of_log_snr(table: Table, value: Float[Array, "*b"]) -> Int[Array, "*b"]:
    """The timestep whose log signal-to-noise ratio is nearest to the value."""
    ratios = log_snr(table, jnp.arange(table.count))
    value = value[..., None]
    # Infinities of one sign are at no distance from each other, their difference would be NaN
    ratios = jnp.broadcast_to(ratios, (*value.shape[:-1], table.count))
    distances = jnp.where(ratios == value, 0.0, jnp.abs(ratios - value))
    return jnp.argmin(distances, axis=-1)


def log_snr(schedule: Schedule, t: Num[Array, "*b"]) -> Float[Array, "*b"]:
    """lambda = log(alpha^2 / sigma^2): minus infinity where no data is left, infinity where there is no noise.

    Differentiable where it is finite; elsewhere its derivative is 0, not NaN.
    """
    return 2 * (_log(schedule.alpha(t)) - _log(schedule.sigma(t)))


def time_of_log_snr(schedule: Schedule, value: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """When a continuous schedule has a log signal-to-noise ratio, in [0, 1].

    By bisection, then a Newton step through which derivatives with respect to the value, and to what the schedule is
    made of, are those of the inverse function. Ratios that the schedule never has give the nearer end.
    """
    target = jax.lax.stop_gradient(value)
    zero, one = jnp.zeros_like(value), jnp.ones_like(value)

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        later = log_snr(schedule, middle) > target
        return jnp.where(later, middle, low), jnp.where(later, high, middle)

    # The spacing of floats below 1 is reached after as many halvings as they have bits
    low, high = jax.lax.fori_loop(0, jnp.finfo(value.dtype).nmant + 2, halve, (zero, one))
    near = jax.lax.stop_gradient(0.5 * (low + high))
    there, slope = jax.jvp(lambda t: log_snr(schedule, t), (near,), (one,))
    inside = (target < log_snr(schedule, zero)) & (target > log_snr(schedule, one))
    excess = jnp.where(inside, there - jnp.where(inside, value, 0), 0)
    refined = near - excess / jax.lax.stop_gradient(jnp.where(slope == 0, 1, slope))
    end = jnp.where(target > there, zero, one)
    return jnp.where(inside, jnp.clip(refined, 0, 1), end)


def _look_up(values, t, clean):
    known = jnp.asarray(np.asarray(values)).at[jnp.maximum(t, 0)].get(mode="fill", fill_value=jnp.nan)
    return jnp.where(t < 0, clean, known)


def _table(alphas, sigmas):
    return Table(alphas=tuple(alphas.tolist()), sigmas=tuple(sigmas.tolist()))


def _log(x):
    """log with minus infinity at 0, where its derivative is taken as 0: 1 / 0 times 0 further back would be NaN."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)
