"""Camera refinement of a capture: which views, how they are disturbed, the searches, and what is kept of them.

Everything happens in the normalised frame of the capture (see `scene.py`), whose unit is the distance of the farthest
camera from the middle of all: translations are fractions of it. Finished views are kept in `refined.json`, from which
a stopped run goes on.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import keys, workdir
from experiments.data.capture_record import Capture
from experiments.data.holdout import find_view
from experiments.errors import InputError
from experiments.splats import camera_search
from experiments.splats.field_stop import estimate
from experiments.splats.refinement_settings import RefineConfig
from experiments.splats.scene import Normalisation, cameras, normalisation
from renderers.cameras.camera import Camera
from renderers.cameras.refinement import corrected, differences, disturbed
from renderers.files import FormatError
from renderers.gaussians.formats import read_splats
from renderers.gaussians.gaussians import Gaussians
from renderers.gaussians.rasterize import render
from renderers.metrics import psnr

_FEWEST = 1e-3  # mean alpha below which a camera sees nothing to go by
ERRORS = ("rotation_degrees", "translation", "focal")


@dataclasses.dataclass(frozen=True)
class Refined:
    """A view's outcome.

    Attributes:
        name: of the view.
        camera_from_world: refined, in the capture's frame.
        focal: refined.
        principal: refined.
        numbers: what the run logs of the view.
        curves: name to values, one a step; `factor` is the level's.
    """

    name: str
    camera_from_world: list[list[float]]
    focal: list[float]
    principal: list[float]
    numbers: dict[str, float]
    curves: dict[str, list[float]]


class Refinement:
    """One run of `refine_cameras`.

    Args:
        capture: photographs with cameras.
        config: the run's.

    Raises:
        InputError: no splats, or unknown views.
    """

    def __init__(self, capture: Capture, config: RefineConfig) -> None:
        self._capture, self._config = capture, config
        self._frame = normalisation(capture)
        self._gaussians = _read_scene(config.splats, self._frame)
        self._cameras = cameras(capture, self._frame)
        white = config.background == "white" or (config.background == "auto" and capture.white_background)
        self._background = jnp.full(3, float(white), jnp.float32)
        shapes = {image.shape for image in capture.images}
        self._stops = {s: estimate([image for image in capture.images if image.shape == s]) for s in shapes}
        self.views = chosen_views(capture, config.views)
        self.knows_truth = bool(config.perturb_degrees or config.perturb_translation or config.perturb_focal)

    def run(
        self,
        folder: pathlib.Path,
        done: list[Refined],
        over: Callable[[int], bool],
        log: Callable[[Refined, int], None],
    ) -> list[Refined]:
        """Refine the views that are not done yet, in order, until all are or `over` says so; keeps each at once.

        Args:
            folder: where the finished views are kept.
            done: views that an earlier attempt finished.
            over: told how many views are done; whether to leave it at that.
            log: told of each view, and how many are done.

        Raises:
            InputError: `done` holds other views than these, or a camera sees nothing of the scene.
        """
        names = [self._capture.names[view] for view in self.views]
        if [refined.name for refined in done] != names[: len(done)]:
            raise InputError(f"{folder} holds other views than --views names; choose another --workdir")
        for view in self.views[len(done) :]:
            if over(len(done)):
                break
            done = [*done, self._refine(view)]
            workdir.write_json_atomic(folder / "refined.json", [dataclasses.asdict(refined) for refined in done])
            log(done[-1], len(done))
        return done

    def target(self, view: int) -> tuple[jax.Array, jax.Array]:
        """The image [h, w, 3] that the camera of a view has to explain, and what of it counts [h, w, 1]."""
        image = jnp.asarray(self._capture.images[view])
        if self._config.against == "renders":
            return self._render(self._true(view)).color, jnp.ones((*image.shape[:2], 1))
        stop = self._stops[image.shape]
        lit = (stop.rows == 1)[:, None, None] & (stop.columns == 1)[None, :, None]
        values = image.astype(jnp.float32) / 255
        if values.shape[-1] == 4:
            values = values[..., :3] * values[..., 3:] + self._background[None, None] * (1 - values[..., 3:])
        return values, jnp.asarray(lit, jnp.float32)

    def see(self, camera: Camera) -> jax.Array:
        """What a camera sees of the splats, in [0, 1]."""
        return jnp.clip(self._render(camera).color, 0, 1)

    def start(self, view: int) -> Camera:
        """The camera that the search begins at: the capture's, disturbed as asked for."""
        config, true = self._config, self._true(view)
        rng = keys.host_rng(config.seed, "camera perturbation", view)
        axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
        sign = rng.choice([-1.0, 1.0], 2)
        return disturbed(
            true,
            jnp.asarray(np.deg2rad(config.perturb_degrees) * axis, jnp.float32),
            jnp.asarray(config.perturb_translation * way, jnp.float32),
            jnp.asarray(np.log1p(config.perturb_focal * sign), jnp.float32),
        )

    def end(self, refined: Refined, view: int) -> Camera:
        """A refined camera, in the normalised frame."""
        pose = np.asarray(refined.camera_from_world)
        pose[:3, 3] = (pose[:3, :3] @ self._frame.center + pose[:3, 3]) / self._frame.scale
        true = self._true(view)
        pose, focal, principal = (jnp.asarray(v, jnp.float32) for v in (pose, refined.focal, refined.principal))
        return Camera(pose, focal, principal, true.size, true.model)

    def _render(self, camera):
        """Outside a trace: room for intersections is counted."""
        config = self._config
        return render(
            self._gaussians, camera, background=self._background, antialias=config.antialias, backend=config.backend
        )

    def _true(self, view):
        return jax.tree.map(jnp.asarray, self._cameras[view])

    def _refine(self, view: int) -> Refined:
        config, name, start = self._config, self._capture.names[view], self.start(view)
        image, weight = self.target(view)
        before = self._render(start)
        if float(before.alpha.mean()) < _FEWEST:
            raise InputError(f"{name}: its camera sees none of the splats; are they in the frame of the capture?")
        distance = before.depth.sum() / before.alpha.sum()
        problem = camera_search.Problem(
            gaussians=self._gaussians,
            camera=start,
            pivot=jnp.stack([jnp.zeros_like(distance), jnp.zeros_like(distance), distance]),
            background=self._background,
            image=image,
            weight=weight,
        )
        found = camera_search.search(problem, config)
        if not np.isfinite(found.x).all():
            raise InputError(f"{name}: the search went astray; choose --method=gauss_newton or a lower --rate")
        camera = corrected(start, jnp.asarray(found.x[-1]), problem.pivot)
        finest = found.factors == 1
        numbers = {
            "psnr_before": float(psnr(jnp.clip(before.color, 0, 1), jnp.clip(image, 0, 1))),
            "psnr_after": float(psnr(self.see(camera), jnp.clip(image, 0, 1))),
            "seconds": float(found.seconds.sum()),
            "seconds_per_step": float(np.median(found.seconds[finest])),
            "steps": len(found.x) - 1,
        }
        curves = {"cost": found.costs[1:].tolist(), "factor": found.factors[1:].tolist()}
        if self.knows_truth:
            course = _errors(start, jnp.asarray(found.x), problem.pivot, self._true(view))
            for error, values in zip(ERRORS, course, strict=True):
                numbers[f"{error}_before"], numbers[f"{error}_after"] = float(values[0]), float(values[-1])
                curves[error] = np.asarray(values, np.float64).tolist()
        return Refined(name, *self._in_capture(camera), numbers, curves)

    def _in_capture(self, camera: Camera) -> tuple[list[list[float]], list[float], list[float]]:
        pose = np.asarray(camera.camera_from_world, np.float64)
        pose[:3, 3] = self._frame.scale * pose[:3, 3] - pose[:3, :3] @ self._frame.center
        return pose.tolist(), np.asarray(camera.focal, np.float64).tolist(), np.asarray(camera.principal).tolist()


