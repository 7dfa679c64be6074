"""Settings of the evaluation of assets, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field
from typing import Any, Literal

from experiments.config_fields import RunConfig
from experiments.generation.distillation_settings import NerfConfig, OracleConfig, SplatsConfig
from experiments.generation.settings import MeshConfig, Route, TextTo3dConfig, check_ranges
from experiments.generation.single_pass_settings import SinglePassConfig

Captions = Literal["fixed", "iid", "compositional", "family", "all"]
_MOST_ASSETS = 900  # each has a folder that is locked until the end, which takes an open file


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateGenerationConfig(RunConfig):
    """Every flag of `evaluate_generation`; those that `text_to_3d` has, too, mean what they mean there."""

    routes: tuple[Route, ...] = field(
        default=("mesh", "nerf", "splats", "single_pass", "oracle"),
        metadata={"help": "Routes to compare; of --assets those that are looked at."},
    )
    split: Captions = field(
        default="iid",
        metadata={
            "help": "Captions: 20 fixed prompts; or the first of the world's seed 0 that are like training's (iid), "
            "combine what it never does (compositional), name a thing it never shows (family); or these three (all)."
        },
    )
    captions: int = field(default=20, metadata={"help": "Captions of a split."})
    assets: str | None = field(
        default=None,
        metadata={
            "help": "Folder below which runs of text_to_3d are scored; nothing is generated, --split is not read."
        },
    )
    weights: str | None = field(
        default=None, metadata={"help": "Weights of the multi-view prior (.safetensors); the shipped ones by default."}
    )
    towers: str | None = field(
        default=None,
        metadata={
            "help": "Weights of the two-tower model for retrieval precision; the shipped ones, if any, by default."
        },
    )
    guidance: float | None = field(
        default=None, metadata={"help": "Scale of classifier-free guidance; by default what suits the guide."}
    )
    steps: int = field(default=20, metadata={"help": "Denoising steps while views are sampled."})
    candidates: int = field(default=4, metadata={"help": "Sets of views that a route samples to choose from."})
    smoothing: int = field(
        default=16,
        metadata={"help": "Noisy copies of the chosen views whose estimates are averaged; 0 for the views as sampled."},
    )
    turntable_frames: int = field(default=0, metadata={"help": "Frames of each asset's video; 0 makes none."})
    turntable_size: int = field(default=256, metadata={"help": "Pixels along a side of the video."})
    objects: int = field(
        default=16, metadata={"help": "Exact objects of a caption's class, the nearest of which counts."}
    )
    points: int = field(default=100_000, metadata={"help": "Points of each surface for distances."})
    volume_points: int = field(default=100_000, metadata={"help": "Points in an object's box for the volume's IoU."})
    pool: int = field(
        default=100,
        metadata={"help": "Captions of the split, besides those evaluated, among which one's own is looked for."},
    )
    cache: bool = field(
        default=True, metadata={"help": "Keep the classes' renders in the user's cache folder; about 2 MB a caption."}
    )
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
        if not self.routes or len(set(self.routes)) < len(self.routes):
            raise ValueError(f"routes must name at least one route, and none twice, got {','.join(self.routes)!r}")
        check_ranges(
            {
                "captions": (self.captions, 1, 10_000),
                "guidance": (1.0 if self.guidance is None else self.guidance, 0.0, 100.0),
                "steps": (self.steps, 1, 1000),
                "candidates": (self.candidates, 1, 256),
                "smoothing": (self.smoothing, 0, 1024),
                "turntable_frames": (self.turntable_frames, 0, 10_000),
                "turntable_size": (self.turntable_size, 16, 2048),
                "objects": (self.objects, 1, 1024),
                "points": (self.points, 100, 10_000_000),
                "volume_points": (self.volume_points, 100, 10_000_000),
                "pool": (self.pool, 0, 10_000),
            }
        )
        made = self.captions * len(self.splits()) * len(self.routes)
        if self.assets is None and made > _MOST_ASSETS:
            raise ValueError(f"captions x splits x routes must be at most {_MOST_ASSETS} assets, got {made}")

    def splits(self) -> tuple[Literal["fixed", "iid", "compositional", "family"], ...]:
        """The sets of captions that are evaluated."""
        return ("iid", "compositional", "family") if self.split == "all" else (self.split,)

    def of_asset(self, prompt: str, route: Route, folder: str, *, resume: bool) -> TextTo3dConfig:
        """What `text_to_3d` is told to make one asset."""
        own, asked = ({item.name for item in dataclasses.fields(of)} for of in (self, TextTo3dConfig))
        settings: dict[str, Any] = {name: getattr(self, name) for name in own & asked}
        settings |= {"prompt": prompt, "route": route, "workdir": folder, "resume": resume, "max_seconds": None}
        return TextTo3dConfig(**settings)
