"""Settings of a splat fit, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments.cadence import Cadence
from experiments.config_fields import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Adam step sizes of each group; the means' rate is in units of the normalised scene and decays a hundredfold."""

    means: float = field(default=6.4e-4, metadata={"help": "Centres, in units of the cameras' spread."})
    scales: float = field(default=5e-3, metadata={"help": "Logarithms of the scales."})
    quaternions: float = field(default=1e-3, metadata={"help": "Rotations."})
    opacities: float = field(default=5e-2, metadata={"help": "Opacity logits."})
    colors: float = field(
        default=2.5e-3, metadata={"help": "Constant colour band; the higher bands learn 20 times slower."}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Growth:
    """Markov chain Monte Carlo densification (arXiv 2404.09591)."""

    max_gaussians: int = field(default=200_000, metadata={"help": "Most Gaussians that the scene may grow to."})
    factor: float = field(default=1.05, metadata={"help": "Growth at each refinement."})
    every: int = field(default=100, metadata={"help": "Steps from one refinement to the next."})
    start: int = field(default=500, metadata={"help": "Steps before the first refinement."})
    until: float = field(default=0.8, metadata={"help": "Fraction of the run after which nothing moves or grows."})
    noise: float = field(default=5e5, metadata={"help": "Strength of the random walk, as a factor on the means' rate."})
    opacity_cost: float = field(default=0.01, metadata={"help": "Weight of the mean opacity in the loss."})
    scale_cost: float = field(default=0.01, metadata={"help": "Weight of the mean scale in the loss."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig(RunConfig):
    """Photographs with poses in, a splat scene and its held-out quality out."""

    data: str = field(
        default="demo",
        metadata={
            "help": "Capture folder (transforms.json, Blender's split files or COLMAP), or demo: "
            "a small scene made on the fly."
        },
    )
    holdout: str | None = field(
        default=None,
        metadata={
            "help": "Views to test on: N is every N-th by sorted name, from the first; "
            "anything else is a list of names. By default the data set's own test views, else every 8th."
        },
    )
    downscale: int | None = field(
        default=None, metadata={"help": "Reduce the photographs so many times; by default to 1600 pixels."}
    )
    poses: Literal["auto", "transforms", "colmap"] = field(
        default="auto", metadata={"help": "Which poses to trust where a capture has two sets."}
    )
    allow_external_paths: bool = field(default=False, metadata={"help": "Let a capture name files outside its folder."})
    steps: int = field(default=30_000, metadata={"help": "Training steps of the whole run, resumed parts included."})
    batch: int = field(default=1, metadata={"help": "Views a step; they are dealt out to the devices."})
    sh_degree: int = field(default=3, metadata={"help": "Degree of the view-dependent colour, 0 to 4."})
    init: Literal["auto", "points", "random"] = field(
        default="auto",
        metadata={"help": "Start from the capture's points, or from random ones; auto takes points if there are."},
    )
    init_gaussians: int = field(default=10_000, metadata={"help": "Number of random Gaussians to start from."})
    background: Literal["auto", "black", "white", "random"] = field(
        default="auto", metadata={"help": "Behind transparent images; auto is white for Blender's, black for others."}
    )
    antialias: bool = field(
        default=False, metadata={"help": "Compensate opacities for the pixel filter (Mip-Splatting)."}
    )
    ssim_weight: float = field(
        default=0.2, metadata={"help": "Share of 1 - SSIM in the photometric loss, the rest is L1."}
    )
    backend: Literal["reference", "xla", "cpu"] | None = field(
        default=None, metadata={"help": "Rasterizer; by default the fastest of this device."}
    )
    turntable_frames: int = field(default=90, metadata={"help": "Frames of the video; 0 makes none."})
    rates: LearningRates = field(default_factory=LearningRates)
    growth: Growth = field(default_factory=Growth)
    cadence: Cadence = field(
        default_factory=lambda: Cadence(log_every=10, evaluate_every=500, preview_every=1000, checkpoint_seconds=60.0)
    )

    def __post_init__(self):
        """Checks ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__post_init__()
        ranges = {
            "batch": (self.batch, 1, 4096),
            "sh_degree": (self.sh_degree, 0, 4),
            "init_gaussians": (self.init_gaussians, 4, 10**8),
            "ssim_weight": (self.ssim_weight, 0.0, 1.0),
            "turntable_frames": (self.turntable_frames, 0, 10_000),
            "downscale": (self.downscale or 1, 1, 64),
            "growth.max_gaussians": (self.growth.max_gaussians, 4, 10**9),
            "growth.factor": (self.growth.factor, 1.0, 2.0),
            "growth.every": (self.growth.every, 1, 10**9),
            "growth.until": (self.growth.until, 0.0, 1.0),
            **{
                f"rates.{rate.name}": (getattr(self.rates, rate.name), 0.0, 1e3)
                for rate in dataclasses.fields(self.rates)
            },
            **{
                f"growth.{name}": (getattr(self.growth, name), 0.0, 1e9)
                for name in ("noise", "opacity_cost", "scale_cost")
            },
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} .. {high}, got {value}")
