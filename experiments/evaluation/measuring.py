"""All scores of one asset; see the modules that they are from."""

import itertools
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.data.blocks import mesh_pictures, rendering
from experiments.data.blocks.descriptions import Description
from experiments.data.blocks.solids import Assembly
from experiments.evaluation import attributes, consistency, geometry_scores, retrieval
from experiments.evaluation.captions import Caption, rivals
from experiments.evaluation.geometry_scores import ClassObjects
from experiments.evaluation.janus import SIZE, VIEWS, janus
from experiments.evaluation.settings import EvaluateGenerationConfig
from experiments.prior import classes, scores
from experiments.prior.classes import ClassRenders
from renderers.meshes.mesh import Mesh

VERSION = 1  # of the definitions: scores of another one are measured again
SIZE_OF_RING = 32  # pixels along a side of the canonical views that classes are told apart by


class Measures:
    """What assets are scored with.

    Args:
      config: of the evaluation.
      renders: of classes, at SIZE_OF_RING.
      pool: captions among which an asset's own is looked for.
      similarity: what finds it; None where nothing judges.
    """

    def __init__(
        self,
        config: EvaluateGenerationConfig,
        renders: ClassRenders,
        pool: Sequence[Caption],
        similarity: retrieval.Similarity | None,
    ) -> None:
        self._config, self._renders, self._pool, self._similarity = config, renders, pool, similarity
        self._class: tuple[Description, ClassObjects] | None = None

    def of_mesh(
        self, mesh: Mesh, asked: Caption, views: Float[np.ndarray, "4 h w 8"] | None = None
    ) -> dict[str, float | None]:
        """Scores by name; None where one does not apply. Truths are 1 and 0.

        Args:
          mesh: the asset; world frame, metres.
          asked: what it should be.
          views: generated views that it was made of, canonical.

        Raises:
          ValueError: the mesh has no faces, or too many to be rendered.
        """
        config, exact_objects = self._config, self._objects(asked.description)
        surface = geometry_scores.samples_of_mesh(mesh, config.points, config.seed)
        nearest = exact_objects.nearest(surface)
        exact = exact_objects.objects[nearest]
        found = geometry_scores.compare(surface, exact_objects.samples(nearest))
        corners = mesh_pictures.taken_apart(mesh)
        ring, around = (
            np.asarray(mesh_pictures.render_mesh_ring(corners, 0.0, rendering.ELEVATION, views=count, size=size))
            for count, size in ((4, SIZE_OF_RING), (VIEWS, SIZE))
        )
        return {
            **{name: getattr(found, name) for name in ("chamfer", "accuracy", "completeness", "normal_consistency")},
            **{f"f_{t:g}": f for t, f in zip(geometry_scores.THRESHOLDS, found.f_scores, strict=True)},
            "volume_iou": geometry_scores.volume_iou(mesh, exact, config.volume_points, config.seed),
            **self._attributes(ring, asked.description, surface, exact),
            "reprojection_psnr": consistency.reprojection(around, consistency.ring_poses(VIEWS)).psnr,
            **views_scores(views, ring),
            "janus": None if (seen := janus(around, asked.description, exact)) is None else seen.count,
            "retrieved": self._retrieved(ring, asked),
            "nearest": nearest,
        }

    def _attributes(self, ring, description: Description, surface, exact: Assembly) -> dict[str, float | None]:
        negatives = itertools.chain(classes.hard_negatives(description), attributes.opposite_sizes(description))
        told: Mapping[str, float] = attributes.told_apart([ring], description, negatives, self._renders)[0]
        colored = attributes.parts_colored(surface, description, exact)
        right = {**told, **({} if colored is None else {"color": colored})}
        values = [float(value) for value in right.values()]
        return {
            **{name: None if name not in right else float(right[name]) for name in attributes.ASPECTS},
            "attributes": float(np.mean(values)) if values else None,
            "all_right": float(min(values) == 1.0) if values else None,
        }

    def _retrieved(self, ring, asked: Caption) -> float | None:
        if self._similarity is None:
            return None
        others = [other.text for other in rivals(asked, self._pool)]
        at_once = len(self._pool) + 1
        return float(retrieval.retrieved(ring, asked.text, others, self._similarity, at_once=at_once))

    def _objects(self, description: Description) -> ClassObjects:
        if self._class is None or self._class[0] != description:
            config = self._config
            made = ClassObjects(description, count=config.objects, seed=config.seed, points=config.points)
            self._class = description, made
        return self._class[1]


def failed(asked: Caption, *, is_judged: bool) -> dict[str, float | None]:
    """Scores of an asset that could not be made: the worst of all that have a worst."""
    applicable = [name for name, _ in itertools.chain(classes.hard_negatives(asked.description),
                                                      attributes.opposite_sizes(asked.description))]  # fmt: skip
    applicable += ["color"] * any(part.color for part in asked.description.parts)
    zero = ["volume_iou", "normal_consistency", *(f"f_{t:g}" for t in geometry_scores.THRESHOLDS)]
    zero += [*applicable, *(["attributes", "all_right"] if applicable else []), *(["retrieved"] if is_judged else [])]
    return dict.fromkeys(zero, 0.0)


def views_scores(
    views: Float[np.ndarray, "4 h w 8"] | None, ring: Float[np.ndarray, "4 h w 8"]
) -> dict[str, float | None]:
    """Scores of the generated views that an asset was made of: by themselves, and against the asset's own.

    `views_psnr` is that of the asset's base colours against theirs over whole pictures, the "reconstruction
    consistency" of MVDream and SyncDreamer: views of one object can all be met.
    """
    if views is None:
        return {"views_reprojection_psnr": None, "views_psnr": None}
    own = consistency.reprojection(views, consistency.canonical_poses()).psnr
    met = scores.nearest_render(views, ring[None]).psnr if views.shape == ring.shape else None
    return {"views_reprojection_psnr": own, "views_psnr": met}


def stored_views(folder: pathlib.Path, size: int) -> Float[np.ndarray, "4 h w 8"] | None:
    """The views that a route chose, if it left any that are whole."""
    shape, file = (4, size, size, rendering.CHANNELS), folder / "views.npz"
    try:
        if file.stat().st_size > 16 * np.prod(shape):
            return None
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as stored:
            ring = stored["ring"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return ring if ring.shape == shape and np.isfinite(ring).all() else None


def protocol(config: EvaluateGenerationConfig, towers: str | None) -> dict[str, Any]:
    """All that scores depend on besides asset and caption; also what is stated with the table."""
    return {
        "version": VERSION,
        "seed": config.seed,
        "objects_of_a_class": config.objects,
        "points": config.points,
        "volume_points": config.volume_points,
        "pool": config.pool if towers else 0,
        "towers": towers or "no weights",
        "units": "metres",
        "alignment": "none: front, floor and size count",
        "background": "mid-grey",
        "views": f"4 of {SIZE_OF_RING} pixels; {VIEWS} of {SIZE} for janus and reprojection_psnr; elevation 15 degrees",
        "renders_of_a_class": attributes.RETRIEVED,
        "f_scores_at": list(geometry_scores.THRESHOLDS),
    }