@jax.jit
def _errors(start, corrections, pivot, true):
    return jax.vmap(lambda x: differences(corrected(start, x, pivot), true))(corrections)


def _read_scene(path: str | None, frame: Normalisation) -> Gaussians:
    if path is None:
        raise InputError("--splats is needed: the scene that the cameras are refined against, for example a splats.ply")
    try:
        gaussians = read_splats(path)
    except (OSError, FormatError) as error:
        raise InputError(str(error)) from error
    return Gaussians(
        means=jnp.asarray((np.asarray(gaussians.means, np.float64) - frame.center) / frame.scale, jnp.float32),
        quaternions=gaussians.quaternions,
        log_scales=gaussians.log_scales - np.float32(np.log(frame.scale)),
        opacity_logits=gaussians.opacity_logits,
        sh=gaussians.sh,
    )


def chosen_views(capture: Capture, views: str | None) -> list[int]:
    """Indices of the views that a flag names: every n-th, or names.

    Raises:
        InputError: a name is unknown.
    """
    words = [word.strip() for word in (views or "1").split(",") if word.strip()]
    if len(words) == 1 and words[0].isascii() and words[0].isdigit() and not words[0].startswith("0"):
        return list(range(0, len(capture.names), int(words[0][:12])))
    if not words:
        raise InputError(f"--views={views!r} names no view; expected a number, or names separated by commas")
    return sorted({find_view(capture.names, word, "--views") for word in words})


def read_done(folder: pathlib.Path) -> list[Refined]:
    """Views that an earlier attempt finished; none if there is no record, or a damaged one."""
    try:
        return [Refined(**row) for row in json.loads((folder / "refined.json").read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def summary(done: list[Refined], knows_truth: bool) -> dict[str, Any]:
    """The final numbers: means over the views, errors also at their worst; seconds in all."""
    names = ["psnr_before", "psnr_after", *(f"{e}_{t}" for e in ERRORS for t in ("before", "after") if knows_truth)]
    final: dict[str, Any] = {name: float(np.mean([refined.numbers[name] for refined in done])) for name in names}
    for error in ERRORS if knows_truth else ():
        final[f"{error}_worst_after"] = max(refined.numbers[f"{error}_after"] for refined in done)
    final["seconds_per_step"] = float(np.median([refined.numbers["seconds_per_step"] for refined in done]))
    final["seconds"] = sum(refined.numbers["seconds"] for refined in done)
    final["steps"] = sum(int(refined.numbers["steps"]) for refined in done)
    final["views"] = len(done)
    return final
