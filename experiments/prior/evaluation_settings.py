"""Settings of the prior's evaluation, and what they are checked for. Standard library only."""

import dataclasses
from dataclasses import field as option

from experiments.config_fields import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluatePriorConfig(RunConfig):
    """Every flag of `evaluate_prior`."""

    weights: str | None = option(
        default=None,
        metadata={
            "help": "A prior.safetensors, or the folder of a train_multiview run; by default the shipped weights."
        },
    )
    captions: int = option(default=100, metadata={"help": "Captions of the iid and of the compositional split each."})
    steps: int = option(default=25, metadata={"help": "Denoising steps of a sample."})
    guidance: float = option(default=2.0, metadata={"help": "Of the caption over none; 1 is without guidance."})
    apart: int = option(
        default=24, metadata={"help": "Captions of each set for the baseline: views that come from four samples."}
    )
    cache: bool = option(
        default=True, metadata={"help": "Keep the classes' renders in the user's cache folder; about 2 MB a caption."}
    )

    def __post_init__(self):
        """Checks ranges.

        Raises:
          ValueError: a value is out of its range.
        """
        super().__post_init__()
        for name, value, low, high in (
            ("captions", self.captions, 0, 10_000),
            ("steps", self.steps, 1, 1000),
            ("guidance", self.guidance, 0.0, 100.0),
            ("apart", self.apart, 0, 10_000),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} .. {high}, got {value}")
