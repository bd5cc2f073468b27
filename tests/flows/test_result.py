"""Which round is a run's result, what it is measured by, and that it is measured on the images it was made with."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config, validate_config
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.evaluation.feature_files import read_features
from pipeline.evaluation.protocols.spec import GalleryDraws
from pipeline.evaluation.rank_files import rank_files
from pipeline.methods import method_of
from pipeline.runs.open import reopen_run, run_path
from pipeline.storage.run_folder import RunFolder
from tests.flows.plain_runs import run_plainly


def changed(config: CclnetConfig, **sections: dict[str, object]) -> CclnetConfig:
    tree = config.model_dump(mode="json")
    for section, values in sections.items():
        tree[section] |= values
    return validate_config(tree)


def rounds_of(config: CclnetConfig) -> list[dict[str, float]]:
    with RunFolder.reopen(run_path(config)) as folder:
        return folder.read_metrics()


def test_the_last_round_is_also_measured_by_the_official_galleries(smoke_config: CclnetConfig) -> None:
    config = changed(smoke_config, evaluation={"shots": (1, 2), "rerank": "k_reciprocal"})
    report = run_plainly(config)
    assert report is not None
    plain = [
        f"sysu/{search}/{shots}-shot/{draw}"
        for search in ("all", "indoor")
        for draw in ("agw", "official")
        for shots in (1, 2)
    ]
    assert [search.name for search in report.searches] == plain + [f"{name}/k_reciprocal" for name in plain]
    first, *_, last = rounds_of(config)
    names = {name for name in first if name.startswith("test/")}
    # Earlier rounds are measured without what is for the result alone.
    assert {name.rsplit("/", 1)[0] for name in names} == {f"test/{name}" for name in plain if "agw" in name}
    assert "test/sysu/all/2-shot/official/k_reciprocal/map" in last


def test_without_the_file_of_official_orders_there_is_no_official_gallery(
    smoke_config: CclnetConfig, tmp_path: Path
) -> None:
    data = copy_of(smoke_config.data.root, tmp_path / "copy")
    (data / "exp" / "rand_perm_cam.mat").unlink()
    config = changed(smoke_config, data={"root": str(data)}, stages={"prepare_rounds": 1, "clip_rounds": 0})
    report = run_plainly(config)
    assert report is not None
    assert [search.draw for search in report.searches] == ["agw", "agw"]
    asked = changed(config, evaluation={"draws": ["official"]})
    with pytest.raises(Exception, match=r"rand_perm_cam\.mat"):
        run_plainly(asked)


def test_the_round_that_is_best_on_test_is_the_result_only_where_asked_and_says_so(
    smoke_config: CclnetConfig,
) -> None:
    config = changed(smoke_config, evaluation={"selection": "test_best"})
    report = run_plainly(config)
    assert report is not None
    scores = [row["test/sysu/all/1-shot/agw/r1"] for row in rounds_of(config)]
    best = int(np.argmax(scores)) + 1  # the first of equally good rounds
    assert (report.model.round, report.model.selection) == (best, "test_best")
    assert report.searches[0].mean.r1 == scores[best - 1]
    assert report.last is not None
    assert report.last.round == len(scores)
    assert report.last.searches[0].mean.r1 == scores[-1]
    assert "optimistic" in report.warnings[0]
    # What is measured again later is the chosen round as well.
    with reopen_run(run_path(config), method_of, data_root=None, device="cpu") as (run, evaluator):
        assert evaluator.measure_to_files(run) == report


def test_a_round_is_chosen_by_people_that_are_held_out(smoke_config: CclnetConfig) -> None:
    config = changed(smoke_config, data={"split": "train"}, evaluation={"selection": "val"})
    report = run_plainly(config)
    assert report is not None
    scores = [row["val/sysu/val/1-shot/agw/map"] for row in rounds_of(config)]
    assert report.model.round == int(np.argmax(scores)) + 1
    assert report.validation[0].name == "sysu/val/1-shot/agw"
    assert report.validation[0].mean.map == max(scores)
    assert report.data.split == "train"
    assert not [warning for warning in report.warnings if "optimistic" in warning]


def test_choosing_by_validation_needs_people_that_are_held_out() -> None:
    with pytest.raises(ConfigError, match="needs validation images"):
        load_config("cclnet-sysu", ["evaluation.selection=val"])
    with pytest.raises(ConfigError, match="needs validation images"):
        load_config("cclnet-regdb", ["evaluation.selection=val"])


@pytest.mark.slow
def test_choosing_a_round_changes_no_weight_of_the_last(smoke_config: CclnetConfig, tmp_path: Path) -> None:
    checkpoints = []
    for selection in ("last", "test_best"):
        config = changed(
            smoke_config,
            evaluation={"selection": selection},
            execution={"runs_folder": str(tmp_path / selection)},
        )
        run_plainly(config)
        with RunFolder.reopen(run_path(config)) as folder:
            checkpoints.append(folder.load_checkpoint())
    last, chosen = checkpoints
    assert last is not None and chosen is not None
    assert last["selected"] is None and chosen["selected"] is not None
    assert all(torch.equal(last["encoder"][name], chosen["encoder"][name]) for name in last["encoder"])


def test_exported_features_give_the_same_numbers_to_anybody(finished_run: CclnetConfig, tmp_path: Path) -> None:
    report = run_plainly(finished_run)
    assert report is not None
    exported, queries = tmp_path / "features.npz", tmp_path / "queries.npz"
    with reopen_run(run_path(finished_run), method_of, data_root=None, device="cpu") as (run, evaluator):
        assert evaluator.measure_to_files(run, exported, queries) == report
    for protocol in ("sysu/all", "sysu/indoor"):
        draws = GalleryDraws(trials=2)
        (one,) = rank_files(read_features(exported), None, protocol, draws=draws, allow_partial=True)[0].searches
        (same,) = (search for search in report.searches if search.name == f"{protocol}/1-shot/agw")
        assert one == dataclasses.replace(same, mean=one.mean, trials=one.trials, deviation=one.deviation)
        assert dataclasses.astuple(one.mean) == pytest.approx(dataclasses.astuple(same.mean), abs=1e-12)
    with np.load(queries, allow_pickle=False) as found:
        valid = found["sysu/all/1-shot/agw/trial-0/valid"]
        precision = found["sysu/all/1-shot/agw/trial-0/average_precision"]
    assert precision[valid].mean() == pytest.approx(report.searches[0].trials[0].map, abs=1e-12)


def test_a_run_is_not_measured_on_other_images(finished_run: CclnetConfig, tmp_path: Path) -> None:
    other = copy_of(finished_run.data.root, tmp_path / "other")
    # A trained and a tested person who were seen by the same cameras change places: no count differs.
    lists = PerSplit(
        *((other / "exp" / f"{split}_id.txt").read_text().strip().split(",") for split in ("train", "test"))
    )
    trained, tested = next(
        (one, another)
        for one in lists.train
        for another in lists.test
        if cameras_of(other, one) == cameras_of(other, another)
    )
    for split, members, leaves, comes in (
        ("train", lists.train, trained, tested),
        ("test", lists.test, tested, trained),
    ):
        changed_list = ",".join(comes if person == leaves else person for person in members)
        (other / "exp" / f"{split}_id.txt").write_text(changed_list)
        (other / "exp" / f"{split}_id.mat").unlink()
    with (
        pytest.raises(CheckpointError, match="made with other training images"),
        reopen_run(run_path(finished_run), method_of, data_root=other, device="cpu"),
    ):
        pass


def test_a_moved_data_set_is_the_same_data_set(finished_run: CclnetConfig, tmp_path: Path) -> None:
    report = run_plainly(finished_run)
    assert report is not None
    moved = copy_of(finished_run.data.root, tmp_path / "my_cam3_0001" / "moved")
    with reopen_run(run_path(finished_run), method_of, data_root=moved, device="cpu") as (run, evaluator):
        assert dataclasses.replace(evaluator.measure_to_files(run), model=report.model) == report


def test_a_data_set_that_is_not_there_is_named_with_the_option_for_it(finished_run: CclnetConfig) -> None:
    file = run_path(finished_run) / "config.json"
    file.write_text(file.read_text().replace(str(finished_run.data.root), "people"))
    with (
        pytest.raises(DataError, match="was trained on people, which is not there: there is no") as caught,
        reopen_run(run_path(finished_run), method_of, data_root=None, device="cpu"),
    ):
        pass
    assert caught.value.hint == "name the data set with --data"


@dataclasses.dataclass
class PerSplit:
    train: list[str]
    test: list[str]


def cameras_of(root: Path, person: str) -> set[str]:
    return {path.parent.name for path in root.glob(f"cam*/{int(person):04d}")}


def copy_of(folder: Path | None, place: Path) -> Path:
    assert folder is not None
    shutil.copytree(folder, place)
    return place
