"""What the compilers said, kept: a table at the end of the run, and JSON where `GALATEA_AOT_RESULTS` names a folder."""

import json
import os
import pathlib
import time

VARIABLE = "GALATEA_AOT_RESULTS"


def write(name: str, rows: list[dict[str, object]], versions: dict[str, str]) -> None:
    """Write the rows with versions and command; without the variable, or rows, nothing."""
    folder = os.environ.get(VARIABLE)
    if not folder or not rows:
        return
    result = {
        "command": f"GALATEA_AOT_TOOLS=... {VARIABLE}={folder} python -m pytest -m aot",
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions,
        "results": rows,
    }
    path = pathlib.Path(folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
