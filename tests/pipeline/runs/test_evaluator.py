"""A run that could not be measured as its settings say is refused before anything is trained."""

from pathlib import Path

import pytest

from pipeline.config.presets import load_config
from pipeline.data.dataset import read_dataset
from pipeline.errors import ConfigError, DataError
from pipeline.methods import method_of
from pipeline.runs.evaluator import plan_validation, refuse_unmeasurable
from pipeline.runs.open import open_run

SPLITS = {
    "everything": ("train", "val", "test"),
    "no val": ("train", "test"),
    "no test": ("train", "val"),
    "bare": ("train",),
}


def write_manifest(root: Path, splits: tuple[str, ...]) -> Path:
    """Two people a split, an image of each in either modality; the images are never opened."""
    lines = ["path,modality,camera,person,split"]
    for number, split in enumerate(splits):
        for person in (2 * number + 1, 2 * number + 2):
            for camera, modality in enumerate(("visible", "infrared"), start=1):
                path = root / f"{person}-{camera}.jpg"
                path.write_bytes(b"an image")
                lines.append(f"{path.name},{modality},{camera},{person},{split}")
    (root / "site.csv").write_text("\n".join(lines) + "\n")
    return root / "site.csv"


def config_of(root: Path, name: str, *changes: str):
    values = {"data": {"name": name, "root": str(root)}, "execution": {"device": "cpu", "tracking": False}}
    return load_config("cclnet-sysu", changes, values | {"name": "trial"})


def opened(config):
    return open_run(config, method_of(config))


@pytest.mark.parametrize("selection", ["last", "val", "test_best"])
@pytest.mark.parametrize("given", SPLITS)
def test_a_round_is_chosen_by_images_that_the_manifest_has(given, selection, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = write_manifest(tmp_path, SPLITS[given])
    config = config_of(manifest, "manifest", f"evaluation.selection={selection}")
    needed = {"last": "train", "val": "val", "test_best": "test"}[selection]
    if needed in SPLITS[given]:
        refuse_unmeasurable(read_dataset("manifest", manifest), config)
        return
    with (
        pytest.raises(ConfigError, match=f"'{selection}' needs .* images") as caught,
        opened(config),
    ):
        pass
    assert "evaluation.selection=last" in caught.value.hint
    assert not list(tmp_path.glob("runs/trial-*"))  # refused before there is a run


@pytest.mark.parametrize(
    ("name", "split", "selection", "accepted"),
    [
        *(("sysu", "train_val", selection, selection != "val") for selection in ("last", "val", "test_best")),
        *(("sysu", "train", selection, True) for selection in ("last", "val", "test_best")),
        *(("regdb", "1", selection, selection != "val") for selection in ("last", "val", "test_best")),
        *(("llcm", None, selection, selection != "val") for selection in ("last", "val", "test_best")),
    ],
)
def test_of_published_data_sets_the_settings_alone_say_what_can_be_chosen_by(
    name, split, selection, accepted, tmp_path
):
    changes = [f"evaluation.selection={selection}"] + ([] if split is None else [f"data.split={split}"])
    if accepted:
        assert config_of(tmp_path, name, *changes).evaluation.selection == selection
        return
    with pytest.raises(ConfigError, match="needs validation images"):
        config_of(tmp_path, name, *changes)


def test_a_direction_without_queries_is_refused_before_training(tmp_path):
    manifest = write_manifest(tmp_path, ("train", "test"))
    lines = manifest.read_text().replace(",test", ",gallery").splitlines()
    one_sided = [line.replace("gallery", "query") if ",infrared," in line else line for line in lines]
    manifest.write_text("\n".join(one_sided) + "\n")
    config = config_of(manifest, "manifest", 'evaluation.searches=["manifest/visible_to_infrared"]')
    with pytest.raises(DataError, match="no visible query image"), opened(config):
        pass


def test_a_draw_without_its_file_is_refused_before_training(smoke_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "sysu"
    root.mkdir()
    for entry in smoke_data.iterdir():
        if entry.name != "exp":
            (root / entry.name).symlink_to(entry)
    (root / "exp").mkdir()
    for entry in (smoke_data / "exp").iterdir():
        if entry.name != "rand_perm_cam.mat":
            (root / "exp" / entry.name).symlink_to(entry)
    config = config_of(root, "sysu", 'evaluation.draws=["official"]')
    with pytest.raises(DataError, match=r"rand_perm_cam\.mat"), opened(config):
        pass


def test_validation_of_a_manifest_is_searched_in_both_directions(tmp_path):
    manifest = write_manifest(tmp_path, ("train", "val"))
    plans = plan_validation(read_dataset("manifest", manifest), config_of(manifest, "manifest"))
    assert [plan[0].search.name for plan in plans] == [
        "manifest/site/val/infrared_to_visible/full",
        "manifest/site/val/visible_to_infrared/full",
    ]
