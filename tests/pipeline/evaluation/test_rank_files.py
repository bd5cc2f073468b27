"""Features from files under every protocol: what is read, what is refused, and that the numbers are those of a run."""

import io
import random
import zipfile
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from models.modality import Modality, PerModality
from pipeline.data.images import ImageTable
from pipeline.data.truth import PersonIds, SplitTables
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.feature_files import (
    ImageFeatures,
    read_features,
    read_vectors,
    write_features,
    write_queries,
)
from pipeline.evaluation.protocols.spec import GalleryDraws, GalleryRules
from pipeline.evaluation.rank_files import file_protocols, rank_files
from pipeline.evaluation.searches import DIRECTIONS, plan_search, samples_of
from tests.fresh_process import run_fresh
from tests.pipeline.evaluation.layout import random_features, small_layout

TO_VISIBLE, TO_INFRARED = DIRECTIONS
ARRAYS = {
    "features": np.eye(3, 4, dtype=np.float32),
    "person_ids": np.array([5, 0, 5]),
    "cameras": np.array([1, 2, 3]),
    "modalities": np.array(["visible", "visible", "infrared"]),
    "paths": np.array(["cam1/0005/1.jpg", "cam2/0000/1.jpg", "cam3/0005/1.jpg"]),
}


def written(folder, **changes):
    """A feature file of three images; a change to None leaves an array out."""
    arrays = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
    np.savez(folder / "features.npz", **arrays)
    return folder / "features.npz"


# ---- reading ----


def test_a_feature_file_is_read_as_it_was_written(tmp_path):
    images = read_features(written(tmp_path))
    assert images.vectors.dtype == np.float32
    assert np.array_equal(images.vectors, ARRAYS["features"])
    assert images.people.tolist() == [5, 0, 5]
    assert images.cameras.tolist() == [1, 2, 3]
    assert images.infrared.tolist() == [False, False, True]
    assert images.paths == tuple(ARRAYS["paths"].tolist())
    assert len(images) == 3


def test_only_features_and_people_are_needed(tmp_path):
    images = read_features(written(tmp_path, cameras=None, modalities=None, paths=None))
    assert (images.cameras, images.infrared, images.paths) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "held"),
    [
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.dtype(">f4"), np.float32),
        (np.dtype(">f8"), np.float64),
    ],
)
def test_every_precision_is_read_without_a_loss(tmp_path, given, held):
    values = np.array([[0.5, 1.0], [0.25, 2.0**-14], [-3.0, 0.1]]).astype(given)
    images = read_features(written(tmp_path, features=values))
    assert images.vectors.dtype == np.dtype(held)
    assert np.array_equal(images.vectors, values)


@pytest.mark.parametrize("integer", [np.uint8, np.int16, np.uint32, np.int32, np.int64])
def test_people_and_cameras_may_be_integers_of_any_size(tmp_path, integer):
    people, cameras = np.array([5, 0, 5], dtype=integer), np.array([1, 2, 3], dtype=integer)
    images = read_features(written(tmp_path, person_ids=people, cameras=cameras))
    assert images.people.dtype == images.cameras.dtype == np.int64
    assert images.people.tolist() == [5, 0, 5]


def test_strings_may_be_bytes_or_of_another_byte_order(tmp_path):
    modalities, paths = ARRAYS["modalities"].astype("S"), ARRAYS["paths"].astype(">U20")
    images = read_features(written(tmp_path, modalities=modalities, paths=paths))
    assert images.infrared.tolist() == [False, False, True]
    assert images.paths == tuple(ARRAYS["paths"].tolist())


