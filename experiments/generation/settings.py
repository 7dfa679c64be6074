"""Settings of text to 3D, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments.config_fields import RunConfig
from experiments.generation.distillation_settings import NerfConfig, OracleConfig, SplatsConfig
from experiments.generation.single_pass_settings import SinglePassConfig

Route = Literal["mesh", "nerf", "splats", "single_pass", "oracle"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The route from four views to a surface that is fitted to them; lengths in metres."""

    resolution: int = field(default=48, metadata={"help": "Nodes along a side of the grid that views are fused on."})
    smoothness: float = field(default=0.02, metadata={"help": "Weight of the surface's bending against what is seen."})
    slack: float = field(default=0.007, metadata={"help": "Distance by which outlines may be missed."})
    faces: int = field(default=8000, metadata={"help": "The surface is simplified to this many faces."})
    texture: int = field(default=512, metadata={"help": "Texels along a side of the texture."})

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        check_ranges(
            {
                "mesh.resolution": (self.resolution, 16, 256),
                "mesh.smoothness": (self.smoothness, 1e-6, 1e3),
                "mesh.slack": (self.slack, 0.0, 0.1),
                "mesh.faces": (self.faces, 100, 1_000_000),
                "mesh.texture": (self.texture, 64, 8192),
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTo3dConfig(RunConfig):
    """Every flag of `text_to_3d`."""

    prompt: str = field(default="", metadata={"help": 'What to make, as in "a small blue sphere on a green box".'})
    route: Route = field(
        default="mesh",
        metadata={
            "help": "mesh: a surface fitted to four generated views; nerf, splats: distilled from the prior; "
            "single_pass: a transformer from views to a surface; oracle: the exact score of the block world."
        },
    )
    weights: str | None = field(
        default=None, metadata={"help": "Weights of the multi-view prior (.safetensors); the shipped ones by default."}
    )
    guidance: float | None = field(
        default=None,
        metadata={"help": "Scale of classifier-free guidance for sampled views; by default what suits the guide."},
    )
    steps: int = field(default=20, metadata={"help": "Denoising steps while views are sampled."})
    candidates: int = field(
        default=4, metadata={"help": "Sets of views that are sampled; the one that agrees best with itself is used."}
    )
    smoothing: int = field(
        default=16,
        metadata={"help": "Noisy copies of the chosen views whose estimates are averaged; 0 for the views as sampled."},
    )
    turntable_frames: int = field(default=48, metadata={"help": "Frames of the video; 0 makes none."})
    turntable_size: int = field(default=256, metadata={"help": "Pixels along a side of the video."})
    mesh: MeshConfig = field(default_factory=MeshConfig)
    nerf: NerfConfig = field(default_factory=NerfConfig)
    splats: SplatsConfig = field(default_factory=SplatsConfig)
    single_pass: SinglePassConfig = field(default_factory=SinglePassConfig)
    oracle: OracleConfig = field(default_factory=OracleConfig)

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        super().__post_init__()
        check_ranges(
            {
                "guidance": (1.0 if self.guidance is None else self.guidance, 0.0, 100.0),
                "steps": (self.steps, 1, 1000),
                "candidates": (self.candidates, 1, 256),
                "smoothing": (self.smoothing, 0, 1024),
                "turntable_frames": (self.turntable_frames, 0, 10_000),
                "turntable_size": (self.turntable_size, 16, 2048),
            }
        )


def check_ranges(ranges: dict[str, tuple[float, float, float]]) -> None:
    """Raises ValueError for the first value that is not between its two bounds, given as name -> (value, low, high)."""
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be {low} .. {high}, got {value}")
