"""A data set that no source file knows: one spec and one protocol are all that reading, checking and searching need."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.modality import Modality, PerModality
from pipeline.config.datasets import DatasetOptions
from pipeline.config.shared import EvaluationConfig
from pipeline.data.check import CheckRow, DatasetCheck, SplitCounts
from pipeline.data.dataset import check_dataset, inspect_dataset, read_dataset, spec_of
from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.truth import Dataset, ImageRow, build_tables
from pipeline.errors import ConfigError
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.feature_files import ImageFeatures
from pipeline.evaluation.protocol import RetrievalTrial, Search
from pipeline.evaluation.protocols import PROTOCOLS, protocol_of
from pipeline.evaluation.protocols.spec import FileRules, GalleryDraws, SearchProtocol, count_rows, refuse_empty
from pipeline.evaluation.rank_files import Vectors, file_protocols, rank_files
from pipeline.evaluation.searches import plan_search, plan_test, plan_validation, samples_of

# TOY/{train,val,test}/{person}-{v,i}.png: one image of each person and modality, one camera, two published splits.
PEOPLE = {"train": (1, 2), "val": (3, 4), "test": (5, 6, 7)}
LETTERS = PerModality("v", "i")
OPTIONS = DatasetOptions(
    "toy", searches=("toy/dark",), settings=frozenset({"data.allow_partial"}), splits=("short", "long"),
    default_split="long", validation=("short", "long"),
)  # fmt: skip
PUBLISHED = {part: SplitCounts(len(people), PerModality(len(people), len(people))) for part, people in PEOPLE.items()}


def read_toy(root: Path, *, split: str, allow_partial: bool) -> Dataset:
    def tables(*parts):
        def rows(modality):
            found = (path for part in parts for path in (root / part).glob(f"*-{LETTERS[modality]}.png"))
            return tuple(ImageRow(int(path.name.partition("-")[0]), 1, str(path.relative_to(root))) for path in found)

        return build_tables(root, PerModality.build(rows), purpose=parts[0], advice="copy it again")

    training, test = tables("train"), tables("test")
    return Dataset(
        name="toy",
        kind="custom",
        root=root,
        images=tables("train", "val", "test").images,
        training=training,
        validation=tables("val"),
        test=test,
        partial=allow_partial,
        split=split,
    )


def check_toy(root: Path) -> DatasetCheck:
    counts = {part: len(list((root / part).glob("*.png"))) for part in PEOPLE}
    rows = tuple(CheckRow(f"{part}, images", sum(PUBLISHED[part].images), counts[part]) for part in PEOPLE)
    return DatasetCheck(rows=rows, offenders=())


def plan_toy(_search, samples, options):
    """Infrared images are looked for among visible ones; the split is part of the name."""
    search = Search(f"toy/{options.split}/dark", Modality.INFRARED, None, None, "person", "none")
    trial = RetrievalTrial(search, 0, samples.infrared.query_rows, samples.visible.gallery_rows)
    refuse_empty(trial)
    return [[trial]]


TOY = DatasetSpec(OPTIONS, read_toy, check_toy, "draw it yourself", PUBLISHED)
TOY_PROTOCOL = SearchProtocol(
    OPTIONS,
    plan_toy,
    validation=("dark",),
    files=FileRules(
        ("toy/dark",),
        query=Modality.INFRARED,
        count_rows=lambda _name, samples: count_rows(PUBLISHED["test"], samples),
    ),
)
DATA = (*DATASETS, TOY)
SEARCHED = (*PROTOCOLS, TOY_PROTOCOL)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part, people in PEOPLE.items():
        (tmp_path / part).mkdir()
        for person in people:
            for letter in LETTERS:
                Image.new("RGB", (8, 16), (person * 20, 0, 0)).save(tmp_path / part / f"{person}-{letter}.png")
    return tmp_path


def test_it_is_read_and_checked_by_name(root):
    dataset = read_dataset("toy", root, datasets=DATA)
    assert (dataset.name, dataset.split, len(dataset.training.images.visible)) == ("toy", "long", 2)
    assert read_dataset("toy", root, split="short", allow_partial=True, datasets=DATA).partial
    assert check_dataset("toy", root, datasets=DATA).passed
    assert inspect_dataset("toy", root, datasets=DATA).rows[-1].name == "images that cannot be decoded"
    (root / "test" / "7-v.png").unlink()
    assert [row.found for row in check_dataset("toy", root, datasets=DATA).failures] == [5]
    with pytest.raises(ConfigError, match=r"data\.images_root does not apply to data set toy"):
        read_dataset("toy", root, images_root=root, datasets=DATA)


def test_it_is_searched_by_its_own_protocol(root):
    dataset = read_dataset("toy", root, datasets=DATA)
    protocol, evaluation = protocol_of("toy", SEARCHED), EvaluationConfig()
    samples = samples_of(dataset.test)
    plans = plan_test(protocol, dataset, evaluation, final=True)
    assert plan_validation(protocol, dataset, evaluation)[0][0].search.name == "toy/long/dark"
    assert plan_search("toy/dark", samples, protocols=SEARCHED)[0][0].search.name == "toy/None/dark"
    # Person 5 is found first, 6 and 7 are taken for each other.
    visible = Vectors(np.eye(3, dtype=np.float32))
    infrared = Vectors(np.eye(3, dtype=np.float32)[[0, 2, 1]])
    (result,) = evaluate_features(PerModality(visible, infrared), samples, plans)
    assert (result.report.name, result.report.gallery) == ("toy/long/dark", 3)
    assert result.report.mean.r1 == pytest.approx(1 / 3)


def test_features_from_files_are_ranked_by_its_protocol():
    assert file_protocols(SEARCHED) == (*file_protocols(), "toy/dark")
    images = ImageFeatures(
        np.concatenate([np.eye(3, dtype=np.float32)] * 2), np.array([5, 6, 7] * 2), None, np.arange(6) >= 3, None
    )
    report, _ = rank_files(images, None, "toy/dark", protocols=SEARCHED)
    assert (report.partial, report.searches[0].mean.r1) == (False, 1.0)
    with pytest.raises(ConfigError, match="--trials is for sysu, llcm, not for toy/dark"):
        rank_files(images, None, "toy/dark", draws=GalleryDraws(trials=3), protocols=SEARCHED)


def test_no_other_place_knows_it(root):
    with pytest.raises(ConfigError, match="no data set 'toy'") as caught:
        spec_of("toy")
    assert caught.value.hint == "choose from: sysu, regdb, llcm, manifest"
    with pytest.raises(ConfigError, match="no search 'toy/dark'"):
        plan_search("toy/dark", samples_of(read_dataset("toy", root, datasets=DATA).test))
