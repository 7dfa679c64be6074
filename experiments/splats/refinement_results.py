"""What a camera refinement leaves behind: a capture with the refined cameras, before and after in pictures, curves."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments import media, plots, report, workdir
from experiments.data.capture_record import Capture
from experiments.splats.refinement import ERRORS, Refined, Refinement
from renderers.cameras.conversions import to_opengl

_MOST_PICTURES, _MOST_CURVES = 12, 6
_MODELS = {"pinhole": "PINHOLE", "fisheye": "OPENCV_FISHEYE"}
_TITLES = {
    "cost": "cost, each level with its own number of pixels",
    "rotation_degrees": "error of the rotation, degrees",
    "translation": "error of the camera's place, in units of the cameras' spread",
    "focal": "error of the focal lengths, relative",
}


def write_capture(folder: pathlib.Path, refinement: Refinement, capture: Capture, done: list[Refined]) -> None:
    """Write transforms.json with the refined views, and their images, which the intrinsics belong to, beside it."""
    frames = []
    for view, refined in zip(refinement.views, done, strict=False):
        image = capture.images[view]
        path = pathlib.PurePosixPath("images", *_safe_parts(refined.name)).with_suffix(".png")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        media.write_png(folder / path, image)
        frames.append(
            {
                "file_path": str(path),
                "transform_matrix": _world_from_opengl(refined.camera_from_world).tolist(),
                "camera_model": _MODELS[capture.model],
                "w": image.shape[1],
                "h": image.shape[0],
                "fl_x": refined.focal[0],
                "fl_y": refined.focal[1],
                "cx": refined.principal[0],
                "cy": refined.principal[1],
            }
        )
    workdir.write_json_atomic(folder / "transforms.json", {"frames": frames})


def _safe_parts(name: str) -> list[str]:
    """A view's name below the folder; captures may name photographs outside theirs."""
    return [part for part in pathlib.PurePosixPath(name).parts if part not in ("/", "..")]


def _world_from_opengl(camera_from_world: list[list[float]]) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(to_opengl(jnp.asarray(np.asarray(camera_from_world, np.float64))))


def write_report(folder: pathlib.Path, refinement: Refinement, done: list[Refined], summary: dict[str, object]) -> None:
    """Write report.html."""
    pictures = []
    for view, refined in list(zip(refinement.views, done, strict=False))[:_MOST_PICTURES]:
        target = np.asarray(refinement.target(view)[0])
        sides = [
            np.asarray(refinement.see(camera)) for camera in (refinement.start(view), refinement.end(refined, view))
        ]
        errors = [np.clip(4 * np.abs(side - target), 0, 1) for side in sides]
        numbers = refined.numbers
        caption = (
            f"{refined.name}: target; before, {numbers['psnr_before']:.2f} dB, and its error x 4; "
            f"after, {numbers['psnr_after']:.2f} dB, and its error x 4"
        )
        picture = media.side_by_side(target, sides[0], errors[0], sides[1], errors[1])
        pictures.append(report.Picture(image=picture, caption=caption))
    shown = done[:_MOST_CURVES]
    curves = [
        plots.Plot(
            title=_TITLES[name],
            series=[
                plots.Series(name=refined.name, x=range(len(refined.curves[name])), y=refined.curves[name])
                for refined in shown
            ],
            log_y=True,
        )
        for name in ("cost", *ERRORS)
        if all(name in refined.curves for refined in shown)
    ]
    header = list(done[0].numbers)
    rows = [(refined.name, *(refined.numbers[name] for name in header)) for refined in done]
    table = report.Table(header=("view", *(name.replace("_", " ") for name in header)), rows=rows)
    sections = [
        report.Section(title="Before and after", pictures=pictures),
        report.Section(title="Course of the searches", plots=curves),
        report.Section(title="All views", tables=[table]),
    ]
    report.write_report(folder / "report.html", title="Refined cameras", summary=summary, sections=sections)
