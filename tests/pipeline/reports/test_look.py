"""`look_at` and its page, on the finished run of preset `smoke`: what is shown, what is missing, what is escaped."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.cclnet import CclnetConfig
from pipeline.data.dataset import read_dataset
from pipeline.errors import CheckpointError, ConfigError
from pipeline.reports import look_page
from pipeline.reports.look import Look, look_at
from pipeline.reports.look_page import write_look
from pipeline.runs.open import run_path
from pipeline.storage.label_files import RoundLabels, read_labels
from pipeline.storage.layout import labels_path
from pipeline.storage.run_folder import RunFolder
from tests.browser import chromium, needs_chromium
from tests.pipeline.reports.recorded_runs import make_run, row


class Page(HTMLParser):
    """Pictures with their texts, and every tag."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def pictures(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]

    @property
    def grey(self) -> list[str | None]:
        return [one["title"] for tag, one in self.tags if tag == "span" and "lost" in str(one.get("class"))]


@pytest.fixture
def run(finished_run: CclnetConfig) -> Path:
    return run_path(finished_run)


@pytest.fixture
def look(run: Path) -> Look:
    return look_at(run)


def test_paths_are_those_of_the_images_that_were_clustered(run: Path, smoke_data: Path, look: Look) -> None:
    dataset = read_dataset("sysu", smoke_data, split="train_val")
    for modality, paths in look.paths.items():
        assert sorted(paths) == sorted(dataset.training.images[modality].paths)
        assert paths != dataset.training.images[modality].paths, "they are in the shuffled order of training"
    # The order is right if the people of the paths give the recorded diagnostics.
    precision = look.run.rounds[look.number]["diagnostics/matching/precision"]
    wrong = [look.is_wrong(place) for place in look.order]
    assert 1 - np.mean(wrong) == pytest.approx(precision)


def test_pairs_ascend_by_certainty_and_every_cluster_is_in_a_pair_or_without(look: Look) -> None:
    margins = look.pairs.margin[look.order]
    assert margins.tolist() == sorted(margins.tolist())
    for modality, count in (("visible", look.pairs.visible), ("infrared", look.pairs.infrared)):
        found = sorted([*count.tolist(), *getattr(look.unmatched, modality)])
        assert found == list(range(len(getattr(look.sizes, modality))))


def test_the_strip_of_a_cluster_begins_with_its_most_typical_image(look: Look) -> None:
    for modality, similarity in look.similarity.items():
        shown = similarity[look.typical(modality, 0)]
        assert shown.tolist() == sorted(shown.tolist(), reverse=True)


def test_the_page_needs_nothing_else_and_shows_everything(look: Look, tmp_path: Path) -> None:
    assert write_look(look, tmp_path / "look.html") == (0, 0)
    page = Page(tmp_path / "look.html")
    assert "synthetic" in page.text
    assert {one["id"] for tag, one in page.tags if tag == "h2"} == {
        "pairs", "unmatched", "largest", "outliers", "changes", "queries",
    }  # fmt: skip
    assert f"{len(look.pairs)} pairs" in page.text and "Worst queries" in page.text
    assert page.pictures and page.grey == []
    for one in page.pictures:
        assert one["loading"] == "lazy" and str(one["src"]).startswith("data:image/webp;base64,")
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    assert ("meta", "width=device-width") in [(tag, one.get("content")) for tag, one in page.tags if "name" in one]
    assert not re.search(r"width: *\d{3,}px", (tmp_path / "look.html").read_text().partition("</style>")[0])


def test_images_that_have_moved_are_grey_and_counted(look: Look, tmp_path: Path) -> None:
    moved = replace(look, base=tmp_path / "elsewhere")
    missing, _ = write_look(moved, tmp_path / "look.html")
    page = Page(tmp_path / "look.html")
    assert missing > 0 and page.pictures == []
    assert f"{missing} images are not in {tmp_path / 'elsewhere'} any more" in page.text


def test_images_beyond_the_limit_are_omitted_and_counted(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_page, "LIMIT", 20_000)
    missing, omitted = write_look(look, tmp_path / "look.html")
    assert missing == 0 and omitted > 0
    assert f"{omitted} images are omitted" in Page(tmp_path / "look.html").text


def test_names_of_files_are_escaped(look: Look, tmp_path: Path) -> None:
    name = '"><script>alert(1)</script>&\udcff.jpg'
    paths = replace(look.paths, visible=tuple(f"{name}{row}" for row in range(len(look.paths.visible))))
    write_look(replace(look, paths=paths, people=None), tmp_path / "look.html")
    page = Page(tmp_path / "look.html")
    assert "script" not in [tag for tag, _ in page.tags]
    assert any("<script>" in str(title) for title in page.grey)


def test_without_the_data_set_there_are_no_people_and_a_note(run: Path, tmp_path: Path) -> None:
    found = look_at(run, 1, data_root=tmp_path / "absent")
    assert found.people is None and found.is_wrong(0) is None
    assert found.synthetic, "the run's report still tells"
    assert "absent" in found.notes[0]
    assert found.changes is None, "there is no round before the first"


def test_a_moved_data_set_is_named_by_an_option(run: Path, smoke_data: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke_data, tmp_path / "moved")
    assert look_at(run, data_root=tmp_path / "moved").base == tmp_path / "moved"


def test_worst_queries_are_those_of_the_round(look: Look) -> None:
    assert look.queries is not None
    ranks = [one.rank for one in look.queries.worst]
    assert ranks == sorted(ranks, reverse=True) and look.queries.search == "sysu/all/1-shot/agw"


def test_a_round_that_does_not_exist_is_one_error(run: Path) -> None:
    with pytest.raises(ConfigError, match="has no round 99: its finished rounds are 1 to 4"):
        look_at(run, 99)


def test_labels_of_an_earlier_version_are_one_error(run: Path) -> None:
    labels = read_labels(run, 4)
    assert labels is not None
    with RunFolder.reopen(run) as folder:
        folder.save_labels(4, RoundLabels(labels.clusterings))
    with pytest.raises(CheckpointError, match="an earlier version wrote it"):
        look_at(run)
    assert look_at(run, 3).changes is not None, "other rounds are shown"


def test_a_run_without_labels_names_the_pages_that_exist(run: Path, tmp_path: Path) -> None:
    labels_path(run, 4).unlink()
    with pytest.raises(CheckpointError, match="no label file of round 4"):
        look_at(run, 4)
    made = make_run(tmp_path / "supervised", [row(1)])
    with pytest.raises(CheckpointError, match="has no label files") as caught:
        look_at(made)
    assert "vireid compare" in caught.value.hint


@needs_chromium
@pytest.mark.slow
def test_the_page_opens_without_a_server_and_fits_a_phone(look: Look, tmp_path: Path) -> None:
    page = tmp_path / "look.html"
    write_look(look, page)
    with chromium(tmp_path / "profile") as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        browser.open(page.as_uri())
        browser.wait_for_text("Pairs, from the least")
        browser.wait("[...document.images].slice(0, 8).every(one => one.complete && one.naturalWidth > 0)")
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.outside() == []
