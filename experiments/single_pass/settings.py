"""Settings of the tri-plane transformer's training, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field as option
from typing import Literal

from experiments.cadence import Cadence
from experiments.config_fields import RunConfig
from experiments.prior.settings import DataSettings, OptimizerSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Sizes of the network, `generators.multiview.triplane_transformer`."""

    size: int = option(default=32, metadata={"help": "Pixels along a side of a view."})
    patch: int = option(default=8, metadata={"help": "Pixels along a side of a patch, a token."})
    width: int = option(default=192, metadata={"help": "Features of a token, a multiple of 64."})
    depth: int = option(default=6, metadata={"help": "Layers of the transformer."})
    texels: int = option(default=32, metadata={"help": "Texels along a side of a plane."})
    cell: int = option(default=8, metadata={"help": "Texels along a side of a plane's token."})
    features: int = option(default=16, metadata={"help": "Features of a texel."})
    hidden: int = option(default=64, metadata={"help": "Width of the layers that read a point."})
    arithmetic: Literal["float32", "bfloat16"] = option(
        default="float32", metadata={"help": "Of the transformer; bfloat16 pays on GPU and TPU. Weights: float32."}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleSettings:
    """What of an object is shown to the network, and where it is asked for distance and colour."""

    photographs: float = option(
        default=0.4, metadata={"help": "Share of examples that show one view, colour and coverage only."}
    )
    subsets: float = option(
        default=0.1, metadata={"help": "Share that shows some of the views, each whole or as a photograph."}
    )
    lit: float = option(default=0.5, metadata={"help": "Share of photographs that are taken in some light."})
    disturbed: float = option(
        default=0.5, metadata={"help": "Share of the other examples whose views have errors as a prior makes them."}
    )
    error: float = option(default=0.1, metadata={"help": "Largest standard deviation of those errors."})
    near: int = option(default=1024, metadata={"help": "Points near the surface, of each object and step."})
    anywhere: int = option(default=512, metadata={"help": "Points anywhere in the box."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Weights of the loss."""

    distance: float = option(default=1.0, metadata={"help": "Of distances, in units of the reach, absolute."})
    color: float = option(default=0.5, metadata={"help": "Of colours near the surface, absolute."})
    slope: float = option(
        default=0.0,
        metadata={"help": "Of the distance's gradient against the surface's normal, squared; 0: not asked."},
    )
    variation: float = option(default=5e-4, metadata={"help": "Of squared differences of neighbouring texels."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSinglePassConfig(RunConfig):
    """Every flag of `train_single_pass`."""

    steps: int = option(default=30_000, metadata={"help": "Training steps of the whole run, resumed parts included."})
    init: str | None = option(
        default=None, metadata={"help": "Weights to start from, a single_pass.safetensors of an earlier run."}
    )
    evaluation_objects: int = option(
        default=12, metadata={"help": "Objects of the iid split that evaluations rebuild."}
    )
    final_objects: int = option(default=48, metadata={"help": "Objects of each split that the last one rebuilds."})
    resolution: int = option(default=64, metadata={"help": "Nodes along a side of the grids of evaluations."})
    model: ModelSettings = option(default_factory=ModelSettings)
    data: DataSettings = option(default_factory=DataSettings)
    example: ExampleSettings = option(default_factory=ExampleSettings)
    loss: LossSettings = option(default_factory=LossSettings)
    optimizer: OptimizerSettings = option(default_factory=OptimizerSettings)
    cadence: Cadence = option(
        default=Cadence(log_every=20, evaluate_every=1000, preview_every=2000, checkpoint_seconds=300.0)
    )

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        super().__post_init__()
        data, model, optimizer, example = self.data, self.model, self.optimizer, self.example
        for name, value, least in (
            ("data.chunk", data.chunk, 1),
            ("data.pool", data.pool, 1),
            ("data.first", data.first, 1),
            ("evaluation_objects", self.evaluation_objects, 1),
            ("final_objects", self.final_objects, 1),
            ("resolution", self.resolution, 8),
            ("model.depth", model.depth, 1),
            ("model.features", model.features, 1),
            ("model.hidden", model.hidden, 1),
            ("example.near", example.near, 1),
            ("example.anywhere", example.anywhere, 1),
            ("optimizer.batch", optimizer.batch, 1),
            ("optimizer.warmup", optimizer.warmup, 0),
            *((f"loss.{name}", value, 0) for name, value in dataclasses.asdict(self.loss).items()),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name, value in (
            ("data.canonical", data.canonical),
            ("example.photographs", example.photographs),
            ("example.subsets", example.subsets),
            ("example.photographs + example.subsets", example.photographs + example.subsets),
            ("example.lit", example.lit),
            ("example.disturbed", example.disturbed),
            ("example.error", example.error),
            ("optimizer.decay", optimizer.decay),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 .. 1, got {value}")
        if model.patch < 1 or model.cell < 1 or model.size % model.patch or model.texels % model.cell:
            raise ValueError(
                f"model.patch={model.patch} must divide model.size={model.size}, model.cell={model.cell} "
                f"model.texels={model.texels}"
            )
        if model.width < 64 or model.width % 64:
            raise ValueError(f"model.width must be a multiple of 64, got {model.width}")
        if not 0 <= optimizer.average < 1:
            raise ValueError(f"optimizer.average must be 0 or more and below 1, got {optimizer.average}")
        if not (data.reuse > 0 and optimizer.clip > 0 and 0 < optimizer.rate < 1):
            raise ValueError("data.reuse and optimizer.clip must be above 0, optimizer.rate between 0 and 1")
