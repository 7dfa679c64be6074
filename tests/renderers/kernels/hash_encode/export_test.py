"""The Triton kernels of the hash encoding lower for CUDA, second derivatives included."""

import re

import jax
import jax.numpy as jnp

from renderers.kernels.hash_encode.api import hash_encode
from renderers.kernels.hash_encode.shapes import INSTANT_NGP
from tests.renderers.kernels.export_test import _calls, _export


def test_forward_backward_and_second_derivatives_lower():
    levels = INSTANT_NGP.levels

    def steep(points, table):
        def summed(points, table):
            return (hash_encode(points, table, levels, backend="pallas_gpu") ** 2).sum()

        value, gradients = jax.value_and_grad(summed, (0, 1))(points, table)
        return value + sum((gradient**2).sum() for gradient in gradients)

    shapes = ((INSTANT_NGP.num_points, 3), (levels.num_rows, INSTANT_NGP.features))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    module = _export(jax.grad(steep, (0, 1)), "cuda", *arrays)
    kernels = {re.search(r"\bhash_(gather|contract)", line)[0] for line in _calls(module, "cuda")}
    assert kernels == {"hash_gather", "hash_contract"}
    assert "stablehlo.scatter" in module, "the sum into the table is XLA's"
