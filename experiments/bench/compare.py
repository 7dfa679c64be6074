"""A measurement against the one that is committed for the same kind of device."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.errors import InputError

SLOWER = (
    1.5  # medians of a quiet machine repeat within 1.1; of a shared one they do not, and an alarm must mean something
)
LARGER = 1.2
_LIMITS = {"ms": SLOWER, "s": SLOWER, "bytes": LARGER}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One entry in both measurements.

    Attributes:
      name: of the entry.
      ratio: new over old.
      unit: of both; ratios of times and counts are shown and not judged.
      regressed: whether it is beyond the limit for its unit.
    """

    name: str
    ratio: float
    unit: str
    regressed: bool


def compare(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[Comparison]:
    """Entries that both results have, in the order of the new.

    Times are judged only where both come from the same processor and as many cores: `machine` says so.
    """
    same = all(new["machine"].get(key) == old["machine"].get(key) for key in ("device_kind", "cpu", "cpu_count"))
    found = []
    for name, entry in new["results"].items():
        before = old["results"].get(name)
        if before is None or before["unit"] != entry["unit"] or not before["value"]:
            continue
        ratio, unit = entry["value"] / before["value"], entry["unit"]
        judged = unit == "bytes" or (same and unit in _LIMITS)
        found.append(Comparison(name=name, ratio=ratio, unit=unit, regressed=judged and ratio > _LIMITS[unit]))
    return found


def report(new: Mapping[str, Any], path: pathlib.Path) -> bool:
    """Print the ratio of every entry to the committed file; True unless something has regressed.

    Without such a file there is nothing to compare, which is said and is no failure.

    Raises:
      InputError: the file is not a measurement.
    """
    if not path.is_file():
        print(f"compare: no measurement of this device at {path}; run without --compare to make one")
        return True
    try:
        compared = compare(new, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a measurement of experiments.bench ({error!r}); delete or restore it"
        ) from error
    for entry in compared:
        mark = f" REGRESSED, limit {_LIMITS[entry.unit]}" if entry.regressed else ""
        print(f"compare {entry.name} {entry.ratio:.3f} times the committed{mark}")
    regressed = [entry for entry in compared if entry.regressed]
    print(f"compare: {len(compared)} entries, {len(regressed)} regressed, against {path}")
    return not regressed