def npy_of(shape, data=b""):
    """An array file with any shape in its header."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


@pytest.mark.parametrize("read", [read_features, read_vectors])
def test_a_size_that_an_array_only_claims_is_not_allocated(tmp_path, read):
    (tmp_path / "huge.npy").write_bytes(npy_of((10**12, 4)))
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        for name in ("features", "person_ids"):
            archive.writestr(f"{name}.npy", npy_of((10**12, 4), bytes(64)))
    with pytest.raises(DataError, match="claims 16,000,000,000,000 bytes of"):
        read(tmp_path / "huge.npz")
    with pytest.raises(DataError, match=r"claims 16,000,000,000,000 bytes of|is no \.npz archive"):
        read(tmp_path / "huge.npy")


@pytest.mark.parametrize("read", [read_features, read_vectors])
def test_an_archive_that_becomes_far_larger_than_it_is_is_not_unpacked(tmp_path, read):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("person_ids.npy", npy_of((1,), bytes(4)))
        with archive.open("features.npy", "w") as entry:
            entry.write(npy_of((300, 2**18)))
            for _ in range(300):
                entry.write(bytes(2**20))
    with pytest.raises(DataError, match="bytes that claim to become 314,"):
        read(tmp_path / "bomb.npz")


@pytest.mark.parametrize("read", [read_features, read_vectors])
def test_an_array_that_an_archive_has_twice_is_refused(tmp_path, read):
    path = written(tmp_path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("features.npy", npy_of((1, 1), bytes(4)))
    with pytest.raises(DataError, match="holds 'features' twice"):
        read(path)


TABLE = np.random.default_rng(1).normal(size=(6, 4))
TABLES = [
    TABLE, TABLE.astype(np.float16), TABLE.astype(">f4"), TABLE.astype(">f8"), np.asfortranarray(TABLE), TABLE[:1],
    TABLE[::2], TABLE[:0], TABLE[:, :0], TABLE[0], TABLE[None], TABLE.astype(complex), TABLE.astype(np.longdouble),
    (TABLE * 9).astype(np.int32), TABLE > 0, TABLE.astype(str), TABLE.astype(object), np.float32(3.0),
    np.zeros((6, 4), dtype=[("a", "f4")]),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(TABLES)))
def test_label_and_rank_take_the_same_features(tmp_path, number):
    """As a file of its own, mapped ones included, and in an archive, for both readers."""
    features = np.asarray(TABLES[number])
    np.savez(tmp_path / "all.npz", features=features, person_ids=np.arange(len(features) if features.ndim else 0))
    np.save(tmp_path / "lone.npy", features)

    def outcome(read, name):
        try:
            return read(tmp_path / name)
        except DataError:
            return None

    ranked, labelled, lone = (
        outcome(lambda path: read_features(path).vectors, "all.npz"),
        outcome(read_vectors, "all.npz"),
        outcome(read_vectors, "lone.npy"),
    )
    assert (ranked is None) == (labelled is None) == (lone is None) == (number > 6)
    if ranked is not None:
        for one in (ranked, labelled, lone):
            assert one.dtype in (np.float32, np.float64) and one.dtype.isnative and one.flags.c_contiguous
            assert np.array_equal(one, features)


def test_other_arrays_of_any_kind_are_not_looked_at(tmp_path):
    images = read_features(written(tmp_path, settings=np.array([{"lr": 1}], dtype=object), widths=np.arange(7)))
    assert len(images) == 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"features": None}, r"has no array features; found: person_ids, cameras, modalities, paths"),
        ({"person_ids": None}, r"has no array person_ids"),
        ({"features": np.eye(3, dtype=np.int64)}, r"`features` is int64 \[3, 3\]"),
        ({"features": np.ones(3, np.float32)}, r"`features` is float32 \[3\]"),
        ({"features": np.ones((3, 2, 2), np.float32)}, r"`features` is float32 \[3, 2, 2\]"),
        ({"features": np.ones((3, 0), np.float32)}, r"`features` is float32 \[3, 0\]"),
        ({"features": np.ones((3, 2), complex)}, r"`features` is complex128"),
        ({"features": np.ones((3, 2), np.longdouble)}, r"`features` is "),
        ({"person_ids": np.array([5.0, 0.0, 5.0])}, r"`person_ids` is float64, not integers"),
        ({"person_ids": np.array(["a", "b", "c"])}, r"`person_ids` is <U1, not integers"),
        ({"person_ids": np.array([True, False, True])}, r"`person_ids` is bool, not integers"),
        ({"person_ids": np.array([5, 0])}, r"`person_ids` is \[2\] for 3 features"),
        ({"person_ids": np.array([[5, 0, 5]])}, r"`person_ids` is \[1, 3\] for 3 features"),
        ({"person_ids": np.array([5, -1, -1])}, r"`person_ids` row 1 is -1"),
        ({"cameras": np.array([1.0, 2.0, 3.0])}, r"`cameras` is float64, not integers"),
        ({"cameras": np.array([1, 2, 3, 4])}, r"`cameras` is \[4\] for 3 features"),
        ({"modalities": np.array(["visible"])}, r"`modalities` is \[1\] for 3 features"),
        ({"modalities": np.array(["visible", "rgb", "thermal"])}, r"`modalities` row 1 is 'rgb'"),
        ({"modalities": np.array(["visible", "Infrared", "infrared"])}, r"`modalities` row 1 is 'Infrared'"),
        ({"modalities": np.array([0, 0, 1])}, r"`modalities` is int64, not strings"),
        ({"modalities": np.zeros(3, dtype=[("a", "f4")])}, r"`modalities` holds no plain numbers or strings"),
        ({"modalities": np.array(["2026-01-01"] * 3, "M8[D]")}, r"`modalities` holds no plain numbers or strings"),
        ({"paths": np.array([1, 2, 3])}, r"`paths` is int64, not strings"),
        ({"paths": np.array([b"a", b"b", b"\xff"])}, r"`paths` holds bytes that are not UTF-8"),
        ({"paths": np.array(["a.jpg", "b.jpg", "a.jpg"])}, r"`paths` names a\.jpg 2 times"),
        ({"paths": np.array(["a", "b"])}, r"`paths` is \[2\] for 3 features"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, problem):
    path = written(tmp_path, **changes)
    with pytest.raises(DataError, match=problem) as caught:
        read_features(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


class RunsCode:
    """Unpickling this writes a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["features", "person_ids", "cameras", "modalities", "paths"])
def test_a_pickled_array_is_refused_and_nothing_of_it_is_run(tmp_path, name):
    trace = tmp_path / "trace"
    path = written(tmp_path, **{name: np.array([RunsCode(trace)] * 3, dtype=object)})
    with pytest.raises(DataError, match=f"`{name}` holds no plain numbers or strings"):
        read_features(path)
    assert not trace.exists()
    # The trap is armed: whoever allows it runs the code.
    np.load(path, allow_pickle=True)[name]
    assert trace.exists()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*none\.npz"):
        read_features(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"is no \.npz archive: it is a folder"):
        read_features(tmp_path)


