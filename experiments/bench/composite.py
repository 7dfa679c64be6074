"""Compositing, binning included: forward, forward + backward, ratio of xla to the platform's default, growth with N."""

import jax
import jax.numpy as jnp

from experiments.bench.timing import median_ms, paired_ms
from renderers.kernels import tiling
from renderers.kernels.composite import shapes
from renderers.kernels.composite.api import composite
from renderers.kernels.dispatch import choose


def _calls(shape, backend):
    arrays = {name: jnp.asarray(array) for name, array in shapes.scene(shape).items()}
    means, extents, depths = arrays.pop("means2d"), arrays.pop("extents"), arrays.pop("depths")
    count = int(tiling.count_intersections(means, extents, shape.size))

    def image(means, conics, opacities, features, extents, depths):
        made = composite(
            means,
            conics,
            opacities,
            features,
            extents,
            depths,
            size=shape.size,
            capacity=tiling.next_capacity(count),
            backend=backend,
        )
        return made.image, made.transmittance

    def loss(*inputs):
        made, transmittance = image(*inputs)
        return (made * made).sum() + transmittance.sum()

    # every array is an argument: XLA would sort constants while it compiles
    inputs = (means, arrays["conics"], arrays["opacities"], arrays["features"], extents, depths)
    forward, both = jax.jit(image), jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))
    return ((lambda: forward(*inputs)), (lambda: both(*inputs))), count


def measure() -> dict[str, tuple[float, str]]:
    """Names to values with units."""
    default = choose()
    rows: dict[str, tuple[float, str]] = {}
    for name in ("20k", "50k", "100k", "400k", "features16", "full_hd"):
        (forward, both), count = _calls(shapes.SHAPES[name], default)
        rows[f"composite/{default}/{name}/intersections"] = (count, "")
        rows[f"composite/{default}/{name}/forward"] = (median_ms(forward), "ms")
        rows[f"composite/{default}/{name}/forward_backward"] = (median_ms(both), "ms")
    small, large = (rows[f"composite/{default}/{name}/forward_backward"][0] for name in ("20k", "400k"))
    rows[f"composite/{default}/growth_20k_to_400k"] = (large / small / 20, "times linear")
    if default != "xla":
        (ours, _), (theirs, _) = _calls(shapes.SCENE_50K, default), _calls(shapes.SCENE_50K, "xla")
        for index, part in enumerate(("forward", "forward_backward")):
            _, slow, ratio = paired_ms(ours[index], theirs[index], repeats=5)
            rows[f"composite/xla/50k/{part}"] = (slow, "ms")
            rows[f"composite/xla_over_{default}/50k/{part}"] = (ratio, "times")
    return rows
