"""`vireid forget`: from a trained run to a person who is found nowhere, and mistakes."""

import json
import shutil
from pathlib import Path

import pytest

from models.modality import Modality
from pipeline.inference.index import GallerySource
from pipeline.inference.index_refresh import open_or_refresh
from tests.flows.command_line import Call, small
from tests.pipeline.inference.mean_encoder import MeanEncoder, needs_milvus
from tests.pipeline.privacy.small_site import make_index, make_site

PERSON = "3"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_person_whom_a_run_an_index_and_results_know_is_found_nowhere(vireid: Call, tmp_path: Path) -> None:
    from pipeline.data.synthetic.writer import generate_dataset

    site = tmp_path / "site"
    generate_dataset(site, size="smoke", layout="manifest", difficulty="easy", height=64, width=32, workers=1)
    manifest = site / "manifest.csv"
    lines = manifest.read_text().splitlines()
    person = lines[0].split(",").index("person")
    hers = [line.split(",")[0] for line in lines[1:] if line.split(",")[person] == PERSON]
    assert hers

    def done(*arguments: str) -> None:
        code, _, err = vireid(*arguments)
        assert code == 0, err

    options = [*small(Path("runs"), site), "--set", "execution.figures=true", "--set", "execution.tracking=true"]
    done("train", "smoke", "--set", "data.name=manifest", *options)
    (run,) = map(str, Path("runs").glob("smoke-*"))
    done("embed", run, str(manifest), "-o", f"{run}/people.npz", "--csv", "out/people")
    pages = ("--html", "out/found", "--csv", "out/hits", "--sqlite", "out/hits.sqlite3", "--parquet", "out/hits.pq")
    search = ("search", run, "--query", str(manifest), "--gallery", str(manifest), "--direction", "infrared_to_visible")
    done(*search, *pages)
    done("look", run, "--html", "out/look.html", "--csv", "out/pairs.csv")
    done("compare", run, "--html", "out/compare.html")

    forget = ("forget", "--person", PERSON, "--manifest", str(manifest), "--also", "out", "--also", "site")
    code, out, err = vireid(*forget)
    assert code == 0, err
    assert (
        "nothing is changed; --yes removes this" in out
        and "the weights were trained on images that are forgotten" in out
    )
    assert f"{manifest} names {len(hers)} of them" in out
    code, out, err = vireid(*forget, "--yes", "--delete-files", "--delete-rows", "--json")
    assert code == 0, (out, err)
    report = json.loads(out)
    assert report["complete"] and {trace["what"] for trace in report["traces"]} >= {
        "decoded images", "vectors of an index", "vectors of images", "rows of a table", "a page with pictures",
        "image files", "rows of the manifest",
    }  # fmt: skip
    for file in (path for place in ("runs", "indexes", "out", "site") for path in Path(place).rglob("*")):
        names = (path.encode() for path in hers)
        assert file.is_dir() or not any(name in file.read_bytes() for name in names), file
    assert not any((site / path).exists() for path in hers)

    listed = tmp_path / "hers.txt"
    listed.write_text("".join(f"{path}\n" for path in hers))
    code, _, err = vireid("forget", str(listed), "--root", str(site), "--also", "out")
    assert code == 1 and "no such file exists, and nothing of them is found in out, runs, indexes" in err
    done(*search)  # and what is left can be used
    done("embed", run, str(manifest), "-o", f"{run}/people.npz")


@pytest.mark.slow
@needs_milvus
def test_a_gallery_in_milvus_is_searched_where_it_is_named(vireid: Call, tmp_path: Path) -> None:
    manifest, place = make_site(Path("site")), f"milvus://{tmp_path}/g.db?collection=day"
    source = GallerySource(manifest, Modality.VISIBLE)
    open_or_refresh(source, Path(place), Path(), MeanEncoder(), batch_size=4)
    manifest.write_text("".join(line for line in manifest.open() if "anna" not in line))
    (tmp_path / "runs").mkdir()
    of_anna = ("forget", "--person", "anna", "--manifest", "site/site.csv")
    code, _, err = vireid(*of_anna)
    assert code == 1 and "neither does an index of it in indexes" in err
    code, out, _ = vireid(*of_anna, "--also", place, "--json")
    (trace,) = json.loads(out)["traces"]
    assert (code, trace["place"], trace["images"], trace["deed"]) == (0, place, 2, "deleted")
    code, out, _ = vireid("forget", "--camera", "day", "--manifest", "site/site.csv", "--also", place, "--json")
    assert code == 0 and json.loads(out)["traces"][0]["images"] == 6
    code, out, err = vireid(*of_anna, "--also", place, "--yes")
    assert code == 0, (out, err)
    shown = "".join(out.split())  # lines are folded
    assert f"foundnowherein{place},runs" in shown and f"note:{place}:deletedvectorsstayin" in shown
    code, _, err = vireid(*of_anna, "--also", place)
    assert code == 1 and "names no image of person anna" in err and place in err
    code, _, err = vireid(*of_anna, "--also", "milvus://host")
    assert code == 1 and "neither a server with its port nor a file" in err


def test_a_named_file_that_cannot_be_searched_is_not_said_to_be_clean(vireid: Call, tmp_path: Path) -> None:
    make_site(Path("site"))
    Path("hers.txt").write_text("day/anna/1.png\n")
    arguments = ("forget", "--person", "anna", "--manifest", "site/site.csv", "--also", "hers.txt")
    for consent, expected in (((), 0), (("--yes",), 1)):
        code, out, _ = vireid(*arguments, *consent)
        assert code == expected and "cannot be read: hers.txt cannot be searched: it is a text" in out
        assert "found nowhere" not in out


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((), "the images are given by a list, by --person, or by --camera"),
            (("list.txt", "--person", "3"), "the images are given by a list"),
            (("--person", "3"), "--person needs a manifest"),
            (("--camera", "day"), "--camera needs a manifest"),
            (("--person", "3", "--manifest", "site/site.csv", "--before", "2026-11-28"), "--before needs --camera"),
            (("--person", "nora", "--manifest", "site/site.csv"), "site/site.csv names no image of person nora"),
            (("site/day", "--delete-rows"), "--delete-rows needs a manifest"),
            (("site/day", "--runs", "no", "--indexes", "no"), "nothing to search: no, no do not exist"),
            (("nowhere.txt",), "nowhere.txt"),
        ],
    )
    def test_each_is_one_sentence_with_a_hint(self, vireid: Call, arguments: tuple[str, ...], words: str) -> None:
        make_index(make_site(Path("site")), Path("indexes/site"))
        code, out, err = vireid("forget", *arguments)
        assert (code, out) == (1, "") and words in err and "hint:" in err, err

    def test_what_is_left_ends_with_exit_code_1(self, vireid: Call) -> None:
        make_index(make_site(Path("site")), Path("indexes/site"))
        shutil.copytree("indexes/site", "indexes/damaged")
        next(Path("indexes/damaged").glob("files-*")).write_text("{")
        arguments = ("forget", "--person", PERSON, "--manifest", "site/site.csv")
        code, out, _ = vireid(*arguments)
        assert code == 0 and "cannot be read: " in out and "nothing is changed" in out
        code, out, _ = vireid(*arguments, "--yes", "--delete-files")
        assert code == 1 and "indexes/damaged" in out and "found nowhere" not in out
        assert len(list(Path("site").glob("*/3/*"))) == 4
        shutil.rmtree("indexes/damaged")
        code, out, _ = vireid(*arguments, "--yes", "--delete-files")
        assert code == 0 and "found nowhere in indexes" in out
        assert not list(Path("site").glob("*/3/*"))