@pytest.mark.parametrize("content", [b"", b"features", b"PK\x03\x04", b"\x80\x04K\x01.", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "features.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"features\.npz is no \.npz archive"):
        read_features(path)


def test_a_lone_array_is_no_archive(tmp_path):
    np.save(tmp_path / "features.npy", ARRAYS["features"])
    with pytest.raises(DataError, match=r"features\.npy is no \.npz archive"):
        read_features(tmp_path / "features.npy")


def test_an_archive_of_other_things_holds_no_features(tmp_path):
    path = tmp_path / "features.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features", "1 2 3")
        archive.writestr("other.npy", "1")
    with pytest.raises(DataError, match="has no array features, person_ids"):
        read_features(path)


def test_an_archive_behind_something_else_is_refused(tmp_path):
    path = written(tmp_path)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    with pytest.raises(DataError, match=r"is no \.npz archive"):
        read_features(path)


@pytest.mark.parametrize("packed", [np.savez, np.savez_compressed])
def test_damage_anywhere_is_refused(tmp_path, packed):
    path = tmp_path / "features.npz"
    packed(path, features=np.tile(np.arange(50, dtype=np.float32), (40, 1)), person_ids=np.arange(40))
    whole = path.read_bytes()
    for place in range(130, len(whole), 1 + len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            images = read_features(path)
        except DataError:
            continue
        # Bytes that no array is made of, such as the date of a member: the content is what it was.
        assert np.array_equal(images.vectors[0], np.arange(50))
        assert np.array_equal(images.people, np.arange(40))
    path.write_bytes(whole[:-40])
    with pytest.raises(DataError, match="its end is missing"):
        read_features(path)


# ---- the published test sets, as counts alone ----

SYSU_COUNTS = {1: (1374, 56), 2: (1565, 56), 3: (1883, 93), 4: (1918, 94), 5: (1918, 95), 6: (1920, 96)}
VALIDATION_COUNTS = {3: (1980, 99), 4: (990, 99), 5: (984, 96)}


def spread(images, people):
    """Who is on each image: as evenly as it goes, ascending."""
    return np.sort(np.arange(images) % people) + 1


def images_of(people, cameras, infrared, width=8, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((len(people), width)).astype(np.float32)
    return ImageFeatures(vectors, people, cameras, infrared, None)


def sysu_images(counts=None):
    """As many images a camera as SYSU-MM01 has, people 1 to 96; no modalities and no paths."""
    counts = counts or SYSU_COUNTS
    people = np.concatenate([spread(*pair) for pair in counts.values()])
    cameras = np.concatenate([np.full(pair[0], camera) for camera, pair in counts.items()])
    return images_of(people, cameras, None)


def two_sided_images(visible, infrared, people, cameras=1):
    """As many images a modality as RegDB or LLCM has; one a person and camera after another."""
    ids = np.concatenate([spread(visible, people), spread(infrared, people)])
    taken_by = np.concatenate([np.arange(visible) % cameras, np.arange(infrared) % cameras]) + 1
    return images_of(ids, taken_by, np.arange(visible + infrared) >= visible)


PUBLISHED = {
    "sysu/all": sysu_images,
    "sysu/indoor": sysu_images,
    "sysu/val": lambda: sysu_images(VALIDATION_COUNTS),
    "regdb": lambda: two_sided_images(2060, 2060, 206),
    "llcm": lambda: two_sided_images(8680, 7166, 351, cameras=9),
}
ONE_TRIAL = GalleryDraws(trials=1)


def one_trial(protocol):
    """Of RegDB there is one trial only, and no number of trials to set."""
    return None if protocol == "regdb" else ONE_TRIAL


def subset(images, rows):
    """Some images, in the order asked for."""
    rows = np.arange(len(images))[rows]
    columns = {name: None if (one := getattr(images, name)) is None else one[rows] for name in ("cameras", "infrared")}
    paths = None if images.paths is None else tuple(images.paths[row] for row in rows)
    return ImageFeatures(images.vectors[rows], images.people[rows], **columns, paths=paths)


@pytest.mark.parametrize("protocol", PUBLISHED)
def test_the_published_counts_are_accepted(protocol):
    report, _ = rank_files(PUBLISHED[protocol](), None, protocol, draws=one_trial(protocol))
    assert not report.partial
    assert report.protocol == protocol
    expected = {
        "sysu/all": [(3803, 301)],
        "sysu/indoor": [(3803, 112)],
        "sysu/val": [(1980, 195)],
        "regdb": [(2060, 2060), (2060, 2060)],
    }
    if protocol in expected:
        assert [(search.queries, search.gallery) for search in report.searches] == expected[protocol]
    else:
        assert [search.queries for search in report.searches] == [7166, 8680]
        assert [search.direction for search in report.searches] == list(DIRECTIONS)
    if protocol == "sysu/all":
        # 56 people in camera 2, excluded from 1,883 queries.
        assert report.searches[0].hidden_pairs == 56 * 1883


def test_random_features_score_as_chance_does_on_regdb():
    for search in rank_files(two_sided_images(2060, 2060, 206), None, "regdb")[0].searches:
        # Ten of 2,060 images match: Rank-1 is 1/206. The mean average precision of a random order is .0084 (computed).
        assert search.chance_r1 == pytest.approx(1 / 206)
        assert search.near_chance
        for found, value in ((search.mean.r1, 1 / 206), (search.mean.map, 0.0084)):
            assert found == pytest.approx(value, abs=4 * (value * (1 - value) / 2060) ** 0.5)


@pytest.mark.parametrize(
    ("protocol", "people", "problem"),
    [
        ("sysu/all", [7], "images of camera 6: found 1,921, expected 1,920"),
        ("sysu/all", [300], "people: found 97, expected 96; images of camera 6: found 1,921, expected 1,920"),
        ("sysu/indoor", [7, 7], "images of camera 6: found 1,922, expected 1,920"),
        ("sysu/val", [7], "images of camera 6: found 1, expected 0"),
        ("regdb", [7], "infrared images: found 2,061, expected 2,060"),
        ("regdb", [300], "infrared images: found 2,061, expected 2,060; people: found 207, expected 206"),
        ("llcm", [7], "infrared images: found 7,167, expected 7,166"),
        ("llcm", [352], "people: found 352, expected 351"),
    ],
)
def test_extra_images_are_refused_with_found_against_expected(protocol, people, problem):
    images, extra = PUBLISHED[protocol](), np.array(people)
    more = ImageFeatures(
        np.concatenate([images.vectors, np.ones((len(extra), 8), np.float32)]),
        np.concatenate([images.people, extra]),
        np.concatenate([images.cameras, np.full(len(extra), 6)]),
        None if images.infrared is None else np.concatenate([images.infrared, np.ones(len(extra), bool)]),
        None,
    )
    with pytest.raises(DataError, match=f"these are not the test images of {protocol}: .*{problem}") as caught:
        rank_files(more, None, protocol, draws=one_trial(protocol))
    assert "--allow-partial" in caught.value.hint


def test_missing_images_are_refused_unless_allowed_and_then_marked():
    images = subset(sysu_images(), slice(0, -1))
    with pytest.raises(DataError, match="camera 6: found 1,919, expected 1,920"):
        rank_files(images, None, "sysu/all", draws=ONE_TRIAL)
    report, _ = rank_files(images, None, "sysu/all", draws=ONE_TRIAL, allow_partial=True)
    assert report.partial
    assert report.to_dict()["partial"] is True
    assert report.searches[0].queries == 3802


def test_cameras_that_a_search_does_not_look_at_may_be_left_out_but_not_hold_something_else():
    images = sysu_images()
    indoor = subset(images, np.isin(images.cameras, (1, 2, 3, 6)))
    assert not rank_files(indoor, None, "sysu/indoor", draws=ONE_TRIAL)[0].partial
    with pytest.raises(DataError, match="camera 4: found 0, expected 1,918; images of camera 5: found 0"):
        rank_files(indoor, None, "sysu/all", draws=ONE_TRIAL)
    with pytest.raises(DataError, match="images of camera 4: found 1,917, expected 1,918"):
        rank_files(subset(images, np.arange(len(images)) != 5000), None, "sysu/indoor", draws=ONE_TRIAL)
    elsewhere = replace(images, cameras=np.where(np.arange(len(images)) == 5000, 9, images.cameras))
    with pytest.raises(DataError, match="images of other cameras: found 1, expected 0"):
        rank_files(elsewhere, None, "sysu/indoor", draws=ONE_TRIAL)


# ---- small sets, which are partial ----


def small(protocol, width=16):
    """Tables and features of a small set in the layout of a protocol."""
    tables = small_layout(people=8, images=4) if protocol.startswith("sysu") else two_sided_tables()
    return tables, random_features(tables, width, seed=0)


def two_sided_tables():
    """Six people, two cameras with both modalities; two or three images of each person, camera and modality."""

    def rows(modality):
        return [
            (person, camera, f"{modality}/{person}/cam{camera}/{number}.jpg")
            for person in range(1, 7)
            for camera in (1, 2)
            for number in range(2 + (modality is Modality.VISIBLE))
        ]

    images = PerModality.build(
        lambda modality: ImageTable(
            Path("data"),
            tuple(path for *_, path in rows(modality)),
            np.array([camera for _, camera, _ in rows(modality)]),
            modality,
        )
    )
    people = PerModality.build(lambda modality: PersonIds(np.array([person for person, *_ in rows(modality)])))
    return SplitTables(images, people)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The images of a small set, from the file that they were written to."""
    folder = tmp_path_factory.mktemp("features")

    @cache
    def of_layout(sysu):
        tables, features = small("sysu" if sysu else "pairs")
        return read_features(write_features(folder / f"sysu-{sysu}.npz", features, tables))

    return lambda protocol: of_layout(protocol.startswith("sysu"))


def numbers_of(report):
    """Every number of a search, flat."""
    record = asdict(report)
    flat = [value for trial in record["trials"] for value in (*trial["cmc"], trial["map"], trial["minp"])]
    flat += [*record["mean"].values(), *(record["deviation"] or {}).values(), record["chance_r1"]]
    return [*flat, record["queries"], record["valid_queries"], record["gallery"], record["hidden_pairs"]]


@pytest.mark.parametrize("rerank", ["none", "k_reciprocal"])
@pytest.mark.parametrize("protocol", ["sysu/all", "sysu/indoor", "sysu/val", "regdb", "llcm"])
def test_exported_features_reproduce_the_numbers_of_a_run(tmp_path, protocol, rerank):
    tables, features = small(protocol, width=64)
    samples = samples_of(tables)
    searches = (
        ["sysu/all", "sysu/indoor", "sysu/val"]
        if protocol.startswith("sysu")
        else [f"{protocol}/{direction}" for direction in DIRECTIONS]
    )
    split, draws = (4, None) if protocol == "regdb" else (None, GalleryDraws(trials=3))
    plans = [plan for search in searches for plan in plan_search(search, samples, split=split, draws=draws)]
    run = {result.report.name: result.report for result in evaluate_features(features, samples, plans, rerank=rerank)}
    path = write_features(tmp_path / "new folder" / "features.npz", features, tables)
    images = read_features(path)
    report, _ = rank_files(images, None, protocol, split=split, draws=draws, rerank=rerank, allow_partial=True)
    assert len(report.searches) == (1 if protocol.startswith("sysu") else 2) * (2 if rerank != "none" else 1)
    for search in report.searches:
        assert numbers_of(search) == pytest.approx(numbers_of(run[search.name]), abs=1e-12)
    assert report.order == "paths"
    assert (report.visible, report.infrared) == tuple(map(len, tables.images))


@pytest.mark.parametrize("protocol", [*PUBLISHED, "pairs"])
def test_one_file_and_two_files_give_the_same_numbers(exported, protocol):
    everything = exported(protocol)
    infrared = subset(everything, everything.infrared)
    visible = subset(everything, ~everything.infrared)
    together, _ = rank_files(everything, None, protocol, allow_partial=True)
    (to_visible,) = rank_files(infrared, visible, protocol, allow_partial=True)[0].searches
    assert to_visible == together.searches[0]
    if not protocol.startswith("sysu"):
        (to_infrared,) = rank_files(visible, infrared, protocol, allow_partial=True)[0].searches
        assert (to_visible, to_infrared) == together.searches
        assert (to_visible.direction, to_infrared.direction) == DIRECTIONS


@pytest.mark.parametrize("protocol", ["regdb", "pairs"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_with_two_files_the_direction_says_which_modality_each_holds(exported, protocol, direction):
    everything = exported(protocol)
    (expected,) = rank_files(everything, None, protocol, direction=direction, allow_partial=True)[0].searches
    assert expected.direction == direction
    is_query = everything.infrared if direction == TO_VISIBLE else ~everything.infrared
    query, gallery = (replace(subset(everything, rows), infrared=None) for rows in (is_query, ~is_query))
    found, _ = rank_files(query, gallery, protocol, direction=direction, allow_partial=True)
    assert found.searches == (expected,)
    with pytest.raises(DataError, match=f"{protocol} needs `modalities`") as caught:
        rank_files(query, gallery, protocol, allow_partial=True)
    assert "--direction" in caught.value.hint


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("draw", ["agw", "official"])
def test_without_paths_the_order_of_rows_stands_for_that_of_files(exported, draw, shots):
    protocol, images = "sysu/all", exported("sysu/all")
    generator = np.random.default_rng(5)
    permutations = {
        (camera, person): np.array([1 + generator.permutation(images) for _ in range(10)])
        for (person, camera), images in folder_sizes(images).items()
    }
    draws = GalleryDraws((draw,), (shots,), permutations=permutations)
    named, _ = rank_files(images, None, protocol, draws=draws, allow_partial=True)
    nameless, _ = rank_files(replace(images, paths=None), None, protocol, draws=draws, allow_partial=True)
    assert (named.order, nameless.order) == ("paths", "rows")
    assert nameless.searches == named.searches
    assert named.searches[0].name == f"{protocol}/{shots}-shot/{draw}"
    # Rows of a folder in another order are other images: with paths nothing changes, without them the gallery does.
    order = generator.permutation(len(images))
    moved = subset(images, order)
    by_path, _ = rank_files(moved, None, protocol, draws=draws, allow_partial=True)
    by_row, _ = rank_files(replace(moved, paths=None), None, protocol, draws=draws, allow_partial=True)
    assert numbers_of(by_path.searches[0]) == pytest.approx(numbers_of(named.searches[0]), abs=1e-12)
    assert numbers_of(by_row.searches[0]) != pytest.approx(numbers_of(named.searches[0]), abs=1e-3)


def folder_sizes(images):
    pairs, counts = np.unique(np.stack([images.people, images.cameras], axis=1), axis=0, return_counts=True)
    return {tuple(pair): int(count) for pair, count in zip(pairs.tolist(), counts, strict=True)}


# ---- refusals ----


@pytest.mark.parametrize("camera", [3, 6, 1, 5])
def test_sysu_cameras_that_contradict_the_modalities_are_refused(exported, camera):
    images = exported("sysu/all")
    row = int(np.flatnonzero(images.cameras == camera)[2])
    wrong = images.infrared.copy()
    wrong[row] = not wrong[row]
    says = "visible" if camera in (3, 6) else "infrared"
    with pytest.raises(DataError, match=rf"{images.paths[row]}: camera {camera}, but `modalities` is {says}"):
        rank_files(replace(images, infrared=wrong), None, "sysu/all", allow_partial=True)
    with pytest.raises(DataError, match=rf"^row {row}: camera {camera}"):
        rank_files(replace(images, infrared=wrong, paths=None), None, "sysu/all", allow_partial=True)
    # Without modalities, the cameras say it.
    derived, _ = rank_files(replace(images, infrared=None), None, "sysu/all", allow_partial=True)
    assert derived == rank_files(images, None, "sysu/all", allow_partial=True)[0]


@pytest.mark.parametrize(
    ("protocol", "missing", "array"),
    [
        ("sysu/all", "cameras", "cameras"),
        ("sysu/val", "cameras", "cameras"),
        ("llcm", "cameras", "cameras"),
        ("llcm", "infrared", "modalities"),
        ("regdb", "infrared", "modalities"),
        ("pairs", "infrared", "modalities"),
    ],
)
def test_an_array_that_the_protocol_needs_is_named(exported, protocol, missing, array):
    images = replace(exported(protocol), **{missing: None})
    with pytest.raises(DataError, match=f"{protocol} needs `{array}`"):
        rank_files(images, None, protocol, allow_partial=True)


def test_pairs_without_cameras_hide_nothing_and_cannot_be_asked_to(exported):
    images = replace(exported("pairs"), cameras=None)
    report, _ = rank_files(images, None, "pairs")
    assert [(search.exclude, search.hidden_pairs) for search in report.searches] == [("none", 0), ("none", 0)]
    assert rank_files(images, None, "pairs", rules=GalleryRules(exclude="none"))[0] == report
    for exclude in ("same_person_same_camera", "same_camera"):
        with pytest.raises(DataError, match=f"--exclude {exclude} needs `cameras`"):
            rank_files(images, None, "pairs", rules=GalleryRules(exclude=exclude))


def test_the_rules_of_pairs_are_those_that_were_given(exported):
    images = exported("pairs")
    # Visible: 6 people x 2 cameras x 3 images; infrared x 2. In the own camera: 2 x 3 pairs a person and camera.
    for exclude, excluded in ((None, 72), ("none", 0), ("same_person_same_camera", 72), ("same_camera", 432)):
        rules = GalleryRules(exclude=exclude, rank_by="image")
        for search in rank_files(images, None, "pairs", rules=rules)[0].searches:
            assert search.hidden_pairs == excluded
            assert search.rank_by == "image"
            assert search.name == f"pairs/{search.direction}/full"
            assert len(search.trials) == 1


def test_an_unknown_protocol_is_refused_with_the_known_ones(exported):
    with pytest.raises(ConfigError, match="no protocol 'sysu'") as caught:
        rank_files(exported("sysu/all"), None, "sysu")
    assert all(protocol in caught.value.hint for protocol in file_protocols())


def test_sysu_has_one_direction(exported):
    images = exported("sysu/all")
    with pytest.raises(ConfigError, match="sysu/all has no visible queries"):
        rank_files(images, None, "sysu/all", direction=TO_INFRARED, allow_partial=True)
    asked, _ = rank_files(images, None, "sysu/all", direction=TO_VISIBLE, allow_partial=True)
    assert asked == rank_files(images, None, "sysu/all", allow_partial=True)[0]


@pytest.mark.parametrize(
    ("option", "is_for"),
    [
        ({"draws": GalleryDraws(shots=(10,))}, {"sysu"}),
        ({"draws": GalleryDraws(draws=("official",))}, {"sysu"}),
        ({"rules": GalleryRules(rank_by="person")}, {"pairs"}),
        ({"rules": GalleryRules(exclude="none")}, {"pairs"}),
        ({"split": 3}, {"regdb"}),
        ({"draws": GalleryDraws(trials=3)}, {"sysu", "llcm"}),
    ],
)
@pytest.mark.parametrize("protocol", file_protocols())
def test_an_option_of_another_protocol_is_refused_and_not_passed_over(exported, protocol, option, is_for):
    images = exported(protocol)
    if protocol.partition("/")[0] in is_for:
        if option.get("draws", GalleryDraws()).draws == ("agw",):
            rank_files(images, None, protocol, **option, allow_partial=True)
        return
    with pytest.raises(ConfigError, match=f"is for .*{next(iter(is_for))}.*, not for {protocol}"):
        rank_files(images, None, protocol, **option, allow_partial=True)


def test_features_of_two_widths_are_refused(exported):
    images = exported("pairs")
    narrow = replace(images, vectors=images.vectors[:, 1:])
    with pytest.raises(DataError, match="queries have 16 dimensions, the gallery 15"):
        rank_files(images, narrow, "pairs")


@pytest.mark.parametrize(("column", "array"), [("cameras", "cameras"), ("infrared", "modalities"), ("paths", "paths")])
def test_what_one_file_says_the_other_must_say(exported, column, array):
    images = exported("pairs")
    less = replace(images, **{column: None})
    for query, gallery in ((images, less), (less, images)):
        with pytest.raises(DataError, match=f"only one of the two files has `{array}`"):
            rank_files(query, gallery, "pairs")


@pytest.mark.parametrize("protocol", list(PUBLISHED))
def test_an_image_in_the_wrong_one_of_two_files_is_refused_and_not_left_out(exported, protocol):
    everything = exported(protocol)
    infrared, visible = (subset(everything, rows) for rows in (everything.infrared, ~everything.infrared))
    # Half of the gallery came with the queries: the counts are right, and the gallery would be drawn from the rest.
    half = len(visible) // 2
    mixed = subset(everything, np.argsort(~everything.infrared, kind="stable")[: len(infrared) + half])
    rest = subset(visible, slice(half, None))
    with pytest.raises(DataError, match=rf"{half} of {len(mixed)} images in the file of the queries are visible"):
        rank_files(mixed, rest, protocol, allow_partial=True)
    if protocol.startswith("sysu"):
        with pytest.raises(
            DataError, match=f"{len(visible)} of {len(visible)} images .* queries are visible"
        ) as caught:
            rank_files(visible, infrared, protocol, allow_partial=True)
        assert "infrared images with --query" in caught.value.hint


def test_pairs_of_one_modality_have_nothing_to_search_in(exported):
    images = exported("pairs")
    visible = subset(images, ~images.infrared)
    with pytest.raises(DataError, match="no direction has both queries and gallery images"):
        rank_files(visible, visible, "pairs")


def test_of_two_files_with_both_modalities_each_keeps_its_role(exported):
    images = exported("pairs")
    # The last two of six people are asked for: 8 of 24 infrared images, 12 of 36 visible ones.
    query, gallery = subset(images, images.people > 4), subset(images, images.people > 2)
    to_visible, to_infrared = rank_files(query, gallery, "pairs", rules=GalleryRules(exclude="none"))[0].searches
    assert (to_visible.queries, to_visible.gallery) == (8, 24)
    assert (to_infrared.queries, to_infrared.gallery) == (12, 16)


@pytest.mark.parametrize(("value", "problem"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "all zeros")])
@pytest.mark.parametrize("raw", [False, True])
def test_a_row_without_a_direction_has_the_number_that_its_file_gives_it(exported, value, problem, raw):
    images = exported("pairs")
    row = int(np.flatnonzero(images.infrared)[2])
    vectors = images.vectors.copy()
    vectors[row] = value
    broken = replace(images, vectors=vectors)
    with pytest.raises(DataError, match=rf"features: row {row} \({images.paths[row]}\) .*{problem}"):
        rank_files(broken, None, "pairs", raw=raw)
    with pytest.raises(DataError, match=rf"features: row {row} .*{problem}"):
        rank_files(replace(broken, paths=None), None, "pairs", raw=raw)
    infrared, visible = (subset(broken, rows) for rows in (images.infrared, ~images.infrared))
    with pytest.raises(DataError, match=r"queries: row 2 "):
        rank_files(infrared, visible, "pairs", raw=raw)
    with pytest.raises(DataError, match=r"gallery: row 2 "):
        rank_files(visible, infrared, "pairs", raw=raw)


def test_queries_without_a_match_are_counted_and_all_of_them_are_an_error(exported):
    images = exported("pairs")
    stranger = images.infrared & (images.people == 6)
    people = np.where(stranger, 99, images.people)
    to_visible, to_infrared = rank_files(replace(images, people=people), None, "pairs")[0].searches
    # Four of 24 infrared images show somebody else; then six of 36 visible images of person 6 have no match.
    assert (to_visible.queries, to_visible.valid_queries) == (24, 20)
    assert (to_infrared.queries, to_infrared.valid_queries) == (36, 30)
    nobody = np.where(images.infrared, images.people + 100, images.people)
    with pytest.raises(DataError, match="none of 24 queries has a match in the gallery"):
        rank_files(replace(images, people=nobody), None, "pairs", direction=TO_VISIBLE)


# ---- options that change numbers ----


def test_raw_features_are_compared_as_they_are():
    # The query points to (1, 0). Person 1 stands at 1 in its direction, person 2 at 45 degrees and length 10.
    vectors = np.array([[1, 0], [1, 0], [7.07, 7.07]], dtype=np.float32)
    images = ImageFeatures(vectors, np.array([1, 1, 2]), None, np.array([True, False, False]), None)
    cosine, _ = rank_files(images, None, "pairs", direction=TO_VISIBLE)
    product, _ = rank_files(images, None, "pairs", direction=TO_VISIBLE, raw=True)
    assert (cosine.normalised, product.normalised) == (True, False)
    # By angle the match is first; by inner product, 7.07 against 1, second.
    assert (cosine.searches[0].mean.r1, cosine.searches[0].mean.map) == (1.0, 1.0)
    assert (product.searches[0].mean.r1, product.searches[0].mean.map) == (0.0, 0.5)


def test_the_precision_of_a_file_is_kept(tmp_path):
    # The two gallery vectors differ in the tenth digit: two float64 vectors, one float32.
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [1.0 + 1e-10, 0.0]])
    raw = ImageFeatures(vectors, np.array([1, 2, 1]), None, np.array([True, False, False]), None)
    assert rank_files(raw, None, "pairs", direction=TO_VISIBLE, raw=True)[0].searches[0].mean.r1 == 1.0
    narrow = replace(raw, vectors=raw.vectors.astype(np.float32))
    # Equal in float32: a tie, and the gallery's order decides.
    assert rank_files(narrow, None, "pairs", direction=TO_VISIBLE, raw=True)[0].searches[0].mean.r1 == 0.0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_direction_may_be_asked_for_alone(exported, direction):
    images = exported("llcm")
    (alone,) = rank_files(images, None, "llcm", direction=direction, allow_partial=True)[0].searches
    both = rank_files(images, None, "llcm", allow_partial=True)[0].searches
    assert alone == both[DIRECTIONS.index(direction)]


def test_a_split_of_regdb_is_in_the_name(exported):
    images = exported("regdb")
    names = [search.name for search in rank_files(images, None, "regdb", split=7, allow_partial=True)[0].searches]
    assert names == [f"regdb/split-7/{direction}" for direction in DIRECTIONS]
    names = [search.name for search in rank_files(images, None, "regdb", allow_partial=True)[0].searches]
    assert names == [f"regdb/one-split/{direction}" for direction in DIRECTIONS]


def test_reranked_numbers_are_searches_of_their_own(exported):
    images = exported("sysu/all")
    report, _ = rank_files(images, None, "sysu/all", rerank="k_reciprocal", allow_partial=True)
    assert [(search.name, search.rerank) for search in report.searches] == [
        ("sysu/all/1-shot/agw", None),
        ("sysu/all/1-shot/agw/k_reciprocal", "k_reciprocal"),
    ]
    assert report.searches[0] == rank_files(images, None, "sysu/all", allow_partial=True)[0].searches[0]


# ---- what each query found ----


@pytest.mark.parametrize("files", [1, 2])
def test_what_each_query_found_is_written_with_the_rows_of_the_files(tmp_path, files):
    # Infrared and visible rows mixed. Query: row 1 of person 1, row 3 of person 3, whom no gallery image shows.
    vectors = np.array([[0.8, 0.6], [1, 0], [1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    infrared = np.array([False, True, False, True, False])
    people = np.array([1, 1, 2, 3, 1])
    images = ImageFeatures(vectors, people, None, infrared, None)
    if files == 1:
        _, results = rank_files(images, None, "pairs", direction=TO_VISIBLE, keep_queries=True)
    else:
        query, gallery = subset(images, infrared), subset(images, ~infrared)
        _, results = rank_files(query, gallery, "pairs", keep_queries=True)
    with np.load(write_queries(tmp_path / "folder" / "queries.npz", results), allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    name = f"pairs/{TO_VISIBLE}/full/trial-0"
    assert set(found) == {
        f"{name}/{column}"
        for column in ("query", "rank", "average_precision", "inverse_negative_penalty", "valid", "best")
    }
    assert found[f"{name}/query"].tolist() == ([1, 3] if files == 1 else [0, 1])
    # Row 1 meets row 2 (1.0, person 2), row 0 (.8), row 4 (.6): positions 2 and 3 of person 1.
    assert found[f"{name}/valid"].tolist() == [True, False]
    assert found[f"{name}/rank"][0] == 2
    assert found[f"{name}/average_precision"][0] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found[f"{name}/inverse_negative_penalty"][0] == pytest.approx(2 / 3)
    # Row 3 meets row 4 (.8), row 0 (.6), row 2 (0). In a file of their own, rows 0 2 4 are 0 1 2.
    best = [[2, 0, 4], [4, 0, 2]] if files == 1 else [[1, 0, 2], [2, 0, 1]]
    assert found[f"{name}/best"].tolist() == [row + [-1] * 7 for row in best]


def test_every_trial_and_search_has_its_own_queries(exported, tmp_path):
    images = exported("sysu/all")
    draws = GalleryDraws(shots=(1, 2), trials=2)
    report, results = rank_files(images, None, "sysu/all", draws=draws, keep_queries=True, allow_partial=True)
    with np.load(write_queries(tmp_path / "queries.npz", results), allow_pickle=False) as archive:
        assert len(archive.files) == 6 * 4
        for search in report.searches:
            for trial in search.trials:
                name = f"{search.name}/trial-{trial.trial}"
                rows, valid = archive[f"{name}/query"], archive[f"{name}/valid"]
                assert np.array_equal(rows, np.flatnonzero(np.isin(images.cameras, (3, 6))))
                assert archive[f"{name}/average_precision"][valid].mean() == pytest.approx(trial.map)
                assert (archive[f"{name}/rank"][valid] <= 5).mean() == pytest.approx(trial.cmc[4])
                best = archive[f"{name}/best"]
                # Nothing that is excluded is listed: no camera 2 for a query of camera 3.
                dark = images.cameras[rows] == 3
                assert not np.any(images.cameras[best[dark]] == 2)
                assert np.any(images.cameras[best[~dark]] == 2)
    assert all(result.queries == () for result in rank_files(images, None, "sysu/all", allow_partial=True)[1])


def test_the_draw_is_that_of_the_seeded_generator(exported):
    # Rows shuffled, so that neither rows nor tables are in the order of files.
    images = exported("llcm")
    images = subset(images, np.random.default_rng(6).permutation(len(images)))
    _, (to_visible, _) = rank_files(images, None, "llcm", keep_queries=True, allow_partial=True)
    folders = {}
    for row in sorted(np.flatnonzero(~images.infrared), key=lambda row: images.paths[row]):
        folders.setdefault((images.people[row], images.cameras[row]), []).append(row)
    for one in to_visible.queries:
        generator = random.Random(one.trial.number)
        assert one.trial.gallery.tolist() == [generator.choice(folders[folder]) for folder in sorted(folders)]


# ---- cost ----


def test_ranking_files_needs_no_torch(tmp_path):
    tables, features = small("sysu/all")
    path = write_features(tmp_path / "features.npz", features, tables)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import flows.cli.features\n"
        f"flows.cli.features.rank(Path({str(path)!r}), 'sysu/all', allow_partial=True, rerank=True, trials=2)\n"
        "assert not {'torch', 'open_clip', 'prefect', 'mlflow'} & set(sys.modules)\n"
    )
    assert "sysu/all/1-shot/agw" in run_fresh(program)
