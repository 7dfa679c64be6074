"""Words for the side that a camera sees, for models that know of views only what a prompt says.

Azimuth 0 is a camera in front of the object, on +Z, growing towards +X; elevations are above the horizon. Radians.
"""

import dataclasses
import math
import typing
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

VIEWS = ("side", "front", "back", "overhead")
SIDE, FRONT, BACK, OVERHEAD = range(4)

# f(r) = a exp(-b r) + c for how strongly a neighbouring view is pushed away (Perp-Neg's published fits).
_FRONT_WHILE_FRONT_TO_SIDE = (4.0, 0.5, -2.426)
_SIDE_WHILE_FRONT_TO_SIDE = (4.0, 0.5, -2.426)
_SIDE_WHILE_SIDE_TO_BACK = (1.0, 0.5, -0.606)
_FRONT_WHILE_SIDE_TO_BACK = (1.0, 0.5, 0.967)


def view_prompts(prompt: str, form: Literal["suffix", "prefix"] = "suffix") -> tuple[str, str, str, str]:
    """A prompt for each of VIEWS, in their order: "a chair, front view", or "front view of a chair" (SJC's form)."""
    side, front, back, overhead = (
        f"{prompt}, {view} view" if form == "suffix" else f"{view} view of {prompt}" for view in VIEWS
    )
    return side, front, back, overhead


def seen_views(
    azimuths: Float[Array, " b"],
    elevations: Float[Array, " b"],
    *,
    front: float = math.radians(45.0),
    back: float = math.radians(45.0),
    overhead: float = math.radians(60.0),
) -> Int[Array, " b"]:
    """Indices into VIEWS of what cameras see (DreamFusion, arXiv 2209.14988, section 3.2).

    Args:
      azimuths: of the cameras, any multiple of a turn.
      elevations: of the cameras.
      front: less than this from azimuth 0 is the front; 30 degrees in ProlificDreamer and MVDream.
      back: less than this from azimuth pi is the back.
      overhead: above this elevation the azimuth does not matter.
    """
    off_front = jnp.abs(_wrapped(azimuths))
    level = jnp.where(off_front < front, FRONT, jnp.where(off_front > math.pi - back, BACK, SIDE))
    return jnp.where(elevations > overhead, OVERHEAD, level).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
@typing.no_type_check
class SoftViews:
    """Prompts between two views, and what they are not (Perp-Neg, arXiv 2304.04968).

    Attributes:
      positive: shares of the embeddings of VIEWS in the prompt's; rows sum to 1.
      negative: indices into VIEWS of the two prompts to keep away from.
      weights: of the negative predictions, at most 0 (up to 0.001, the rounding of the published fits).
    """

    positive: Float[Array, "b 4"]
    negative: Int[Array, "b 2"]
    weights: Float[Array, "b 2"]


def soft_views(
    azimuths: Float[Array, " b"], elevations: Float[Array, " b"], *, overhead: float = math.radians(60.0)
) -> SoftViews:
    """Prompts that change gradually with the azimuth, with perpendicular negatives.

    From front to side the prompt is `r front + (1 - r) side` with r = 1 - |azimuth| / 90 degrees, from side to back the
    same with r = 2 - |azimuth| / 90 degrees; negatives are the front and the side, weighted so that each is pushed away
    where it is not wanted. Overhead there are no negatives (weights 0).

    Args:
      azimuths: of the cameras, any multiple of a turn.
      elevations: of the cameras.
      overhead: above this elevation the prompt is that of the overhead view.
    """
    quarter = jnp.abs(_wrapped(azimuths)) / (0.5 * math.pi)
    is_front, is_overhead = quarter < 1.0, (elevations > overhead)[:, None]
    r = jnp.where(is_front, 1.0 - quarter, 2.0 - quarter)
    none = jnp.zeros_like(r)
    toward_front = jnp.stack([1.0 - r, r, none, none], axis=-1)
    toward_back = jnp.stack([r, none, 1.0 - r, none], axis=-1)
    positive = jnp.where(is_front[:, None], toward_front, toward_back)
    front_weight = -jnp.where(is_front, _decay(_FRONT_WHILE_FRONT_TO_SIDE, r), _decay(_FRONT_WHILE_SIDE_TO_BACK, r))
    side_weight = -jnp.where(is_front, _decay(_SIDE_WHILE_FRONT_TO_SIDE, 1.0 - r), _decay(_SIDE_WHILE_SIDE_TO_BACK, r))
    return SoftViews(
        positive=jnp.where(is_overhead, jax.nn.one_hot(OVERHEAD, 4, dtype=positive.dtype)[None], positive),
        negative=jnp.broadcast_to(jnp.array([FRONT, SIDE], jnp.int32), (len(r), 2)),
        weights=jnp.where(is_overhead, 0.0, jnp.stack([front_weight, side_weight], axis=-1)),
    )


def _decay(fit, r):
    scale, rate, offset = fit
    return scale * jnp.exp(-rate * r) + offset


def _wrapped(azimuths):
    """Azimuths in [-pi, pi)."""
    return jnp.mod(azimuths + math.pi, 2.0 * math.pi) - math.pi
