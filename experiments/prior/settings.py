"""Settings of the multi-view prior's training, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field as option
from typing import Literal

from experiments.cadence import Cadence
from experiments.config_fields import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Sizes of the network, `generators.multiview.view_transformer`."""

    size: int = option(default=32, metadata={"help": "Pixels along a side of a view."})
    patch: int = option(default=8, metadata={"help": "Pixels along a side of a patch, a token."})
    rim: int = option(default=2, metadata={"help": "Pixels of its neighbours that a patch also sees and predicts."})
    width: int = option(default=192, metadata={"help": "Features of a token, a multiple of 64."})
    depth: int = option(default=6, metadata={"help": "Layers over the patches."})
    text_width: int = option(default=128, metadata={"help": "Features of a word, a multiple of 64."})
    text_depth: int = option(default=2, metadata={"help": "Layers over the words."})
    words: int = option(default=0, metadata={"help": "Rows of the table of words; 0 for as many as captions need."})
    arithmetic: Literal["float32", "bfloat16"] = option(
        default="float32",
        metadata={"help": "Between input and output; bfloat16 pays on GPU and TPU. Weights: float32."},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is drawn from the block world, and how often it is shown."""

    seed: int = option(default=0, metadata={"help": "Of the objects; another seed, other objects."})
    chunk: int = option(default=1024, metadata={"help": "Objects rendered at a time."})
    pool: int = option(default=16, metadata={"help": "Chunks that batches are drawn from, the newest ones."})
    first: int = option(default=2, metadata={"help": "Chunks that are rendered before the first step."})
    reuse: float = option(default=8.0, metadata={"help": "Times that an object is shown on average."})
    canonical: float = option(
        default=0.75, metadata={"help": "Share of rings seen from azimuth 0, elevation 15; the others are turned."}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedSettings:
    """Meshes that join the block world, `experiments.data.named_meshes`."""

    folder: str | None = option(
        default=None, metadata={"help": "Folder of mesh files whose names say what they are, such as Pine_Tree_2.glb."}
    )
    share: float = option(default=0.3, metadata={"help": "Of the training's objects that are taken from the folder."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionSettings:
    """The process that the network inverts."""

    shift: float = option(default=2.0, metadata={"help": "Of the cosine schedule towards noise."})
    most: float = option(default=5.0, metadata={"help": "Largest weight of a loss, min(1 / sigma^2, most)."})
    drop_caption: float = option(default=0.1, metadata={"help": "Share of captions left out, for guidance."})
    given: float = option(
        default=0.15, metadata={"help": "Share of rings of which the first picture is known: image to views."}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Adam, the rate constant and then falling to nothing."""

    batch: int = option(default=32, metadata={"help": "Rings of a step, over all devices."})
    rate: float = option(default=1e-3, metadata={"help": "Learning rate."})
    warmup: int = option(default=100, metadata={"help": "Steps in which it rises from nothing."})
    decay: float = option(
        default=0.4, metadata={"help": "Share of the run, its last part, in which the rate falls linearly to nothing."}
    )
    average: float = option(default=0.9995, metadata={"help": "Decay of the averaged weights, which are the result."})
    clip: float = option(default=1.0, metadata={"help": "Largest norm of a gradient."})


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiviewConfig(RunConfig):
    """Every flag of `train_multiview`."""

    steps: int = option(default=60_000, metadata={"help": "Training steps of the whole run, resumed parts included."})
    init: str | None = option(
        default=None, metadata={"help": "Weights to start from, a .safetensors file of an earlier run."}
    )
    evaluation_rings: int = option(default=96, metadata={"help": "Objects of the iid split that evaluations use."})
    model: ModelSettings = option(default_factory=ModelSettings)
    data: DataSettings = option(default_factory=DataSettings)
    named: NamedSettings = option(default_factory=NamedSettings)
    diffusion: DiffusionSettings = option(default_factory=DiffusionSettings)
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
        data, model, optimizer = self.data, self.model, self.optimizer
        for name, value, least in (
            ("data.chunk", data.chunk, 1),
            ("data.pool", data.pool, 1),
            ("data.first", data.first, 1),
            ("evaluation_rings", self.evaluation_rings, 1),
            ("model.depth", model.depth, 1),
            ("model.text_depth", model.text_depth, 0),
            ("model.words", model.words, 0),
            ("optimizer.batch", optimizer.batch, 1),
            ("optimizer.warmup", optimizer.warmup, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name, value in (
            ("data.canonical", data.canonical),
            ("named.share", self.named.share),
            ("diffusion.drop_caption", self.diffusion.drop_caption),
            ("diffusion.given", self.diffusion.given),
            ("optimizer.decay", optimizer.decay),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 .. 1, got {value}")
        if not 0 <= optimizer.average < 1:
            raise ValueError(f"optimizer.average must be 0 or more and below 1, got {optimizer.average}")
        if not (data.reuse > 0 and self.diffusion.shift > 0 and self.diffusion.most > 0 and optimizer.clip > 0):
            raise ValueError("data.reuse, diffusion.shift, diffusion.most and optimizer.clip must be above 0")
        if not 0 < optimizer.rate < 1:
            raise ValueError(f"optimizer.rate must be between 0 and 1, got {optimizer.rate}")
