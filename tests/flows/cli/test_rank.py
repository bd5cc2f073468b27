"""`vireid rank` as its users call it: a table or JSON on stdout, wrong input as one error with a hint."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from tests.flows.command_line import Call

NUMBERS = ("Rank-1", "Rank-5", "Rank-10", "Rank-20", "mAP", "mINP", "queries", "gallery", "excluded", "trials")


@pytest.fixture
def vireid(vireid: Call) -> Call:
    """Call `vireid rank`."""
    return lambda *arguments: vireid("rank", *map(str, arguments))


def feature_file(path: Path, images: dict[int, tuple[int, ...]], **changes: np.ndarray) -> Path:
    """Features of SYSU-MM01's cameras that know people, three images of each person and camera."""
    rows = [(person, camera, number) for camera, people in images.items() for person in people for number in (1, 2, 3)]
    people = np.array([person for person, *_ in rows])
    cameras = np.array([camera for _, camera, _ in rows])
    arrays = {
        "features": np.eye(8, dtype=np.float32)[people],
        "person_ids": people,
        "cameras": cameras,
        "modalities": np.where(np.isin(cameras, (3, 6)), "infrared", "visible"),
        "paths": np.array([f"cam{camera}/{person:04d}/{number:04d}.jpg" for person, camera, number in rows]),
    }
    np.savez(path, **(arrays | changes))
    return path


PEOPLE = (1, 2, 3, 4)
VISIBLE, INFRARED = dict.fromkeys((1, 2, 4, 5), PEOPLE), dict.fromkeys((3, 6), PEOPLE)


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return feature_file(tmp_path / "features.npz", VISIBLE | INFRARED)


