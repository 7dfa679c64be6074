"""A transformer that sees the same octahedron in every view: known in closed form, from its planes' tokens on."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.single_pass import model
from experiments.single_pass.settings import ModelSettings
from experiments.single_pass.weights import SinglePass

RADIUS = 0.4  # |x| + |y| + |z| <= RADIUS
SETTINGS = ModelSettings(width=64, depth=1, features=2, hidden=4)
_CELLS, _RIM, _SLOPE = 16, 2, 8.0


def octahedron() -> SinglePass:
    """Red where x > 0, else black; distances are those of the L1 norm."""
    middles = ((np.arange(32) + 0.5) / 32 * 2 - 1) * model.HALF
    rows, columns = np.meshgrid(middles, middles, indexing="ij")
    planes = np.zeros((3, 32, 32, 2))
    planes[0, ..., 0] = np.abs(columns) + np.abs(rows)  # (x, y)
    planes[1, ..., 0] = np.abs(rows)  # (x, z)
    planes[0, ..., 1] = columns + 1.0
    wide = np.zeros((48, 12, 12, 2))  # cells with rims
    for cell in range(48):
        p, row, column = cell // _CELLS, cell % _CELLS // 4 * 8, cell % 4 * 8
        wide[cell, _RIM:-_RIM, _RIM:-_RIM] = planes[p, row : row + 8, column : column + 8]
    params = jax.tree.map(jnp.zeros_like, model.initial_params(SETTINGS, 0))
    root = np.sqrt(64.0)  # a token of one 1 has it there once its mean square is 1
    params["planes"].set_value(jnp.eye(48, 64))
    kernel = jnp.zeros((64, 288)).at[:48].set(wide.reshape(48, -1) / root)
    params["cells_out"]["kernel"].set_value(kernel)
    params["read_in"]["kernel"].set_value(jnp.zeros((6, 4)).at[0, 0].set(1.0).at[2, 0].set(1.0).at[1, 1].set(1.0))
    params["read_on"]["kernel"].set_value(jnp.eye(4))
    out = jnp.zeros((4, 4)).at[0, 0].set(1.0 / model.REACH).at[1, 1].set(100.0)
    params["read_out"]["kernel"].set_value(out)
    params["read_out"]["bias"].set_value(jnp.array([-RADIUS / model.REACH - 1.0, -100.0, -20.0, -20.0]))
    return SinglePass(settings=SETTINGS, params=params, about={"made": "by hand"})
