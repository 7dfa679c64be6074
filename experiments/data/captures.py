"""Captures: photographs with poses, whatever tool wrote them down, as one record."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Literal

import numpy as np

from experiments.data import colmap, undistort_cache
from experiments.data.capture_record import Capture
from experiments.data.demo import demo_capture
from experiments.data.holdout import split_holdout
from experiments.data.paths import is_file
from experiments.data.photographs import load_photographs
from experiments.data.transforms_json import TransformsFile, read_transforms
from experiments.data.views import View
from experiments.errors import InputError
from renderers.files import FormatError
from renderers.ply import read_points_ply

__all__ = ["Capture", "Poses", "load_capture", "split_holdout"]

Poses = Literal["auto", "transforms", "colmap"]


@dataclasses.dataclass(frozen=True)
class _Description:
    """A capture before its pixels are read."""

    views: tuple[View, ...]
    points: np.ndarray | None = None
    point_colors: np.ndarray | None = None
    test_names: frozenset[str] = frozenset()
    is_blender: bool = False
    notes: tuple[str, ...] = ()


def load_capture(
    path: str | os.PathLike[str],
    *,
    downscale: int | None = 1,
    undistort: bool = True,
    poses: Poses = "auto",
    keep_val: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    allow_external_paths: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Capture:
    """Reads a capture folder: transforms.json, Blender's split files, or a COLMAP model beside `images`.

    Args:
        path: the folder, a transforms file, or "demo" for a small procedural capture made on the fly.
        downscale: photograph pixels to one pixel of the result, averaged; None: the least power of two that brings
            the longest side to 1600 pixels.
        undistort: turn photographs into those of ideal pinhole cameras. Otherwise they stay as they are, and the
            record holds the lens coefficients.
        poses: which description to trust where a folder has both; their world frames differ. "auto": transforms.json,
            unless COLMAP has points and transforms.json names none.
        keep_val: train on validation views too; they are left out where the data set lists them apart.
        cache_dir: folder for undistorted images; None: `$XDG_CACHE_HOME/galatea3d/undistorted`.
        allow_external_paths: let paths in the files lead out of the capture's folder.
        progress: called as (photographs done, all photographs).

    Returns:
        The capture in the world frame of its poses. Photographs that are listed and missing are counted and skipped.

    Raises:
        InputError: if nothing usable is there, or the files are damaged, unsafe, or hold impossible numbers.
    """
    if os.fspath(path) == "demo":
        return demo_capture()
    try:
        description = _describe(pathlib.Path(path), poses, keep_val, allow_external_paths)
    except (OSError, FormatError) as error:
        raise InputError(str(error)) from error
    present = [view for view in description.views if is_file(view.path)]
    missing = len(description.views) - len(present)
    if not present:
        raise InputError(
            f"{path}: none of the {missing} listed images is there, the first is {description.views[0].path}"
        )
    notes = list(description.notes)
    unmasked = sum(view.mask_path is not None and not is_file(view.mask_path) for view in present)
    if unmasked:
        notes.append(f"{unmasked} listed masks are missing")
    present = [_without_missing_mask(view) for view in present]
    names = _short_names([view.name for view in present])
    order = sorted(range(len(present)), key=lambda index: names[index])
    views = [present[index] for index in order]
    cache = undistort_cache.default_folder() if cache_dir is None else pathlib.Path(cache_dir)
    photographs, used_downscale = load_photographs(
        views, downscale=downscale, undistort=undistort, cache=cache, progress=progress
    )
    if missing:
        notes.append(f"{missing} of {len(description.views)} listed images are missing and were skipped")
    if downscale is None and used_downscale > 1:
        notes.append(f"images are reduced {used_downscale} times")
    models = {"pinhole" if undistort or view.lens is None else view.lens.model for view in views}
    if len(models) > 1:
        raise InputError(f"{path}: mixes pinhole and fisheye cameras; load it undistorted")
    distorted = sum(view.lens is not None and not view.lens.is_ideal_pinhole for view in views)
    if distorted:
        notes.append(f"{distorted} images were undistorted" if undistort else "lens distortion is left in the images")
    images = tuple(photograph.image for photograph in photographs)
    return Capture(
        names=tuple(names[index] for index in order),
        images=images,
        camera_from_world=np.stack([view.camera_from_world for view in views]),
        focal=np.array([photograph.focal for photograph in photographs], np.float64),
        principal=np.array([photograph.principal for photograph in photographs], np.float64),
        model=models.pop(),
        distortion=None if undistort else _coefficients(views),
        points=description.points,
        point_colors=description.point_colors,
        test_names=tuple(names[index] for index in order if present[index].name in description.test_names),
        white_background=description.is_blender and any(image.shape[-1] == 4 for image in images),
        missing=missing,
        notes=tuple(notes),
    )


def _describe(path: pathlib.Path, poses: Poses, keep_val: bool, allow_external: bool) -> _Description:
    if path.suffix == ".json":
        return _from_transforms(read_transforms(path, allow_external=allow_external), keep_val)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected a capture (transforms.json or sparse/0), or `demo`")
    if is_file(path / "transforms_train.json") and not is_file(path / "transforms.json"):
        return _from_blender(path, keep_val, allow_external)
    has_transforms, has_colmap = is_file(path / "transforms.json"), bool(colmap.find_models(path))
    if not has_transforms and not has_colmap:
        raise InputError(
            f"{path}: neither transforms.json, transforms_train.json nor a COLMAP model (sparse/0/cameras.bin) is there"
        )
    if poses == "colmap" or not has_transforms:
        return _from_colmap(path, allow_external)
    if poses == "transforms" or not has_colmap:
        return _from_transforms(read_transforms(path / "transforms.json", allow_external=allow_external), keep_val)
    transforms = read_transforms(path / "transforms.json", allow_external=allow_external)
    if transforms.points_path is None:
        description = _from_colmap(path, allow_external)
        if description.points is not None:
            note = "poses are COLMAP's, which has points; transforms.json has none and another world frame"
            return dataclasses.replace(description, notes=(*description.notes, note))
    description = _from_transforms(transforms, keep_val)
    note = "poses are those of transforms.json; the COLMAP model beside it has another world frame and is not used"
    return dataclasses.replace(description, notes=(*description.notes, note))


def _from_colmap(root: pathlib.Path, allow_external: bool) -> _Description:
    model = colmap.read_largest(root, allow_external=allow_external)
    views, notes = _without_repeats(model.views)
    if not len(model.points):
        return _Description(views, notes=notes)
    return _Description(views, model.points, model.point_colors, notes=notes)


def _from_transforms(transforms: TransformsFile, keep_val: bool) -> _Description:
    views, notes = _without_repeats(transforms.views)
    train, val, test = (
        frozenset(str(pathlib.PurePosixPath(name)) for name in transforms.splits[split])
        for split in ("train", "val", "test")
    )
    if not test:
        # nerfstudio evaluates on the validation list where there is no other.
        val, test = frozenset(), val
    listed = train | test | (val if keep_val else frozenset())
    kept = tuple(view for view in views if (view.name in listed if train else view.name not in val - listed))
    if len(kept) < len(views):
        notes += (f"{len(views) - len(kept)} views are in neither the training nor the test list and were left out",)
    if not kept:
        raise InputError("the lists train_filenames and test_filenames name no frame of transforms.json")
    points, colors = (None, None) if transforms.points_path is None else read_points_ply(transforms.points_path)
    if points is not None and not len(points):
        points, colors = None, None
    return _Description(kept, points, colors, test, notes=transforms.notes + notes)


def _from_blender(root: pathlib.Path, keep_val: bool, allow_external: bool) -> _Description:
    views, test_names, notes = [], frozenset(), ()
    for split in ("train", "val", "test") if keep_val else ("train", "test"):
        path = root / f"transforms_{split}.json"
        if split != "train" and not is_file(path):
            continue
        transforms = read_transforms(path, allow_external=allow_external)
        views += transforms.views
        notes += transforms.notes
        if split == "test":
            test_names = frozenset(view.name for view in transforms.views)
    unique, repeats = _without_repeats(tuple(views))
    return _Description(unique, test_names=test_names, is_blender=True, notes=notes + repeats)


def _without_repeats(views: tuple[View, ...]) -> tuple[tuple[View, ...], tuple[str, ...]]:
    unique = tuple({view.name: view for view in reversed(views)}.values())[::-1]
    repeats = len(views) - len(unique)
    return unique, (f"{repeats} images are listed more than once; their first pose is used",) if repeats else ()


def _coefficients(views: list[View]) -> np.ndarray | None:
    """Lens coefficients of the views, padded with zeros, which change no lens; None if all lenses are ideal."""
    rows = [() if view.lens is None else view.lens.coefficients for view in views]
    if not any(map(any, rows)):
        return None
    longest = max(map(len, rows))
    return np.array([[*row, *[0.0] * (longest - len(row))] for row in rows], np.float64)


def _without_missing_mask(view: View) -> View:
    return view if view.mask_path is None or is_file(view.mask_path) else dataclasses.replace(view, mask_path=None)


def _short_names(names: list[str]) -> list[str]:
    """Names without the folders that all of them share, `images/` above all."""
    folders = [pathlib.PurePosixPath(name).parts[:-1] for name in names]
    shared = len(os.path.commonprefix(folders))
    return ["/".join(pathlib.PurePosixPath(name).parts[shared:]) for name in names]
