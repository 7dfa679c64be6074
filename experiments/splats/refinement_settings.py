"""Settings of a camera refinement, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments.config_fields import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineConfig(RunConfig):
    """Cameras that are nearly right and a splat scene in, cameras that fit the scene out."""

    splats: str | None = field(default=None, metadata={"help": "The scene: a splat file in the frame of the capture."})
    data: str = field(
        default="demo",
        metadata={"help": "Capture whose cameras are refined: a folder as fit_gaussians takes it, or demo."},
    )
    views: str | None = field(
        default=None,
        metadata={"help": "Which views: N is every N-th by sorted name, else names with commas; by default all."},
    )
    against: Literal["photographs", "renders"] = field(
        default="photographs",
        metadata={"help": "What the cameras shall explain: the photographs, or the splats' own renders (a self-test)."},
    )
    method: Literal["gauss_newton", "gradient"] = field(
        default="gauss_newton", metadata={"help": "Levenberg-Marquardt in forward mode, or Adam in reverse mode."}
    )
    corrects: Literal["pose", "focal", "principal"] = field(
        default="focal",
        metadata={"help": "Last of pose, focal lengths, principal point to correct, with those before."},
    )
    perturb_degrees: float = field(default=0.0, metadata={"help": "Turn each camera this far first, about any axis."})
    perturb_translation: float = field(
        default=0.0,
        metadata={"help": "Move each camera first, as a fraction of the cameras' distance from their middle."},
    )
    perturb_focal: float = field(
        default=0.0, metadata={"help": "Change fx and fy first by this fraction, up or down at random, each by itself."}
    )
    levels: int = field(
        default=4,
        metadata={"help": "Image sizes to go through, each twice the last; those below 32 pixels are left out."},
    )
    steps: int = field(
        default=15,
        metadata={"help": "Most Gauss-Newton steps on a level; the gradient method takes ten times as many."},
    )
    rate: float = field(
        default=4e-3, metadata={"help": "Adam step size on the coarsest level; it falls with the pixel size."}
    )
    huber: float = field(
        default=0.1,
        metadata={"help": "Colour error from which on pixels count by magnitude, not square; 0: squares throughout."},
    )
    downscale: int | None = field(
        default=None, metadata={"help": "Reduce the photographs so many times; by default to 1600 pixels."}
    )
    poses: Literal["auto", "transforms", "colmap"] = field(
        default="auto", metadata={"help": "Which poses to trust where a capture has two sets."}
    )
    allow_external_paths: bool = field(default=False, metadata={"help": "Let a capture name files outside its folder."})
    background: Literal["auto", "black", "white"] = field(
        default="auto", metadata={"help": "Behind transparent images; auto is white for Blender's, black for others."}
    )
    antialias: bool = field(
        default=False, metadata={"help": "The splats were trained with compensated opacities (Mip-Splatting)."}
    )
    backend: Literal["reference", "xla", "cpu", "pallas_gpu", "pallas_tpu"] | None = field(
        default=None, metadata={"help": "Rasterizer; by default the fastest of this device."}
    )

    def __post_init__(self):
        """Checks ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__post_init__()
        ranges = {
            "perturb_degrees": (self.perturb_degrees, 0.0, 180.0),
            "perturb_translation": (self.perturb_translation, 0.0, 10.0),
            "perturb_focal": (self.perturb_focal, 0.0, 0.9),
            "levels": (self.levels, 1, 12),
            "rate": (self.rate, 0.0, 1.0),
            "huber": (self.huber, 0.0, 1e6),
            "downscale": (self.downscale or 1, 1, 64),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} .. {high}, got {value}")
