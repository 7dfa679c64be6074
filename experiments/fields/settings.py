"""Settings of a field fit, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field as option
from typing import Literal

from experiments.cadence import Cadence
from experiments.config_fields import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class HashSettings:
    """Multiresolution hash grid (arXiv 2201.05989)."""

    levels: int = option(default=10, metadata={"help": "Resolution levels."})
    features: int = option(default=2, metadata={"help": "Features a level."})
    log2_rows: int = option(default=17, metadata={"help": "Binary logarithm of the rows of a level's table."})
    coarsest: int = option(default=16, metadata={"help": "Cells along a side of the coarsest level."})
    finest: int = option(default=512, metadata={"help": "Cells along a side of the finest level."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TriplaneSettings:
    """Three feature planes (arXiv 2112.07945)."""

    resolution: int = option(default=256, metadata={"help": "Texels along a side of each plane."})
    channels: int = option(default=16, metadata={"help": "Features of a plane."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrequencySettings:
    """Sines and cosines of the position into a deeper network (arXiv 2003.08934)."""

    bands: int = option(default=8, metadata={"help": "Octaves of the position."})
    width: int = option(default=128, metadata={"help": "Hidden units of the density network."})
    depth: int = option(default=4, metadata={"help": "Hidden layers of the density network."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The networks behind hash grid and tri-plane, and the colour network behind all fields."""

    width: int = option(default=64, metadata={"help": "Hidden units."})
    density_depth: int = option(default=1, metadata={"help": "Hidden layers of the density network."})
    color_depth: int = option(default=2, metadata={"help": "Hidden layers of the colour network."})
    geometry_features: int = option(default=15, metadata={"help": "Features from the density to the colour network."})
    direction_degree: int = option(default=3, metadata={"help": "Spherical-harmonic degree of the viewing direction."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Where along the rays the field is asked."""

    capacity: int = option(default=1 << 15, metadata={"help": "Samples of a training step; rays are added to fill it."})
    rays: int = option(
        default=1024,
        metadata={
            "help": "Rays of a step of an unbounded scene, a power of two; for an object they fill the capacity."
        },
    )
    steps: int = option(default=256, metadata={"help": "Steps across an object's box, of which occupied ones count."})
    occupancy: int = option(default=64, metadata={"help": "Cells along a side of an object's occupancy grid."})
    occupancy_start: int = option(default=64, metadata={"help": "Steps before the first occupancy update."})
    occupancy_every: int = option(default=16, metadata={"help": "Steps from one occupancy update to the next."})
    proposals: int = option(default=48, metadata={"help": "Proposal samples on a ray of an unbounded scene."})
    fine: int = option(default=24, metadata={"help": "Samples of the field on a ray of an unbounded scene."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Adam by groups; all rates decay exponentially over the run."""

    grid: float = option(default=2e-2, metadata={"help": "Rate of hash tables and planes."})
    network: float = option(default=5e-3, metadata={"help": "Rate of the networks behind a grid."})
    frequency: float = option(default=1e-3, metadata={"help": "Rate of the networks of a frequency field."})
    final: float = option(default=0.03, metadata={"help": "Rates at the end as a fraction of those at the start."})
    warmup: int = option(default=20, metadata={"help": "Steps in which the rates rise from nothing."})
    distortion: float = option(default=2e-3, metadata={"help": "Weight of the distortion loss (unbounded scenes)."})
    eikonal: float = option(default=0.05, metadata={"help": "Weight of the eikonal loss (signed distances)."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSettings:
    """The surface taken out of the field."""

    resolution: int = option(default=160, metadata={"help": "Cells along a side of the box; 0 makes no mesh."})
    level: float = option(
        default=0.5, metadata={"help": "Density level: opacity of the way across one cell, above 0, below 1."}
    )
    faces: int = option(default=40_000, metadata={"help": "Faces to keep."})
    texture: int = option(default=1024, metadata={"help": "Texels along a side of the texture."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldConfig(RunConfig):
    """Photographs with poses in, a radiance field, its held-out quality and a textured mesh out."""

    data: str = option(
        default="demo",
        metadata={
            "help": "Capture folder (transforms.json, Blender's split files or COLMAP), or demo: "
            "a small scene made on the fly."
        },
    )
    field: Literal["hash", "triplane", "frequency"] = option(
        default="hash", metadata={"help": "What carries the features of a position."}
    )
    surface: Literal["density", "neus", "volsdf"] = option(
        default="density", metadata={"help": "Density, or a signed distance rendered as NeuS or VolSDF do."}
    )
    scene: Literal["auto", "object", "unbounded"] = option(
        default="auto",
        metadata={
            "help": "An object in a box, or a place without bounds, contracted; auto: an object if the images are "
            "transparent or stand on white."
        },
    )
    holdout: str | None = option(
        default=None,
        metadata={
            "help": "Views to test on: N is every N-th by sorted name, from the first; "
            "anything else is a list of names. By default the data set's own test views, else every 8th."
        },
    )
    downscale: int | None = option(
        default=None, metadata={"help": "Reduce the photographs so many times; by default to 1600 pixels."}
    )
    poses: Literal["auto", "transforms", "colmap"] = option(
        default="auto", metadata={"help": "Which poses to trust where a capture has two sets."}
    )
    allow_external_paths: bool = option(
        default=False, metadata={"help": "Let a capture name files outside its folder."}
    )
    steps: int = option(default=3000, metadata={"help": "Training steps of the whole run, resumed parts included."})
    background: Literal["auto", "black", "white", "random"] = option(
        default="auto",
        metadata={
            "help": "Behind transparent images; auto: random ones in training, and in tests white for Blender's, "
            "black for others."
        },
    )
    loss: Literal["huber", "mse", "charbonnier"] = option(default="huber", metadata={"help": "Photometric loss."})
    backend: Literal["reference", "xla", "cpu"] | None = option(
        default=None, metadata={"help": "Kernels of grids and planes; by default the fastest of this device."}
    )
    turntable_frames: int = option(default=60, metadata={"help": "Frames of the video; 0 makes none."})
    hash: HashSettings = option(default_factory=HashSettings)
    triplane: TriplaneSettings = option(default_factory=TriplaneSettings)
    frequency: FrequencySettings = option(default_factory=FrequencySettings)
    network: NetworkSettings = option(default_factory=NetworkSettings)
    sampling: SamplingSettings = option(default_factory=SamplingSettings)
    optimizer: OptimizerSettings = option(default_factory=OptimizerSettings)
    mesh: MeshSettings = option(default_factory=MeshSettings)
    cadence: Cadence = option(
        default_factory=lambda: Cadence(log_every=10, evaluate_every=500, preview_every=1000, checkpoint_seconds=60.0)
    )

    def __post_init__(self):
        """Checks ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__post_init__()
        for name, (value, low, high) in _ranges(self).items():
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} .. {high}, got {value}")
        for name in ("rays", "capacity"):
            value = getattr(self.sampling, name)
            if value & (value - 1):
                raise ValueError(f"sampling.{name} must be a power of two, got {value}")
        if self.hash.finest < self.hash.coarsest:
            raise ValueError(
                f"hash.finest must be hash.coarsest = {self.hash.coarsest} or more, got {self.hash.finest}"
            )
        if self.surface != "density" and self.scene == "unbounded":
            raise ValueError("surface neus and volsdf need a box: choose scene=object")


def _ranges(config: FieldConfig) -> dict[str, tuple[float, float, float]]:
    limits = {
        "hash": {
            "levels": (1, 32),
            "features": (1, 8),
            "log2_rows": (8, 24),
            "coarsest": (2, 1024),
            "finest": (2, 1 << 16),
        },
        "triplane": {"resolution": (4, 4096), "channels": (1, 256)},
        "frequency": {"bands": (1, 16), "width": (8, 1024), "depth": (1, 16)},
        "network": {
            "width": (8, 1024),
            "density_depth": (0, 16),
            "color_depth": (0, 16),
            "geometry_features": (0, 256),
            "direction_degree": (0, 4),
        },
        "sampling": {
            "capacity": (1 << 8, 1 << 24),
            "rays": (1 << 4, 1 << 20),
            "steps": (8, 1 << 14),
            "occupancy": (8, 512),
            "occupancy_start": (0, 10**9),
            "occupancy_every": (1, 10**6),
            "proposals": (4, 1024),
            "fine": (4, 1024),
        },
        "optimizer": {
            "grid": (0.0, 10.0),
            "network": (0.0, 10.0),
            "frequency": (0.0, 10.0),
            "final": (1e-6, 1.0),
            "warmup": (0, 10**9),
            "distortion": (0.0, 1e3),
            "eikonal": (0.0, 1e3),
        },
        "mesh": {"resolution": (0, 1024), "level": (1e-3, 0.999), "faces": (4, 10**8), "texture": (16, 16384)},
    }  # fmt: skip
    ranges = {
        f"{group}.{name}": (getattr(getattr(config, group), name), low, high)
        for group, names in limits.items()
        for name, (low, high) in names.items()
    }
    ranges["turntable_frames"] = (config.turntable_frames, 0, 10_000)
    ranges["downscale"] = (config.downscale or 1, 1, 64)
    return ranges
