"""Settings of the route through the tri-plane transformer. Standard library only."""

import dataclasses
from dataclasses import field


@dataclasses.dataclass(frozen=True, kw_only=True)
class SinglePassConfig:
    """The route that reconstructs views in one pass."""

    weights: str | None = field(
        default=None, metadata={"help": "Weights of the transformer (.safetensors); the shipped ones by default."}
    )
    resolution: int = field(default=96, metadata={"help": "Nodes along a side of the grid of distances."})
    faces: int = field(default=8000, metadata={"help": "The surface is simplified to this many faces."})
    texture: int = field(default=512, metadata={"help": "Texels along a side of the texture."})

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        for name, value, low, high in (
            ("resolution", self.resolution, 16, 512),
            ("faces", self.faces, 100, 1_000_000),
            ("texture", self.texture, 64, 8192),
        ):
            if not low <= value <= high:
                raise ValueError(f"single_pass.{name} must be {low} .. {high}, got {value}")
