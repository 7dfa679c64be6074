"""Settings of the routes that distil a guide into a scene: nerf, splats, oracle. Standard library only."""

import dataclasses
from dataclasses import field
from typing import Literal

from experiments.cadence import Cadence

Loss = Literal["x0", "sds", "csd", "ism"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What a guide is asked, and what is made of its answers."""

    loss: Loss = field(
        default="x0",
        metadata={
            "help": "x0: towards the guide's clean views (MVDream); sds (DreamFusion), csd: the score; ism: against an "
            "inversion (LucidDreamer)."
        },
    )
    guidance: float | None = field(
        default=None, metadata={"help": "Scale of classifier-free guidance; by default what suits the guide."}
    )
    highest: float = field(default=0.98, metadata={"help": "Share of the noise steps where the descent begins."})
    lowest: float = field(default=0.02, metadata={"help": "Where it ends; it falls linearly (DreamGaussian)."})
    canonical: float = field(
        default=0.5, metadata={"help": "Share of steps seen from the prior's own cameras: azimuth 0, elevation 15."}
    )
    normals: float = field(default=1.0, metadata={"help": "Factor on the gradient that the normals' pictures send."})
    depths: float = field(
        default=5.0, metadata={"help": "Factor on that of the depths': a centimetre is little in units of colours."}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NerfConfig:
    """The radiance field's route (after DreamFusion and MVDream); lengths in metres."""

    steps: int = field(default=400, metadata={"help": "Steps of the descent."})
    levels: int = field(default=8, metadata={"help": "Resolution levels of the hash grid."})
    coarsest: int = field(default=8, metadata={"help": "Cells along a side of the coarsest."})
    finest: int = field(default=96, metadata={"help": "Cells along a side of the finest."})
    log2_rows: int = field(default=15, metadata={"help": "Binary logarithm of the rows of a level's table."})
    width: int = field(default=32, metadata={"help": "Hidden units of the two networks."})
    samples: int = field(default=64, metadata={"help": "Steps across the box's diagonal, of which visible ones count."})
    occupancy: int = field(default=32, metadata={"help": "Cells along a side of the occupancy grid."})
    grid_rate: float = field(default=4e-2, metadata={"help": "Adam's rate of the hash tables."})
    network_rate: float = field(default=3e-3, metadata={"help": "Adam's rate of the networks."})
    orientation: float = field(default=0.01, metadata={"help": "Weight of what is seen facing away, at the end."})
    sparsity: float = field(default=0.002, metadata={"help": "Weight of opacity, so that air is clear."})
    opaque: float = field(default=0.01, metadata={"help": "Weight of half-opaque rays, at the end."})
    distortion: float = field(default=0.1, metadata={"help": "Weight of soft walls, at the end (mip-NeRF 360)."})
    resolution: int = field(default=96, metadata={"help": "Nodes along a side of the grid that depths are fused on."})
    faces: int = field(default=8000, metadata={"help": "The surface is simplified to this many faces."})
    texture: int = field(default=512, metadata={"help": "Texels along a side of the texture."})
    score: ScoreConfig = field(default_factory=ScoreConfig)
    cadence: Cadence = field(default_factory=lambda: Cadence(log_every=10, preview_every=100, checkpoint_seconds=30.0))

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        check_score("nerf", self.score)
        _check_ranges(
            {
                "nerf.steps": (self.steps, 1, 10**7),
                "nerf.levels": (self.levels, 1, 32),
                "nerf.coarsest": (self.coarsest, 2, self.finest),
                "nerf.finest": (self.finest, 2, 8192),
                "nerf.log2_rows": (self.log2_rows, 4, 24),
                "nerf.width": (self.width, 1, 4096),
                "nerf.samples": (self.samples, 8, 4096),
                "nerf.occupancy": (self.occupancy, 1, 256),
                "nerf.grid_rate": (self.grid_rate, 0.0, 1.0),
                "nerf.network_rate": (self.network_rate, 0.0, 1.0),
                "nerf.orientation": (self.orientation, 0.0, 1e6),
                "nerf.sparsity": (self.sparsity, 0.0, 1e6),
                "nerf.opaque": (self.opaque, 0.0, 1e6),
                "nerf.distortion": (self.distortion, 0.0, 1e6),
                "nerf.resolution": (self.resolution, 8, 512),
                "nerf.faces": (self.faces, 100, 1_000_000),
                "nerf.texture": (self.texture, 64, 8192),
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplatsConfig:
    """The splats' route (after DreamGaussian); lengths in metres."""

    steps: int = field(default=400, metadata={"help": "Steps of the descent."})
    first: int = field(default=1000, metadata={"help": "Splats at the start, in a ball."})
    most: int = field(default=4000, metadata={"help": "Room for splats."})
    radius: float = field(default=0.35, metadata={"help": "Of the ball that they start in."})
    grow_every: int = field(default=25, metadata={"help": "Steps from one growth to the next; faint splats move then."})
    growth: float = field(default=1.15, metadata={"help": "Factor on the number of splats at each growth."})
    settle: float = field(default=0.7, metadata={"help": "Share of the run after which nothing grows."})
    means_rate: float = field(default=5e-3, metadata={"help": "Adam's rate of the centres; falls to a twentieth."})
    scales_rate: float = field(default=2e-2, metadata={"help": "Rate of the logarithms of the scales."})
    quaternions_rate: float = field(default=2e-2, metadata={"help": "Rate of the rotations."})
    opacities_rate: float = field(default=5e-2, metadata={"help": "Rate of the opacities' logits."})
    colors_rate: float = field(default=2e-2, metadata={"help": "Rate of the colours."})
    widest: float = field(default=0.1, metadata={"help": "Standard deviation that no splat exceeds."})
    flatness: float = field(
        default=0.1, metadata={"help": "Weight of the splats' thickness: they are to lie in surfaces."}
    )
    opaque: float = field(default=0.002, metadata={"help": "Weight of half-opaque pixels, at the end."})
    surface: Literal["fusion", "density"] = field(
        default="fusion",
        metadata={"help": "By fusing the depths that cameras see, or by the splats' local density (DreamGaussian)."},
    )
    resolution: int = field(default=96, metadata={"help": "Nodes along a side of the grid of the surface."})
    level: float = field(default=1.0, metadata={"help": "Of the local density, where that makes the surface."})
    faces: int = field(default=8000, metadata={"help": "The surface is simplified to this many faces."})
    texture: int = field(default=512, metadata={"help": "Texels along a side of the texture."})
    refinement: int = field(default=50, metadata={"help": "Steps that refine the texture on the mesh; 0: none."})
    strength: float = field(default=0.3, metadata={"help": "Share of the noise that its pictures are taken back to."})
    score: ScoreConfig = field(default_factory=ScoreConfig)
    cadence: Cadence = field(default_factory=lambda: Cadence(log_every=10, preview_every=100, checkpoint_seconds=30.0))

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        check_score("splats", self.score)
        rates = ("means_rate", "scales_rate", "quaternions_rate", "opacities_rate", "colors_rate")
        _check_ranges(
            {
                "splats.steps": (self.steps, 1, 10**7),
                "splats.first": (self.first, 4, self.most),
                "splats.most": (self.most, 4, 10**7),
                "splats.radius": (self.radius, 0.01, 1.0),
                "splats.grow_every": (self.grow_every, 1, 10**9),
                "splats.growth": (self.growth, 1.0, 2.0),
                "splats.settle": (self.settle, 0.0, 1.0),
                **{f"splats.{name}": (getattr(self, name), 0.0, 1.0) for name in rates},
                "splats.widest": (self.widest, 1e-3, 1.0),
                "splats.flatness": (self.flatness, 0.0, 1e6),
                "splats.opaque": (self.opaque, 0.0, 1e6),
                "splats.resolution": (self.resolution, 8, 512),
                "splats.level": (self.level, 1e-3, 1e3),
                "splats.faces": (self.faces, 100, 1_000_000),
                "splats.texture": (self.texture, 64, 8192),
                "splats.refinement": (self.refinement, 0, 10**6),
                "splats.strength": (self.strength, 0.0, 1.0),
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OracleConfig:
    """The perfect score's route: what the others would reach with a guide that knows."""

    representation: Literal["mesh", "nerf", "splats"] = field(
        default="mesh", metadata={"help": "Which route asks the oracle, with its own settings."}
    )
    objects: int = field(default=16, metadata={"help": "Objects of the prompt's class that the score is that of."})
    seed: int = field(default=0, metadata={"help": "Of their proportions."})

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        _check_ranges({"oracle.objects": (self.objects, 1, 1024), "oracle.seed": (self.seed, 0, 2**32 - 1)})


def check_score(route: str, score: ScoreConfig) -> None:
    """Checks the ranges of a route's score settings.

    Raises:
      ValueError: a value is out of its range.
    """
    _check_ranges(
        {
            f"{route}.score.guidance": (1.0 if score.guidance is None else score.guidance, 0.0, 1000.0),
            f"{route}.score.highest": (score.highest, score.lowest, 1.0),
            f"{route}.score.lowest": (score.lowest, 0.0, 1.0),
            f"{route}.score.canonical": (score.canonical, 0.0, 1.0),
            f"{route}.score.normals": (score.normals, 0.0, 1e3),
            f"{route}.score.depths": (score.depths, 0.0, 1e3),
        }
    )


def _check_ranges(ranges: dict[str, tuple[float, float, float]]) -> None:
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be {low} .. {high}, got {value}")
