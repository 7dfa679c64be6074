"""The networks of a field fit as a pure function: which modules the settings mean, their parameters as a plain tree."""

import functools
from typing import Any, Literal

import jax
from flax import nnx

from experiments import keys
from experiments.fields.settings import FieldConfig
from renderers.fields.frequency import FrequencyEncoding
from renderers.fields.hash_grid import HashGrid, HashGridConfig
from renderers.fields.heads import DirectionHarmonics, Encoding
from renderers.fields.nerf import DensityField, Domain, NerfField
from renderers.fields.sdf import LaplaceScale, SdfField, Sharpness
from renderers.fields.triplane import TriPlane

Params = dict[str, Any]
_PROPOSAL = HashGridConfig(num_levels=5, base_resolution=16, finest_resolution=128, log2_table_size=15)
_PROPOSAL_WIDTH = 16


class SceneModel(nnx.Module):
    """A field; how sharp its surface is if it is a signed distance; and the proposal where the scene has no bounds."""

    def __init__(self, config: FieldConfig, *, unbounded: bool, rngs: nnx.Rngs):
        """The modules that the settings mean."""
        self.field = _field(config, unbounded, rngs)
        self.scale = _scale(config)
        self.proposal = _proposal(config, rngs) if unbounded else None


def _proposal(config: FieldConfig, rngs: nnx.Rngs) -> DensityField:
    encoding = HashGrid(_PROPOSAL, backend=config.backend, rngs=rngs)
    return DensityField(encoding, domain=Domain(contraction="cube"), width=_PROPOSAL_WIDTH, rngs=rngs)


def _scale(config: FieldConfig) -> Sharpness | LaplaceScale | None:
    if config.surface == "density":
        return None
    return Sharpness() if config.surface == "neus" else LaplaceScale()


def _field(config: FieldConfig, unbounded: bool, rngs: nnx.Rngs) -> NerfField | SdfField:
    network = config.network
    encoding, interval = _encoding(config, rngs)
    domain = Domain(contraction="cube" if unbounded else None, interval=interval)
    directions = DirectionHarmonics(network.direction_degree)
    width, depth = network.width, network.density_depth
    if config.field == "frequency":
        width, depth = config.frequency.width, config.frequency.depth
    if config.surface != "density":
        return SdfField(
            encoding,
            domain=domain,
            direction_encoding=directions,
            width=width,
            depth=max(depth, 1),
            num_features=network.geometry_features,
            color_width=network.width,
            color_depth=network.color_depth,
            rngs=rngs,
        )
    return NerfField(
        encoding,
        domain=domain,
        direction_encoding=directions,
        width=width,
        depth=depth,
        num_features=network.geometry_features,
        color_width=network.width,
        color_depth=network.color_depth,
        rngs=rngs,
    )


def _encoding(config: FieldConfig, rngs: nnx.Rngs) -> tuple[Encoding, Literal["unit", "signed"]]:
    if config.field == "hash":
        grid = config.hash
        sizes = HashGridConfig(
            num_levels=grid.levels,
            base_resolution=grid.coarsest,
            finest_resolution=grid.finest,
            log2_table_size=grid.log2_rows,
            features=grid.features,
        )
        return HashGrid(sizes, backend=config.backend, rngs=rngs), "unit"
    if config.field == "triplane":
        planes = config.triplane
        return TriPlane((planes.resolution,), planes.channels, backend=config.backend, rngs=rngs), "signed"
    return FrequencyEncoding(config.frequency.bands, pi=True), "signed"


@functools.lru_cache(maxsize=8)
def _definition(config: FieldConfig, unbounded: bool):
    made = nnx.eval_shape(lambda: SceneModel(config, unbounded=unbounded, rngs=nnx.Rngs(0)))
    return nnx.split(made)


def initial_params(config: FieldConfig, *, unbounded: bool) -> Params:
    """Fresh parameters, a tree of dictionaries; a function of the seed."""

    @jax.jit
    def init(key):
        model = SceneModel(config, unbounded=unbounded, rngs=nnx.Rngs(params=key))
        return nnx.to_pure_dict(nnx.state(model))

    return init(keys.key(config.seed, "parameters"))


def merged(params: Params, config: FieldConfig, *, unbounded: bool) -> SceneModel:
    """The modules with these parameters; call it inside a jitted function."""
    definition, state = _definition(config, unbounded)
    state = jax.tree.map(lambda leaf: leaf, state)  # a copy, since what follows writes into it
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(definition, state)
