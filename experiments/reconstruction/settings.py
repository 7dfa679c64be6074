"""Settings of a reconstruction, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments.config_fields import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructConfig(RunConfig):
    """Splats or a fitted field in, a textured mesh out."""

    input: str = field(
        default="",
        metadata={"help": "A splat file, the folder of a fit_gaussians run, or the folder of a fit_field run."},
    )
    data: str | None = field(
        default=None,
        metadata={"help": "Capture folder whose cameras look at the splats; by default cameras from all around."},
    )
    method: Literal["fusion", "density"] = field(
        default="fusion",
        metadata={"help": "Of splats: fused depth maps, or the surface of their local density (DreamGaussian)."},
    )
    views: int = field(default=64, metadata={"help": "Cameras around, where no capture is given."})
    test_views: int = field(default=8, metadata={"help": "Further cameras, which only measure."})
    image_size: int = field(default=400, metadata={"help": "Longest side of the pictures taken, in pixels."})
    elevation: tuple[float, float] = field(
        default=(-15.0, 90.0),
        metadata={
            "help": "Lowest and highest camera around, in degrees above the horizon. Leave out sides that the splats' "
            "own photographs did not show: seen from there, splats are hollow."
        },
    )
    up: Literal["+x", "-x", "+y", "-y", "+z", "-z"] = field(
        default="+y", metadata={"help": "The direction that points up in the input's frame."}
    )
    resolution: int = field(default=192, metadata={"help": "Grid nodes along a side of the box."})
    opaque: float = field(default=0.5, metadata={"help": "Pixels with less opacity than this are taken as empty."})
    level: float | None = field(
        default=None, metadata={"help": "Surface of --method=density (default 1), or opacity of a cell of a field."}
    )
    smallest_part: float = field(
        default=0.02, metadata={"help": "Parts with less of the largest part's faces than this are dropped."}
    )
    faces: int = field(default=40_000, metadata={"help": "The mesh is simplified to this many faces."})
    texture: int = field(default=1024, metadata={"help": "Texels along a side of the texture."})
    steps: int = field(default=20, metadata={"help": "Sweeps over all views that correct the baked texture."})
    turntable_frames: int = field(default=60, metadata={"help": "Frames of the video; 0 makes none."})

    def __post_init__(self):
        """Checks ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__post_init__()
        ranges = {
            "views": (self.views, 2, 10_000),
            "test_views": (self.test_views, 0, 10_000),
            "image_size": (self.image_size, 16, 4096),
            "elevation": (min(self.elevation), -90.0, 90.0),
            "elevation's upper end": (max(self.elevation), -90.0, 90.0),
            "resolution": (self.resolution, 8, 1024),
            "opaque": (self.opaque, 0.01, 0.99),
            "level": (1.0 if self.level is None else self.level, 1e-6, 1e6),
            "smallest_part": (self.smallest_part, 0.0, 1.0),
            "faces": (self.faces, 100, 5_000_000),
            "texture": (self.texture, 64, 8192),
            "turntable_frames": (self.turntable_frames, 0, 10_000),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} .. {high}, got {value}")