def cells(out: str) -> Iterator[list[str]]:
    """The rows of a table, header first."""
    for line in out.splitlines():
        if line[:1] in ("┃", "│"):
            yield [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")]


def test_a_table_says_what_was_searched_how_and_with_what_result(vireid: Call, features: Path) -> None:
    code, out, err = vireid(features, "--protocol", "sysu/all", "--allow-partial")
    assert code == 0
    assert out.splitlines()[0].strip() == "sysu/all (8 dimensions, order: paths, cosine, partial)"
    header, row = cells(out)
    assert header == ["search", "direction", *NUMBERS]
    assert row[:2] == ["sysu/all/1-shot/agw", "infrared to visible"]
    # Two infrared cameras, four people, three images; one gallery image of each person in four cameras, and of those
    # the four of camera 2 are hidden from the twelve queries of camera 3.
    assert row[2:] == ["100.00"] * 6 + ["24 of 24", "16", "48", "10"]
    assert "people: found 4, expected 96" in err, "what is partial is said on stderr"


def test_json_is_one_value_and_alone_on_stdout(vireid: Call, features: Path) -> None:
    code, out, _ = vireid(features, "--protocol", "sysu/indoor", "--allow-partial", "--trials", "2", "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["format"], report["protocol"], report["order"], report["partial"]) == (
        1,
        "sysu/indoor",
        "paths",
        True,
    )
    assert (report["dim"], report["normalised"], report["visible"], report["infrared"]) == (8, True, 48, 24)
    (search,) = report["searches"]
    assert search["name"] == "sysu/indoor/1-shot/agw"
    assert [trial["trial"] for trial in search["trials"]] == [0, 1]
    assert (search["gallery"], search["mean"]["map"], len(search["trials"][0]["cmc"])) == (8, 1.0, 20)


def test_sysu_all_is_the_protocol_that_nobody_has_to_name(vireid: Call, features: Path) -> None:
    code, out, _ = vireid(features, "--allow-partial", "--json")
    assert code == 0
    assert json.loads(out)["protocol"] == "sysu/all"


def test_queries_and_gallery_may_come_in_two_files(vireid: Call, features: Path, tmp_path: Path) -> None:
    query = feature_file(tmp_path / "query.npz", INFRARED)
    gallery = feature_file(tmp_path / "gallery.npz", VISIBLE)
    code, out, _ = vireid("--query", query, "--gallery", gallery, "--allow-partial", "--json")
    assert code == 0
    assert json.loads(out) == json.loads(vireid(features, "--allow-partial", "--json")[1])
    code, out, _ = vireid("--query", query, "--gallery", gallery, "--protocol", "pairs", "--json")
    assert code == 0
    assert [search["name"] for search in json.loads(out)["searches"]] == ["pairs/infrared_to_visible/full"]


def test_options_reach_the_protocol(vireid: Call, features: Path) -> None:
    options = ("--exclude", "none", "--rank-by", "image", "--direction", "visible_to_infrared", "--raw", "--rerank")
    code, out, _ = vireid(features, "--protocol", "pairs", *options, "--json")
    assert code == 0
    report = json.loads(out)
    assert not report["normalised"]
    plain, reranked = report["searches"]
    assert (plain["exclude"], plain["rank_by"], plain["direction"]) == ("none", "image", "visible_to_infrared")
    assert (plain["rerank"], reranked["rerank"]) == (None, "k_reciprocal")
    code, out, _ = vireid(features, "--protocol", "regdb", "--split", "3", "--allow-partial", "--json")
    assert code == 0
    assert json.loads(out)["searches"][0]["name"] == "regdb/split-3/infrared_to_visible"


def test_reranked_numbers_stand_in_columns_of_their_own(vireid: Call, features: Path) -> None:
    code, out, _ = vireid(features, "--allow-partial", "--trials", "1", "--rerank")
    assert code == 0
    header, row = cells(out)
    assert header == ["search", "direction", *NUMBERS[:6], "re-ranked Rank-1", "mAP", *NUMBERS[6:]]
    assert len(row) == len(header)


def permutation_file(path: Path) -> Path:
    """Three images of people 1 to 4 in every camera, in falling order in all ten trials."""
    orders = np.empty((6, 1), dtype=object)
    for camera in range(6):
        orders[camera, 0] = np.empty((4, 1), dtype=object)
        for person in range(4):
            orders[camera, 0][person, 0] = np.array([[3, 2, 1]] * 10)
    scipy.io.savemat(path, {"rand_perm_cam": orders})
    return path


@pytest.mark.parametrize(
    ("options", "draws"),
    [((), ("agw", "official")), (("--draw", "official"), ("official",)), (("--draw", "agw"), ("agw",))],
)
def test_published_orders_add_the_official_draw(
    vireid: Call, features: Path, tmp_path: Path, options: tuple[str, ...], draws: tuple[str, ...]
) -> None:
    permutations = permutation_file(tmp_path / "rand_perm_cam.mat")
    shots = ("--shots", "1", "--shots", "2")
    common = ("--allow-partial", "--permutations", permutations, *shots, "--json")
    code, out, _ = vireid(features, *options, *common)
    assert code == 0
    names = [search["name"] for search in json.loads(out)["searches"]]
    assert names == [f"sysu/all/{shots}-shot/{draw}" for draw in draws for shots in (1, 2)]


def test_what_each_query_found_is_written_to_a_file(vireid: Call, features: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "queries.npz"
    code, out, _ = vireid(features, "--allow-partial", "--trials", "2", "--per-query", path)
    assert code == 0
    assert "sysu/all" in out
    with np.load(path, allow_pickle=False) as archive, np.load(features) as images:
        assert len(archive.files) == 6 * 2
        name = "sysu/all/1-shot/agw/trial-1"
        rows, best = archive[f"{name}/query"], archive[f"{name}/best"]
        # Rows of the file: infrared images stand after 48 visible ones, and the best image shows the query's person.
        assert rows.tolist() == list(range(48, 72))
        assert np.array_equal(images["person_ids"][best[:, 0]], images["person_ids"][rows])


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ((), "one file, or as --query and --gallery together", "vireid rank FILE.npz"),
        (("--query", "FEATURES"), "--query and --gallery together", "--gallery G.npz"),
        (("--gallery", "FEATURES"), "--query and --gallery together", "--gallery G.npz"),
        (("FEATURES", "--query", "FEATURES", "--gallery", "FEATURES"), "as one file, or", "vireid rank"),
        (("FEATURES", "--gallery", "FEATURES"), "as one file, or", "vireid rank"),
        (("none.npz",), "there is no file none.npz", "`person_ids`"),
        (("FEATURES",), "sysu/all: people: found 4, expected 96", "--allow-partial"),
        (("FEATURES", "--protocol", "market"), "no protocol 'market'", "sysu/all, sysu/indoor, sysu/val, regdb"),
        (("FEATURES", "--direction", "both"), "--direction 'both' does not exist", "infrared_to_visible"),
        (
            ("FEATURES", "--direction", "visible_to_infrared", "--allow-partial"),
            "no visible queries",
            "omit --direction",
        ),
        (("FEATURES", "--draw", "random"), "--draw 'random' does not exist", "agw, official"),
        (("FEATURES", "--draw", "official", "--allow-partial"), "rand_perm_cam.mat", "--permutations FILE"),
        (("FEATURES", "--permutations", "none.mat"), "there is no none.mat", "rand_perm_cam.mat"),
        (("FEATURES", "--shots", "0", "--allow-partial"), "at least 1 of each is needed", "1 shot or 10"),
        (("FEATURES", "--protocol", "llcm", "--shots", "10"), "--shots is for sysu, not for llcm", "remove it"),
        (("FEATURES", "--rank-by", "image"), "--rank-by is for pairs, not for sysu/all", "remove it"),
        (("FEATURES", "--split", "2"), "--split is for regdb, not for sysu/all", "remove it"),
        (("FEATURES", "--trial", "2"), "--trial is called --split now", "write --split 2"),
        (("FEATURES", "--protocol", "pairs", "--exclude", "all"), "--exclude 'all' does not exist", "same_camera"),
        (("FEATURES", "--protocol", "pairs", "--rank-by", "row"), "--rank-by 'row' does not exist", "person, image"),
    ],
)
def test_wrong_input_is_one_error_with_a_hint(
    vireid: Call, features: Path, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    code, out, err = vireid(*(features if one == "FEATURES" else one for one in arguments))
    assert code == 1
    assert out == ""
    assert err.count("error:") == err.count("hint:") == 1
    assert message in err.partition("hint:")[0]
    assert hint in err.partition("hint:")[2]
    assert "Traceback" not in err


@pytest.mark.parametrize(("value", "problem"), [(np.nan, "holds a value that is not finite"), (0.0, "is all zeros")])
def test_a_feature_without_a_direction_is_named_by_its_image(
    vireid: Call, tmp_path: Path, value: float, problem: str
) -> None:
    vectors = np.eye(8, dtype=np.float32)[np.tile(np.repeat(PEOPLE, 3), 6)]
    vectors[50] = value
    path = feature_file(tmp_path / "features.npz", VISIBLE | INFRARED, features=vectors)
    code, out, err = vireid(path, "--allow-partial")
    assert (code, out) == (1, "")
    # Rows 48 to 59 are of camera 3, three a person.
    assert f"features: row 50 (cam3/0001/0003.jpg) {problem}" in err


def test_options_that_do_not_exist_are_a_usage_error(vireid: Call, features: Path) -> None:
    assert vireid(features, "--cosine")[0] == 2
    assert vireid(features, "--trials", "0")[0] == 2
    assert vireid(features, "--protocol", "regdb", "--split", "11")[0] == 2
