"""Compositing compiled for TPUs that are not there, down to their machine code."""

import json
import subprocess
import sys

import pytest

from tests.aot import record, tools
from tests.helpers.sources import ROOT

pytestmark = [pytest.mark.aot, pytest.mark.timeout(900)]

_SECONDS = 800
_HBM = 16e9  # bytes of a v5e


@pytest.fixture(scope="module")
def folder():
    return tools.require(*tools.TPU_PACKAGES)


@pytest.fixture(scope="module")
def rows(folder):
    kept = []
    yield kept
    record.write("tpu", kept, tools.versions(*tools.TPU_PACKAGES))


@pytest.mark.parametrize(
    ("topology", "what", "channels"),
    [
        *(("v5e:2x2", what, channels) for channels in (3, 4, 16) for what in ("forward", "backward")),
        ("v6e:2x2", "forward", 3),
        ("v6e:2x2", "backward", 3),
        ("v5e:2x2", "operation", 3),
    ],
)
def test_compiles(topology, what, channels, folder, rows, record_property):
    command = [sys.executable, "-m", "tests.aot.tpu_compile", str(folder), topology, what, str(channels)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    compiled = json.loads(done.stdout.splitlines()[-1])
    row = {"program": what, "topology": topology, "channels": channels} | compiled
    rows.append(row)
    record_property("table", row)
    assert compiled["mosaic_kernels"] == {"forward": 1, "backward": 1, "operation": 2}[what]
    assert compiled["code_bytes"] > 0
    assert compiled["argument_bytes"] + compiled["output_bytes"] + compiled["temporary_bytes"] < _HBM
