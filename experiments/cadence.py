"""How often a training loop logs, evaluates and saves.

Only the standard library is imported here, so that a config can hold a `Cadence` (flags `--cadence.log_every` and so
on) and `--help` needs no jax.
"""

import dataclasses
from dataclasses import field


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cadence:
    """How often things happen, in updates; 0 is never."""

    log_every: int = field(default=10, metadata={"help": "Steps from one line of metrics.jsonl to the next."})
    evaluate_every: int = field(default=0, metadata={"help": "Steps from one evaluation to the next; 0: none."})
    preview_every: int = field(default=0, metadata={"help": "Steps from one set of pictures to the next; 0: none."})
    checkpoint_every: int = field(
        default=0, metadata={"help": "Steps from one checkpoint to the next; the last step is always saved."}
    )
    checkpoint_seconds: float | None = field(
        default=60.0, metadata={"help": "Save also when the last checkpoint is this old; none: by steps alone."}
    )
    agree_every: int = field(
        default=10,
        metadata={"help": "Steps after which several processes compare clocks and stop requests; a stop waits for it."},
    )

    def __post_init__(self):
        """Checks ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            least = 1 if item.name == "agree_every" else 0
            if value is not None and not value >= least:
                raise ValueError(f"{item.name} must be {least} or more, got {value}")


def due(every: int, step: int) -> bool:
    """Whether something that happens every so many updates happens after `step` of them; never at 0."""
    return every > 0 and step > 0 and step % every == 0
