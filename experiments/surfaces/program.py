"""A mesh fit as a program for the training loop: start, steps, remeshing, evaluation, previews."""

import pathlib
from typing import Any

import jax
import numpy as np

from experiments import keys, media, train_loop
from experiments.errors import InputError
from experiments.surfaces import fit, shapes
from experiments.surfaces.evaluation import Evaluator
from experiments.surfaces.settings import MeshFitConfig
from experiments.surfaces.targets import Targets, at_half_resolution, chosen_views, one_camera
from renderers.files import FormatError
from renderers.meshes.carving import visual_hull
from renderers.meshes.cleanup import keep_large_components, merge_vertices
from renderers.meshes.formats import read_mesh
from renderers.meshes.mesh import Mesh
from renderers.meshes.remeshing import RemeshingRates, RemeshingState, empty_state, remesh, start_remeshing

_FIRST_PASSES = 5  # of remeshing, which turn the grid's triangles into even ones
_MARGIN = 1.04  # of the carving grid around the object's box


class MeshFit:
    """One run of `fit_mesh` without its loop.

    Args:
      targets: views to fit to and to test on.
      config: the run's.

    Raises:
      InputError: the shape to start from cannot be made.
    """

    def __init__(self, targets: Targets, config: MeshFitConfig) -> None:
        self._targets, self._config = targets, config
        self._normals = config.target.startswith("normals")
        self._colors = "colors" in config.target
        self._depths = "depths" in config.target
        self._half = at_half_resolution(targets.train) if config.coarse > 0 else targets.train
        self._evaluator = Evaluator(targets, config)
        shape = config.shape
        self._rates = RemeshingRates(
            rate=shape.rate,
            smoothing=shape.smoothing,
            shortest=shape.shortest_edge,
            longest=shape.longest_edge,
            max_faces=shape.max_faces,
        )
        self._weights = fit.LossWeights(
            mask=shape.mask,
            normal=shape.normal,
            color=shape.color,
            depth=shape.depth,
            consistency=shape.consistency,
        )
        self.notes = (
            f"{len(targets.names)} views to fit to, {len(targets.test_names)} to test on, "
            f"{targets.train.masks.shape[1]} x {targets.train.masks.shape[2]} pixels",
            *targets.notes,
        )

    def init(self) -> tuple[RemeshingState, dict[str, Any]]:
        """The fresh state and its sizes."""
        vertices, faces, edge = self._start_shape()
        state = start_remeshing(vertices, faces, self._rates, num_features=3 if self._colors else 0)
        if edge is not None:  # a shape that is fine from the start
            state = fit.with_edge_length(state, edge)
            for _ in range(_FIRST_PASSES):
                state = remesh(state, self._rates)
        return state, {"capacity": state.faces.shape[0]}

    def make_target(self, aux: dict[str, Any]) -> RemeshingState:
        """Shapes of a saved state."""
        return jax.eval_shape(lambda: empty_state(aux["capacity"], 3 if self._colors else 0))

    def program(self, folder: pathlib.Path) -> train_loop.Program:
        """The functions that the loop calls; previews go to `previews` in the folder."""

        def preview(state, step):
            (folder / "previews").mkdir(exist_ok=True)
            picture = self._evaluator.picture(fit.state_mesh(state), 0)
            media.write_png(folder / "previews" / f"{step:06d}.png", picture)

        def evaluate(state, step):
            return self._evaluator.numbers(fit.state_mesh(state), count=20_000)

        return train_loop.Program(
            step=self._step, batch=self._batch, reshape=self._reshape, evaluate=evaluate, preview=preview
        )

    def _batch(self, step: int) -> fit.ViewTargets:
        number, size = len(self._targets.names), min(self._config.batch, len(self._targets.names))
        chosen = [keys.index_at(self._config.seed, step * size + i, number) for i in range(size)]
        coarse = step < self._config.coarse * self._config.steps
        views = self._half if coarse else self._targets.train
        return chosen_views(views, chosen, normals=self._normals, colors=self._colors, depths=self._depths)

    def _step(self, state, aux, batch, step, fraction):
        return fit.update(state, batch, fraction, rates=self._rates, weights=self._weights)

    def _reshape(self, state, aux, step):
        if step == 0:
            return state, aux
        state = remesh(state, self._rates)
        return state, {**aux, "capacity": state.faces.shape[0]}

    def _start_shape(self) -> tuple[np.ndarray, np.ndarray, float | None]:
        """Vertices and faces in the normalised frame, and the edge length that suits them."""
        config = self._config
        if config.init == "sphere":
            return *shapes.sphere(0.5), None
        if config.init == "hull":
            masks = [mask.astype(np.float32) / 255 for mask in self._targets.train.masks]
            cameras = [one_camera(self._targets.train, i) for i in range(len(masks))]
            box = np.array([[-0.5] * 3, [0.5] * 3]) * _MARGIN
            try:
                hull = visual_hull(masks, cameras, box, resolution=config.hull_resolution)
            except ValueError as error:
                raise InputError(str(error)) from error
            hull = keep_large_components(hull, share=config.shape.keep)
            return np.asarray(hull.vertices), np.asarray(hull.faces), 2 * _MARGIN / config.hull_resolution
        try:
            mesh = merge_vertices(read_mesh(config.init))
        except (OSError, FormatError) as error:
            raise InputError(f"--init={config.init}: {error}; give sphere, hull or a mesh file") from error
        local = (np.asarray(mesh.vertices, np.float64) - self._targets.frame.center) / self._targets.frame.scale
        return local.astype(np.float32), np.asarray(mesh.faces), _mean_edge(local, np.asarray(mesh.faces))


def final_shape(state: RemeshingState, config: MeshFitConfig) -> Mesh:
    """The fitted shape without small parts, and with as many faces as its texture is to have."""
    from renderers.meshes.simplification import simplify

    mesh = keep_large_components(fit.state_mesh(state), share=config.shape.keep, by="area")
    if config.texture.size and len(mesh.faces) > config.texture.max_faces:
        mesh = simplify(mesh, config.texture.max_faces)
    return mesh


def _mean_edge(vertices, faces) -> float:
    sides = np.linalg.norm(vertices[faces] - vertices[np.roll(faces, -1, axis=1)], axis=-1)
    return float(sides.mean())
