"""Features in shards: merged they are the file of all images, and what does not belong together is refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from models.modality import Modality
from pipeline.data.image_files import AS_STORED
from pipeline.data.image_list import ImageList, list_images
from pipeline.errors import ConfigError, DataError, VireidError
from pipeline.evaluation.feature_files import read_features, read_record, read_vectors, write_feature_file
from pipeline.inference import embedded_files
from pipeline.inference.embedded_files import embed_shard_once, embed_to_file
from pipeline.inference.merged_features import merge_features
from pipeline.runtime import parquet_files
from pipeline.runtime.shards import Shard
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a shard are in several groups."""
    monkeypatch.setattr(parquet_files, "GROUP_ROWS", 2)


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    """Nine images in a manifest, modalities in turns, the last one unreadable."""
    rows = ["path,modality,camera,person,split"]
    for number in range(9):
        paint(tmp_path / f"{number}.png", (20 * number, 0, 0))
        rows.append(f"{number}.png,{'infrared' if number % 2 else 'visible'},c{number % 3},p{number % 4},test")
    (tmp_path / "8.png").write_bytes(b"no image")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    return list_images(tmp_path / "m.csv", None)


def shards(images: ImageList, folder: Path, suffix: str, count: int = 3) -> list[Path]:
    return [
        embed_shard_once(MeanEncoder(), images, folder / f"s{suffix}", Shard(number, count), batch_size=4)
        for number in range(1, count + 1)
    ]


def content(path: Path) -> Mapping[str, object]:
    found = read_features(path)
    assert found.cameras is not None and found.infrared is not None
    columns = (found.vectors, found.people, found.cameras, found.infrared)
    record = read_record(path)
    record.pop("merged_from", None)
    return {"paths": found.paths, "columns": [one.tolist() for one in columns], "record": record}


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("merged", [".npz", ".parquet"])
def test_shards_in_any_order_are_the_file_of_all_images(
    images: ImageList, tmp_path: Path, suffix: str, merged: str
) -> None:
    whole, out = tmp_path / f"whole{merged}", tmp_path / f"merged{merged}"
    assert embed_to_file(MeanEncoder(), images, whole, batch_size=4).unreadable == 1
    written = merge_features(out, shards(images, tmp_path, suffix)[::-1])
    assert (written.images, written.dim, written.unreadable, written.people_known) == (8, 12, 1, True)
    assert content(out) == content(whole)
    np.testing.assert_array_equal(read_vectors(out), read_vectors(whole))


def test_a_parquet_table_has_a_row_an_image_a_list_of_fixed_size_and_its_origin(
    images: ImageList, tmp_path: Path
) -> None:
    embed_to_file(MeanEncoder(), images, tmp_path / "f.parquet", batch_size=4)
    table = pyarrow.parquet.read_table(tmp_path / "f.parquet")
    assert table.schema.field("features").type == pyarrow.list_(pyarrow.float32(), 12)
    assert table.num_rows == 8 and table["paths"].to_pylist()[:3] == ["0.png", "2.png", "4.png"]
    record = read_record(tmp_path / "f.parquet")
    assert (record["encoder"], record["root"], record["modalities"]) == (
        "mean", str(tmp_path), ["visible", "infrared"],
    )  # fmt: skip
    with np.load(embed_out(images, tmp_path / "f.npz")) as archive:
        assert (str(archive["encoder"]), str(archive["root"])) == ("mean", str(tmp_path))


def embed_out(images: ImageList, path: Path) -> Path:
    embed_to_file(MeanEncoder(), images, path, batch_size=4)
    return path


def test_a_finished_shard_is_not_embedded_again_unless_the_encoder_is_another(
    images: ImageList, tmp_path: Path
) -> None:
    (first,) = shards(images, tmp_path, ".npz", 1)
    again, other = MeanEncoder(), MeanEncoder(digest="other")
    embed_shard_once(again, images, tmp_path / "s.npz", Shard(1, 1), batch_size=4)
    embed_shard_once(other, images, tmp_path / "s.npz", Shard(1, 1), batch_size=4)
    assert (again.encoded, other.encoded) == (0, 8)
    assert read_record(first)["encoder"] == "other"


def other_reading(encoder: MeanEncoder, images: ImageList) -> ImageList:
    encoder.reading = AS_STORED
    return images


def other_encoder(encoder: MeanEncoder, images: ImageList) -> ImageList:
    encoder.digest = "other"
    return images


def other_list(encoder: MeanEncoder, images: ImageList) -> ImageList:
    return images.only(np.arange(8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_reading, 'reading was {"orientation": "apply"'),
        (other_encoder, 'encoder was "mean" and is "other"'),
        (other_list, 'listed was {"count": 9,'),
    ],
)
def test_shards_of_different_inputs_are_refused(
    images: ImageList, tmp_path: Path, change: Callable[[MeanEncoder, ImageList], ImageList], message: str
) -> None:
    files, encoder = shards(images, tmp_path, ".npz"), MeanEncoder()
    files[1] = embed_shard_once(encoder, change(encoder, images), tmp_path / "o.npz", Shard(2, 3), batch_size=4)
    refused(tmp_path, files, message)


def refused(folder: Path, files: list[Path], message: str) -> None:
    with pytest.raises(VireidError) as caught:
        merge_features(folder / "all.parquet", files)
    assert message in caught.value.message and caught.value.hint
    assert not (folder / "all.parquet").exists() and all(file.exists() for file in files)


