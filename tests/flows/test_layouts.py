"""The whole method on drawn people in the layout of every data set, each measured by its own protocol."""

from pathlib import Path

import pytest

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.data.synthetic.writer import generate_dataset
from tests.flows.plain_runs import run_plainly

# Twelve trained people and eight or twelve to be found; the searches, and who is looked for among whom.
PUBLISHED = {
    "regdb": [
        ("regdb/split-2/infrared_to_visible", "infrared_to_visible", "image", "none", 1),
        ("regdb/split-2/visible_to_infrared", "visible_to_infrared", "image", "none", 1),
    ],
    "llcm": [
        ("llcm/infrared_to_visible/1-shot/agw", "infrared_to_visible", "person", "same_person_same_camera", 2),
        ("llcm/visible_to_infrared/1-shot/agw", "visible_to_infrared", "person", "same_person_same_camera", 2),
    ],
    "manifest": [
        ("manifest/manifest/infrared_to_visible/full", "infrared_to_visible", "person", "none", 1),
        ("manifest/manifest/visible_to_infrared/full", "visible_to_infrared", "person", "none", 1),
    ],
}


def test_the_method_runs_on_people_in_one_modality_only(smoke_config: CclnetConfig, tmp_path: Path) -> None:
    data = tmp_path / "data"
    generate_dataset(data, size="smoke", difficulty="easy", height=64, width=32, workers=1, unpaired=0.5)
    changes = ["matching.method=mutual", "swap.mode=off", "loss.contrast=unified", "stages.prepare_rounds=1"]
    config = load_config("smoke", changes, {**smoke_config.model_dump(mode="json"), "data": {"root": str(data)}})
    report = run_plainly(config)
    assert report is not None and report.data.kind == "drawn"


@pytest.mark.slow
@pytest.mark.parametrize("layout", PUBLISHED)
def test_the_method_runs_on_every_layout(layout: str, smoke_tree: dict[str, object], tmp_path: Path) -> None:
    # SYSU-MM01's own layout is what all other flow tests run on.
    data = tmp_path / "data"
    generate_dataset(data, size="smoke", layout=layout, difficulty="easy", height=64, width=32, workers=1)
    values = {
        **smoke_tree,
        "data": {"name": layout, "root": str(data), "split": 2 if layout == "regdb" else None},
        # Galleries are drawn for LLCM alone: two of them.
        "evaluation": {"every": 1} | ({"trials": 2} if layout == "llcm" else {}),
        "execution": {"device": "cpu", "runs_folder": str(tmp_path / "runs"), "tracking": False, "figures": False},
    }
    report = run_plainly(load_config("smoke", (), values))
    assert report is not None
    found = [(one.name, one.direction, one.rank_by, one.exclude, len(one.trials)) for one in report.searches]
    assert found == PUBLISHED[layout]
    assert report.data.kind == "drawn"
    assert report.data.trial == (2 if layout == "regdb" else None)
    forward, backward = report.searches
    assert {forward.queries, backward.queries} == {report.data.infrared, report.data.visible}
    if layout == "regdb":
        # Half of the people, ten images of each in either modality: every image is a query and in a gallery.
        assert (forward.queries, forward.gallery) == (backward.gallery, backward.queries)
        assert report.data.visible == report.data.infrared
    if layout == "llcm":
        # Some of the people were seen by one camera in both modalities: these pairs are never shown.
        assert forward.hidden_pairs > 0 and backward.hidden_pairs > 0
