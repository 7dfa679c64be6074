"""Settings of image to 3D, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments.config_fields import RunConfig
from experiments.generation.settings import MeshConfig, check_ranges
from experiments.generation.single_pass_settings import SinglePassConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTo3dConfig(RunConfig):
    """Every flag of `image_to_3d`."""

    image: str = field(
        default="",
        metadata={"help": "Picture of one object: png, jpg or webp, cut out (alpha) or before a plain background."},
    )
    route: Literal["single_pass", "views_single_pass", "mesh"] = field(
        default="single_pass",
        metadata={
            "help": "single_pass: the picture alone to a surface, by a transformer; views_single_pass: the multi-view "
            "prior paints the other sides first; mesh: a surface fitted to the prior's views."
        },
    )
    azimuth: float = field(
        default=0.0, metadata={"help": "Degrees to the right of the object's front from which it is seen, -45 .. 45."}
    )
    elevation: float = field(default=15.0, metadata={"help": "Degrees from above at which it is seen, 0 .. 30."})
    frame: Literal["fit", "keep"] = field(
        default="fit",
        metadata={
            "help": "fit: the object is centred and scaled; keep: the picture is as the canonical camera sees it."
        },
    )
    weights: str | None = field(
        default=None, metadata={"help": "Weights of the multi-view prior (.safetensors); the shipped ones by default."}
    )
    steps: int = field(default=20, metadata={"help": "Denoising steps while views are sampled."})
    candidates: int = field(
        default=4, metadata={"help": "Sets of views that are sampled; the one that agrees best with itself is used."}
    )
    turntable_frames: int = field(default=48, metadata={"help": "Frames of the video; 0 makes none."})
    turntable_size: int = field(default=256, metadata={"help": "Pixels along a side of the video."})
    mesh: MeshConfig = field(default_factory=MeshConfig)
    single_pass: SinglePassConfig = field(default_factory=SinglePassConfig)

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        super().__post_init__()
        check_ranges(
            {
                "azimuth": (self.azimuth, -45.0, 45.0),
                "elevation": (self.elevation, 0.0, 30.0),
                "steps": (self.steps, 1, 1000),
                "candidates": (self.candidates, 1, 256),
                "turntable_frames": (self.turntable_frames, 0, 10_000),
                "turntable_size": (self.turntable_size, 16, 2048),
            }
        )