def test_a_shard_that_is_missing_doubled_incomplete_or_none_is_named(images: ImageList, tmp_path: Path) -> None:
    files = shards(images, tmp_path, ".npz")
    refused(tmp_path, files[:1] + files[2:], "shard 2 is missing")
    refused(tmp_path, [*files, files[0]], "are both shard 1/3")
    refused(tmp_path, [files[0], *shards(images, tmp_path, ".npz", 2)], "the shards are parts of 2 and of 3")
    refused(tmp_path, [embed_out(images, tmp_path / "whole.npz")], "whole.npz is no shard")
    record = {**read_record(files[1]), "unreadable": 2}
    with np.load(files[1]) as archive:
        columns = {name: archive[name] for name in ("features", "paths", "modalities")}
    write_feature_file(files[1], [columns], rows=2, record=record, option="--out")
    refused(tmp_path, files, "has 4 of the 3 images of its shard")
    short = columns | {"features": columns["features"][:1]}
    np.savez(files[1], record=json.dumps({**record, "unreadable": 1}), allow_pickle=False, **short)
    refused(tmp_path, files, f"{files[1]} is damaged: its arrays differ in length")
    write_feature_file(files[1], [columns], rows=2, record={**record, "listed": "nine"}, option="--out")
    refused(tmp_path, files, f"{files[1]} is damaged: listed")
    files[1].write_bytes(files[1].read_bytes()[:-100])
    refused(tmp_path, files, f"{files[1]} is")


def test_the_output_is_no_input_and_has_a_known_ending(images: ImageList, tmp_path: Path) -> None:
    files = shards(images, tmp_path, ".npz")
    with pytest.raises(ConfigError, match="is also an input"):
        merge_features(files[0], files)
    with pytest.raises(ConfigError, match=r"\.npz archive or a \.parquet table"):
        merge_features(tmp_path / "all.npy", files)
    theirs = tmp_path / "theirs.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"features": [1.0]}), theirs)
    with pytest.raises(ConfigError, match="does not contain features"):
        merge_features(theirs, files)


def test_more_shards_than_images_are_refused(images: ImageList, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shard 1/10 of 9 images is empty"):
        embed_to_file(MeanEncoder(), images, tmp_path / "f.npz", batch_size=4, shard=Shard(1, 10))


def test_a_parquet_shard_is_never_in_memory_as_a_whole(
    images: ImageList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, longest = shards(images, tmp_path, ".parquet"), list[int]()

    def written(path: Path, blocks: object, **rest: object) -> None:
        longest.extend(len(block["features"]) for block in blocks)  # type: ignore[attr-defined]

    monkeypatch.setattr("pipeline.inference.merged_features.write_feature_file", written)
    merge_features(tmp_path / "all.parquet", files)
    assert sum(longest) == 8 and max(longest) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"features": pyarrow.array([[1.0, 2.0], None])}, "rows without `features`"),
        ({"features": pyarrow.array([[1.0, 2.0], [3.0]])}, "different lengths"),
        ({"features": pyarrow.array([[1.0, 2.0], [3.0, None]])}, "different lengths, or with gaps"),
        ({"features": pyarrow.array([1.0, 2.0])}, "not a table of floating-point numbers"),
        ({"features": pyarrow.array([[1, 2]])}, "not a table of floating-point numbers"),
        ({"vector": pyarrow.array([[1.0, 2.0]])}, "has no array features; found: vector"),
    ],
)
def test_a_parquet_table_without_vectors_is_refused(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "f.parquet")
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path / "f.parquet")


def test_a_parquet_table_of_another_program_is_read(tmp_path: Path) -> None:
    columns = {"features": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "person_ids": [4, 5, 4], "paths": ["a", "b", "c"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "f.parquet")
    found = read_features(tmp_path / "f.parquet")
    assert found.vectors.tolist() == columns["features"] and found.vectors.dtype == np.float64
    assert found.people.tolist() == [4, 5, 4] and found.paths == ("a", "b", "c")
    assert read_record(tmp_path / "f.parquet") == {}


def test_names_that_are_no_utf8_and_a_damaged_record(images: ImageList, tmp_path: Path) -> None:
    vectors = np.eye(2, dtype=np.float32)
    columns = {"features": vectors, "paths": np.array(["\udcff.png", "b.png"])}
    file = write_feature_file(tmp_path / "f.parquet", [columns], rows=2, record={}, option="--out")
    assert pyarrow.parquet.read_table(file)["paths"].to_pylist() == ["\\udcff.png", "b.png"]
    np.savez(tmp_path / "f.npz", features=vectors, record=np.array("["))
    with pytest.raises(DataError, match="its record is no JSON object"):
        read_record(tmp_path / "f.npz")


def test_shards_follow_each_other() -> None:
    rows = [row for number in range(1, 8) for row in Shard(number, 7).rows_of(30)]
    assert rows == list(range(30))
    assert {len(Shard(number, 7).rows_of(30)) for number in range(1, 8)} == {4, 5}


def test_the_order_of_a_file_is_visible_first(images: ImageList) -> None:
    first = embedded_files.part_of(images, Shard(1, 3))
    assert first.paths == ("0.png", "2.png", "4.png") and not len(first.of(Modality.INFRARED))
