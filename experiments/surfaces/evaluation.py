"""How good a fitted mesh is, against the true surface and on held-out views, and the pictures that show it."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import keys, media
from experiments.surfaces.fit import ViewTargets, shape_image
from experiments.surfaces.settings import MeshFitConfig
from experiments.surfaces.targets import Targets, albedo_image, has_colors, one_camera
from renderers.meshes import connectivity
from renderers.meshes.mesh import Mesh
from renderers.meshes.metrics import compare_surfaces, silhouette_iou
from renderers.meshes.remeshing import remeshing_capacity
from renderers.metrics import psnr

_THRESHOLD = 0.01


class Evaluator:
    """Compares meshes with the truth and with views, in the normalised frame.

    Args:
      targets: views; the test views count, or the training views if there are none.
      config: the run's.
    """

    def __init__(self, targets: Targets, config: MeshFitConfig) -> None:
        self._targets, self._seed = targets, config.seed
        self.views: ViewTargets = targets.train if targets.test is None else targets.test
        self.names = targets.names if targets.test is None else targets.test_names

    def numbers(self, mesh: Mesh, *, count: int = 100_000) -> dict[str, float]:
        """Errors of the shape in units of the box's longest side, and of the colours if the mesh has any.

        `chamfer_l1`, `f_score_0.01` and `normal_consistency` where the truth is known, `mask_iou` on the views, `psnr`
        of base colours on white and `psnr_object` over the pixels that are the object's in both.
        """
        result: dict[str, float] = {}
        truth = self._targets.truth
        if truth is not None:
            errors = compare_surfaces(
                keys.key(self._seed, "surface samples"),
                np.asarray(mesh.vertices),
                np.asarray(mesh.faces),
                np.asarray(truth.vertices),
                np.asarray(truth.faces),
                count=count,
                thresholds=(_THRESHOLD,),
            )
            result["chamfer_l1"] = errors.chamfer_l1
            result[f"f_score_{_THRESHOLD}"] = errors.f_scores[0]
            result["normal_consistency"] = errors.normal_consistency
        mesh = _with_spare_rows(mesh)
        shown = [self._shape(mesh, view) for view in range(len(self.names))]
        masks = np.stack([mask for mask, _ in shown])
        result["mask_iou"] = silhouette_iou(masks, self.views.masks / np.float32(255))
        if has_colors(mesh) and self.views.colors.shape[-1]:
            rows = [self._color_errors(mesh, view, masks[view]) for view in range(len(self.names))]
            result["psnr"], result["psnr_object"] = (float(np.mean(column)) for column in zip(*rows, strict=True))
        return result

    def picture(self, mesh: Mesh, view: int) -> np.ndarray:
        """Target and fit beside each other: normals (masks where a view has none), then colours if the mesh has any."""
        mesh = _with_spare_rows(mesh)
        mask, normals = self._shape(mesh, view)
        known = self.views.normals.shape[-1] > 0
        panels: list[Any] = [self.views.normals[view] if known else self.views.masks[view], normals if known else mask]
        if has_colors(mesh) and self.views.colors.shape[-1]:
            panels += [self.views.colors[view], np.asarray(albedo_image(mesh, one_camera(self.views, view)))]
        return media.side_by_side(*panels)

    def _shape(self, mesh, view) -> tuple[np.ndarray, np.ndarray]:
        opposite = jnp.asarray(connectivity.opposite_vertices(np.asarray(mesh.faces)))
        mask, normals = shape_image(mesh.vertices, mesh.faces, opposite, one_camera(self.views, view))
        return np.asarray(mask), np.asarray(normals)

    def _color_errors(self, mesh, view, mask) -> tuple[float, float]:
        wanted, covered = self.views.colors[view] / np.float32(255), self.views.masks[view] / np.float32(255)
        color = np.asarray(albedo_image(mesh, one_camera(self.views, view)))
        whole = float(psnr(jnp.asarray(color + 1 - mask[..., None]), jnp.asarray(wanted + 1 - covered[..., None])))
        both = (mask > 0.999) & (covered > 0.999)
        squared = float(((color - wanted)[both] ** 2).mean()) if both.any() else 1.0
        return whole, -10 * float(np.log10(max(squared, 1e-10)))


def _with_spare_rows(mesh: Mesh) -> Mesh:
    """The mesh with unused vertices and faces without area, so that one program renders it at many sizes."""
    capacity = remeshing_capacity(len(mesh.vertices), len(mesh.faces))

    def filled(rows, number):
        if rows is None:
            return None
        return jnp.concatenate([rows, jnp.zeros((number - len(rows), *rows.shape[1:]), rows.dtype)])

    return dataclasses.replace(
        mesh,
        vertices=filled(mesh.vertices, capacity // 2),
        faces=filled(mesh.faces, capacity),
        uv_faces=filled(mesh.uv_faces, capacity),
        vertex_colors=filled(mesh.vertex_colors, capacity // 2),
    )
