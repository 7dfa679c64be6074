"""Assets of earlier runs are found, what is no asset is named, and settings reach the runs that make them."""

import json

import pytest

from experiments.errors import InputError
from experiments.evaluation import assets, captions
from experiments.evaluation.settings import EvaluateGenerationConfig
from experiments.generation.settings import MeshConfig


def left_by_a_run(folder, prompt, route):
    folder.mkdir(parents=True)
    (folder / "asset.glb").write_bytes(b"")
    (folder / "metrics.json").write_text(json.dumps({"prompt": prompt, "route": route, "seconds": 12.5}))


def test_assets_are_found_by_route_and_grouped_by_caption(tmp_path):
    left_by_a_run(tmp_path / "b" / "deep", "a red box", "mesh")
    left_by_a_run(tmp_path / "a", "a red box", "splats")
    left_by_a_run(tmp_path / "c", "a green dog", "mesh")
    left_by_a_run(tmp_path / "d", "what is this", "mesh")
    left_by_a_run(tmp_path / "e", "a red box", "magic")
    (tmp_path / "e2").mkdir()
    (tmp_path / "e2" / "asset.glb").write_bytes(b"")
    found, refused = assets.find_assets(str(tmp_path), ("mesh", "splats"))
    assert [(each.route, each.caption.text, each.caption.index) for each in found] == [
        ("splats", "a red box", 0), ("mesh", "a red box", 0), ("mesh", "a green dog", 1)
    ]  # fmt: skip
    assert len(refused) == 3 and all(str(tmp_path) in line and "\n" not in line for line in refused)
    assert len(assets.find_assets(str(tmp_path), ("mesh",))[0]) == 2
    assert assets.is_made(tmp_path / "a") and not assets.is_made(tmp_path / "e2")
    assert assets.numbers_of(tmp_path / "a")["seconds"] == 12.5


def test_a_folder_without_assets_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="--assets"):
            assets.find_assets(str(place), ("mesh",))
    left_by_a_run(tmp_path / "a", "a red box", "nerf")
    (tmp_path / "a" / "metrics.json").write_text("[1")
    with pytest.raises(InputError, match="not what a run of text_to_3d leaves"):
        assets.find_assets(str(tmp_path), ("nerf",))


def test_settings_reach_the_run_of_an_asset():
    config = EvaluateGenerationConfig(
        seed=5, steps=7, candidates=2, mesh=MeshConfig(faces=500), guidance=3.0, weights="w", max_seconds=60.0
    )
    found = config.of_asset("a red box", "mesh", "/place", resume=True)
    assert (found.prompt, found.route, found.workdir, found.resume) == ("a red box", "mesh", "/place", True)
    assert (found.seed, found.steps, found.candidates, found.guidance, found.weights) == (5, 7, 2, 3.0, "w")
    assert found.mesh.faces == 500 and found.turntable_frames == 0
    assert found.max_seconds is None  # that is the evaluation's


def test_words_that_a_prior_does_not_know_are_no_failure_of_its_routes():
    class Told:
        vocabulary = ("a", "red", "box")

    boxes, lamps = captions.caption_set("fixed", 1)[0], captions.caption_set("family", 1)[0]
    assert assets.understands(lamps, "oracle", Told())  # type: ignore[arg-type]
    assert not assets.understands(lamps, "mesh", Told())  # type: ignore[arg-type]
    assert not assets.understands(boxes, "mesh", Told())  # type: ignore[arg-type]  "sphere"
