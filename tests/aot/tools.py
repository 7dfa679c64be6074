"""Where the compilers for absent devices lie: packages in a folder of their own, never in the environment.

`GALATEA_AOT_TOOLS` names the folder. The CUDA plugin and libtpu change which devices JAX finds once they can be
imported, so that they must not be installed beside it; compilers crash as well as fail, so that each call is a child
process of its own.
"""

import importlib.metadata
import os
import pathlib

import jaxlib
import pytest

VARIABLE = "GALATEA_AOT_TOOLS"
GPU_PACKAGES = (
    f"jax-cuda13-plugin=={jaxlib.__version__}",
    f"jax-cuda13-pjrt=={jaxlib.__version__}",
    "nvidia-cuda-nvcc",
)
MOSAIC_PACKAGES = (*GPU_PACKAGES, "nvidia-nvvm")  # with the device functions, exp among them
TPU_PACKAGES = ("libtpu",)


def require(*packages: str) -> pathlib.Path:
    """The tools' folder; skips the test, with the command that fills it, where a package or its version is missing.

    One command for all packages: pip does not add to folders that are there, and two of these share one.
    """
    folder = os.environ.get(VARIABLE)
    if folder and set(packages) <= _present(folder):
        return pathlib.Path(folder).resolve()
    missing = sorted(set(packages) - _present(folder)) if folder else []
    command = f'pip install --no-deps --target "${VARIABLE}" {" ".join((*MOSAIC_PACKAGES, *TPU_PACKAGES))}'
    state = f"{folder} lacks {', '.join(missing)}" if folder else f"{VARIABLE} is not set"
    pytest.skip(f"{state}. In bash, for a new folder: export {VARIABLE}=FOLDER && {command}")


def versions(*packages: str) -> dict[str, str]:
    """Versions of jax and of the packages in the tools' folder."""
    names = {package.partition("==")[0] for package in packages}
    found = {
        d.name: d.version for d in importlib.metadata.distributions(path=[os.environ[VARIABLE]]) if d.name in names
    }
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")} | found


def _present(folder: str) -> set[str]:
    found = set()
    for distribution in importlib.metadata.distributions(path=[folder]):
        found |= {distribution.name, f"{distribution.name}=={distribution.version}"}
    return found
