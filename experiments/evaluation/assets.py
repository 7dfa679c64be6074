"""The assets that are scored: made here as `text_to_3d` makes them, or found in folders that it left."""

import dataclasses
import json
import pathlib
import time
import typing
from collections.abc import Sequence

from experiments import flags, workdir
from experiments.data.blocks.descriptions import parse
from experiments.errors import InputError
from experiments.evaluation.captions import Caption
from experiments.evaluation.settings import EvaluateGenerationConfig
from experiments.generation import guides, results
from experiments.generation.prompts import check_prompt
from experiments.generation.routes import mesh, nerf, single_pass, splats
from experiments.generation.settings import Route
from experiments.prior.rings import LENGTH
from experiments.prior.weights import Prior

_MAKERS = {"mesh": mesh.make, "nerf": nerf.make, "splats": splats.make, "single_pass": single_pass.make}
_MOST_BYTES = 1 << 20  # of a run's metrics.json
_MOST_FOLDERS = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """An asset on disk.

    Attributes:
      route: by which it was made.
      caption: of what.
      folder: the run's.
    """

    route: Route
    caption: Caption
    folder: pathlib.Path


def make_asset(
    asked: Caption, route: Route, folder: pathlib.Path, config: EvaluateGenerationConfig, prior: Prior | None, stop
) -> None:
    """Makes one asset in a folder of its own, which `text_to_3d --resume` could go on with.

    Args:
      asked: of what.
      route: how.
      folder: of the asset; what an earlier attempt left there is used.
      config: of the evaluation.
      prior: None where only the oracle is asked.
      stop: polled within stages.

    Raises:
      InputError: the route finds that its views show nothing.
    """
    began, resumed = time.monotonic(), workdir.holds_run(folder)
    settings = config.of_asset(asked.text, route, str(folder), resume=resumed)
    guide = _guide(asked, route, config, prior)
    workdir.open_workdir("text_to_3d", str(folder), resume=resumed, config=flags.to_dict(settings))
    asset = _MAKERS[config.oracle.representation if route == "oracle" else route](guide, settings, folder, stop)
    if resumed:  # seconds are then those of one attempt
        asset = dataclasses.replace(asset, numbers={**asset.numbers, "resumed": 1})
    results.write_asset(folder, asset, settings, stop, began=began)


def understands(asked: Caption, route: Route, prior: Prior | None) -> bool:
    """Whether a route knows all words of a caption; the oracle knows what the world can build."""
    if route == "oracle" or prior is None:
        return True
    try:
        check_prompt(asked.text, prior.vocabulary, most_words=LENGTH)
    except InputError:
        return False
    return True


def is_made(folder: pathlib.Path) -> bool:
    """Whether an asset is there, whole: metrics.json is written last."""
    return (folder / "asset.glb").is_file() and (folder / "metrics.json").is_file()


def numbers_of(folder: pathlib.Path) -> dict[str, typing.Any]:
    """What a run of `text_to_3d` measured.

    Raises:
      InputError: metrics.json is missing or damaged.
    """
    file = folder / "metrics.json"
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too long")
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not what a run of text_to_3d leaves: {error}") from error
    return found


def find_assets(place: str, routes: Sequence[Route]) -> tuple[list[Found], list[str]]:
    """All assets below a folder that were made by some routes, and a line for each that cannot be scored.

    Raises:
      InputError: there is no such folder, or no asset in it.
    """
    root = pathlib.Path(place).expanduser()
    if not root.is_dir():
        raise InputError(f"--assets={place} is not a folder; name one that holds runs of text_to_3d")
    found, refused, captions = [], [], {}
    for seen, file in enumerate(sorted(root.rglob("asset.glb"))):
        if seen >= _MOST_FOLDERS:
            raise InputError(f"--assets={place} holds more than {_MOST_FOLDERS:,} assets; name a folder with fewer")
        try:
            numbers = numbers_of(file.parent)
            text, route = numbers.get("prompt"), numbers.get("route")
            if not isinstance(text, str) or route not in typing.get_args(Route):
                raise ValueError("its metrics.json names no prompt and route")
            described = parse(text)
        except ValueError as error:
            refused.append(f"{file.parent}: {error}")
            continue
        if route in routes:
            number = captions.setdefault(text, len(captions))
            asked = Caption(split="given", index=number, text=text, description=described)
            found.append(Found(route=typing.cast("Route", route), caption=asked, folder=file.parent))
    if not found:
        why = f"; {refused[0]}" if refused else ""
        raise InputError(f"--assets={place} holds no asset of the routes {','.join(routes)}{why}")
    return found, refused


def _guide(asked: Caption, route: Route, config: EvaluateGenerationConfig, prior: Prior | None) -> guides.Guide:
    if route == "oracle":
        return guides.OracleGuide(asked.description, count=config.oracle.objects, seed=config.oracle.seed)
    if prior is None:
        raise ValueError(f"the route {route} needs a prior")
    return guides.PriorGuide(prior, asked.text)
