"""Which images a run has: without those that cannot be read, and the same at every start."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.cclnet import CclnetConfig
from pipeline.config.shared import DataConfig
from pipeline.data.dataset import Dataset, read_dataset
from pipeline.errors import CheckpointError, DataError
from pipeline.runs.images import check_images, check_skipped, compared_with_training, open_images
from pipeline.runtime.distributed import ALONE
from pipeline.storage.run_folder import RunFolder


@pytest.fixture
def people(smoke_data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(smoke_data, tmp_path / "people")


def skipping(config: CclnetConfig, root: Path) -> CclnetConfig:
    data = config.data.model_copy(update={"root": root, "unreadable": "skip"})
    return config.model_copy(update={"data": data})


def test_a_published_data_set_without_an_unreadable_image_is_partial(
    smoke_config: CclnetConfig, people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = read_dataset("sysu", people)
    assert dataset.test is not None
    trained, tested = dataset.training.images.visible.paths[3], dataset.test.images.infrared.paths[0]
    for path in (trained, tested):
        (people / path).write_bytes(b"")
    opened = open_images(skipping(smoke_config, people), dataset, tmp_path / "images", ALONE)
    assert opened.skipped == {trained: "an empty file", tested: "an empty file"}
    assert f"images cannot be read and are skipped: 2 empty: {trained}" in caplog.text
    left = opened.dataset
    assert left.partial and not dataset.partial and left.test is not None
    assert set(dataset.training.images.visible.paths) - set(left.training.images.visible.paths) == {trained}
    assert set(dataset.test.images.infrared.paths) - set(left.test.images.infrared.paths) == {tested}
    # Rows of the store are those of all images.
    rows = left.stored_rows(left.training.images.visible)
    paths = [dataset.images.visible.paths[row] for row in rows]
    assert paths == list(left.training.images.visible.paths)
    assert opened.store.arrays.visible[rows].any(axis=(1, 2, 3)).all()


def test_a_forgotten_image_stays_one_of_those_that_are_skipped(
    smoke_config: CclnetConfig, people: Path, tmp_path: Path
) -> None:
    dataset = read_dataset("sysu", people)
    first, second = dataset.training.images.visible.paths[:2]
    for path in (first, second):
        (people / path).write_bytes(b"")
    opened = open_images(skipping(smoke_config, people), dataset, tmp_path / "images", ALONE)
    with RunFolder.open(tmp_path / "run", {}, "digest") as folder:
        for recorded in ([first, second], [first, "forgotten/000001"], ["forgotten/000000", "forgotten/000001"]):
            folder.write_environment({"skipped": dict.fromkeys(recorded, "an empty file")})
            check_skipped(folder, opened)
        for recorded in ([first], ["forgotten/000000"], [first, second, "forgotten/000002"], [first, "other.jpg"]):
            folder.write_environment({"skipped": dict.fromkeys(recorded, "an empty file")})
            with pytest.raises(CheckpointError, match=f"started without {len(recorded)} images .* they are 2"):
                check_skipped(folder, opened)


def test_a_modality_without_a_readable_training_image_is_an_error(
    smoke_config: CclnetConfig, people: Path, tmp_path: Path
) -> None:
    dataset = read_dataset("sysu", people)
    for path in dataset.training.images.infrared.paths:
        (people / path).write_bytes(b"")
    with pytest.raises(DataError, match=r"none of \d+ infrared training images can be read"):
        open_images(skipping(smoke_config, people), dataset, tmp_path / "images", ALONE)


class TestSameImages:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Iterator[RunFolder]:
        with RunFolder.open(tmp_path / "run", {}, "digest") as folder:
            yield folder

    @staticmethod
    def dataset(folder: Path, name: str, splits: dict[str, str]) -> Dataset:
        """A manifest with a person of each split, whose images are called after the split's value."""
        lines = ["path,modality,camera,person,split"]
        for person, (split, image) in enumerate(splits.items()):
            for camera, modality in enumerate(("visible", "infrared")):
                (folder / f"{image}-{modality}.jpg").write_bytes(b"x")
                lines.append(f"{image}-{modality}.jpg,{modality},{camera},{person},{split}")
        (folder / name).write_text("\n".join(lines))
        return read_dataset("manifest", folder / name)

    def test_a_run_is_measured_on_its_own_images_or_on_a_table_of_tests(
        self, folder: RunFolder, tmp_path: Path
    ) -> None:
        own = self.dataset(tmp_path, "own.csv", {"train": "a", "test": "b"})
        other_test = self.dataset(tmp_path, "other.csv", {"train": "a", "test": "c"})
        only_test = self.dataset(tmp_path, "test.csv", {"test": "c"})
        check_images(folder, only_test, measuring=True)  # nothing is recorded yet
        folder.write_environment({"data": own.fingerprint})
        for measuring in (False, True):
            check_images(folder, own, measuring=measuring)
            with pytest.raises(CheckpointError, match="made with other test images"):
                check_images(folder, other_test, measuring=measuring)
        check_images(folder, only_test, measuring=True)
        with pytest.raises(CheckpointError, match="made with other test images"):
            check_images(folder, only_test)

    def test_a_table_of_tests_with_images_of_training_is_marked(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.dataset(tmp_path, "own.csv", {"train": "a", "test": "b"})
        own = DataConfig(name="manifest", root=tmp_path / "own.csv")
        assert not compared_with_training(self.dataset(tmp_path, "b.csv", {"test": "b"}), own).overlap
        assert not compared_with_training(self.dataset(tmp_path, "both.csv", {"train": "d", "test": "a"}), own).overlap
        assert compared_with_training(self.dataset(tmp_path, "a.csv", {"test": "a"}), own).overlap
        assert f"the run was trained on 2 of these images, first: {tmp_path}/a-infrared.jpg" in caplog.text
        gone = own.model_copy(update={"root": tmp_path / "gone.csv"})
        with caplog.at_level("INFO"):
            assert not compared_with_training(self.dataset(tmp_path, "a.csv", {"test": "a"}), gone).overlap
        assert "whether the run was trained on these images is unknown" in caplog.text

    def test_a_run_without_test_images_is_measured_on_any_but_keeps_its_training_images(
        self, folder: RunFolder, tmp_path: Path
    ) -> None:
        folder.write_environment({"data": self.dataset(tmp_path, "own.csv", {"train": "a"}).fingerprint})
        check_images(folder, self.dataset(tmp_path, "more.csv", {"train": "a", "test": "b"}), measuring=True)
        with pytest.raises(CheckpointError, match="made with other training images") as caught:
            check_images(folder, self.dataset(tmp_path, "new.csv", {"train": "d", "test": "b"}), measuring=True)
        assert "rows of split test only" in caught.value.hint
