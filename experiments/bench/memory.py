"""Peak memory of rendering on every backend of this device, from compiled programs; nothing is executed."""

from experiments.bench import scenes
from renderers.gaussians.preflight import peak_memory
from renderers.kernels.dispatch import Backend, Unsupported, choose

_BACKENDS: tuple[Backend, ...] = ("cpu", "xla", "pallas_gpu", "pallas_tpu")
_NAMES = ("100k", "1m", "10m")


def measure() -> dict[str, tuple[float, str]]:
    """Names to bytes: scenes at 1080p with degree 3, forward and with gradients; the reference at 1,000.

    Backends that this device does not run are left out, and Pallas on the CPU, whose interpreter's memory says nothing.
    """
    rows: dict[str, tuple[float, str]] = {}
    for backend in _BACKENDS:
        if not _native_here(backend):
            continue
        for name in _NAMES:
            rows |= _statement(f"memory/{backend}/{name}", scenes.SCENES[name], backend)
    rows |= _statement("memory/reference/1k", scenes.Scene(num_gaussians=1000), "reference")
    return rows


def _native_here(backend: Backend) -> bool:
    try:
        choose(backend)
    except Unsupported:
        return False
    return not backend.startswith("pallas") or choose() == backend


def _statement(prefix: str, scene: scenes.Scene, backend: Backend) -> dict[str, tuple[float, str]]:
    rows: dict[str, tuple[float, str]] = {}
    for part, gradients in (("forward", False), ("forward_backward", True)):
        stated = peak_memory(
            scene.num_gaussians,
            scene.size,
            sh_degree=scene.sh_degree,
            intersections=4 * scene.num_gaussians,
            backend=backend,
            gradients=gradients,
        )
        rows[f"{prefix}/{part}"] = (stated.total, "bytes")
        rows |= {
            f"{prefix}/{part}/{kind}": (getattr(stated, kind), "bytes")
            for kind in ("arguments", "outputs", "temporaries", "native")
        }
    return rows
