"""Marks of users: whole lines whatever happens at once, a file edited by hand, counts, and people of images."""

import hashlib
import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

from flows.cli.feedback import count_marks_of
from models.modality import Modality
from pipeline.config.cclnet import CclnetConfig
from pipeline.errors import CheckpointError, DataError
from pipeline.inference.feedback import COLUMNS, Mark, append_mark, count_marks, query_name, read_marks
from pipeline.inference.index import GallerySource
from pipeline.inference.index_refresh import open_or_refresh
from pipeline.runs.open import run_path
from tests.flows.command_line import Call
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint

HEADER = ",".join(COLUMNS)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def mark(query: str, hit: str, kind: str = "right", rank: int = 1) -> Mark:
    named = query_name([(query, digest(query))])
    return Mark("2026-11-28T14:03:00Z", named, "infrared", hit, rank, 0.5, kind, "run-a", "indexes/day")


class TestFile:
    def test_lines_are_read_back_as_they_were_written(self, tmp_path: Path) -> None:
        file = tmp_path / "feedback.csv"
        marks = [mark('a, "b".jpg', "x/ü 1.png"), mark("c; sha256:.jpg", "=1+1", "wrong", 3)]
        for one in marks:
            append_mark(file, one)
        assert read_marks(file) == marks
        assert file.read_text().splitlines()[0] == HEADER

    def test_processes_at_once_write_one_header_and_whole_lines(self, tmp_path: Path) -> None:
        file = tmp_path / "feedback.csv"
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pool.starmap(append_mark, [(file, mark(f"{number}.jpg", "x" * number)) for number in range(1, 201)])
        marks = read_marks(file)
        assert sorted(len(one.hit) for one in marks) == [*range(1, 201)]
        assert file.read_text().count(HEADER) == 1

    def test_a_line_is_appended_behind_a_cut_one(self, tmp_path: Path) -> None:
        file = tmp_path / "feedback.csv"
        append_mark(file, mark("a.jpg", "x"))
        file.write_text(file.read_text().rstrip("\n"))  # an editor
        append_mark(file, mark("b.jpg", "y"))
        assert [one.hit for one in read_marks(file)] == ["x", "y"]

    def test_a_full_disk_leaves_the_file_as_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "feedback.csv"
        append_mark(file, mark("a.jpg", "x"))
        before, write = file.read_bytes(), os.write
        monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:20]))
        with pytest.raises(CheckpointError, match="No space left"):
            append_mark(file, mark("b.jpg", "y"))
        assert file.read_bytes() == before

    def test_a_spreadsheet_may_have_saved_it(self, tmp_path: Path) -> None:
        file = tmp_path / "feedback.csv"
        append_mark(file, mark("a.jpg", "x"))
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b",", b";").replace(b"\n", b"\r\n"))
        assert [one.hit for one in read_marks(file)] == ["x"]

    @pytest.mark.parametrize(
        ("column", "value", "reason"),
        [
            ("mark", "yes", "mark 'yes', not right, wrong, withdrawn"),
            ("rank", "0", "rank '0' is not a number from 1"),
            ("rank", "1.5", "rank '1.5'"),
            ("score", "nan", "score 'nan' is not between"),
            ("score", "high", "score 'high' is not a number"),
            ("query", "a.jpg", "query does not end in sha256:"),
            ("query", f"a.jpg sha256:{'z' * 64}", "query does not end in sha256:"),
            ("query_modality", "thermal-ish", "query_modality 'thermal-ish' is not"),
            ("time", "yesterday", "time 'yesterday' is not like"),
            ("hit", " ", "no hit"),
            ("index", "", "no index"),
        ],
    )
    def test_a_line_that_is_no_mark_is_named_with_its_reason(
        self, column: str, value: str, reason: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "feedback.csv"
        for name in ("a.jpg", "b.jpg"):
            append_mark(file, mark(name, "x"))
        lines = file.read_text().splitlines()
        cells = lines[2].split(",")
        cells[COLUMNS.index(column)] = value
        file.write_text("\n".join([*lines[:2], ",".join(cells)]) + "\n")
        with pytest.raises(DataError) as refused:
            read_marks(file)
        assert "a line is no mark; line 3: " in refused.value.message and reason in refused.value.message

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        for content, reason in ((f"{HEADER}\na,b\n", "line 2"), ("path,modality\na,b\n", "no column 'time'")):
            (tmp_path / "feedback.csv").write_text(content)
            with pytest.raises(DataError, match=reason):
                read_marks(tmp_path / "feedback.csv")
        with pytest.raises(DataError, match="there is no feedback file"):
            read_marks(tmp_path / "absent.csv")


class TestCounts:
    def test_the_last_mark_on_a_hit_counts(self) -> None:
        marks = [
            mark("a", "x"), mark("a", "y", "wrong", 2), mark("b", "x", "wrong"), mark("c", "z", rank=2),
            mark("a", "x", "wrong"), mark("a", "x"),  # changed, and changed back
            mark("c", "w", "wrong", 3), mark("c", "w", "withdrawn", 3),
        ]  # fmt: skip
        (counts,) = count_marks(marks)
        # First hits: a/x right, b/x wrong. Rank 2: a/y wrong, c/z right. Rank 3 is withdrawn.
        assert (counts.run, counts.queries, counts.marks, counts.right) == ("run-a", 3, 4, 2)
        assert (counts.first_marked, counts.first_right) == (2, 1)
        assert [(one.rank, one.right, one.wrong, one.precision) for one in counts.ranks] == [
            (1, 1, 1, 0.5),
            (2, 1, 1, 0.5),
        ]

    def test_runs_are_counted_apart(self) -> None:
        counts = count_marks([mark("a", "x"), replace(mark("a", "x", "wrong"), run="run-b", index="other")])
        assert [(one.run, one.marks) for one in counts] == [("run-a", 1), ("run-b", 1)]

    def test_the_command_prints_them(self, vireid: Call, tmp_path: Path) -> None:
        for one in (mark("a", "x"), mark("b", "x", "wrong"), mark("b", "y", rank=2)):
            append_mark(tmp_path / "feedback.csv", one)
        code, out, err = vireid("feedback", str(tmp_path / "feedback.csv"))
        assert code == 0, err
        assert "3 marks on 2 queries, 2 of them right" in out and "first hits: 1 of 2 right, 50.0 %" in out
        assert vireid("feedback", str(tmp_path / "absent.csv"))[0] == 1

    def test_a_run_without_marks_has_none(self, tmp_path: Path) -> None:
        append_mark(tmp_path / "feedback.csv", mark("a", "x"))
        assert count_marks_of(tmp_path / "run-a", tmp_path / "feedback.csv").marks == 1
        assert count_marks_of(tmp_path / "run-b", tmp_path / "feedback.csv").to_dict() == {
            "run": "run-b", "queries": 0, "marks": 0, "right": 0, "first_marked": 0, "first_right": 0, "ranks": [],
        }  # fmt: skip

    @pytest.mark.slow
    @pytest.mark.usefixtures("prefect_backend")
    def test_an_evaluation_counts_them_where_they_are_asked_for_and_no_other_number_changes(
        self, vireid: Call, finished_run: CclnetConfig, tmp_path: Path
    ) -> None:
        run, file = run_path(finished_run), tmp_path / "marks.csv"
        for hit, kind, name in (("a", "right", run.name), ("b", "wrong", run.name), ("c", "right", "another-run")):
            append_mark(file, replace(mark("q", hit, kind), run=name, index=name))
        code, plain, err = vireid("evaluate", str(run), "--device", "cpu", "--json")
        assert code == 0, err
        asked = ("evaluate", str(run), "--device", "cpu", "--feedback", str(file))
        found = json.loads(vireid(*asked, "--json")[1])
        counts = found.pop("feedback")
        assert found == json.loads(plain)
        assert (counts["run"], counts["marks"], counts["right"], counts["first_marked"]) == (run.name, 2, 1, 2)
        assert "feedback" not in (run / "evaluation.json").read_text()
        code, out, _ = vireid(*asked)
        assert code == 0 and "2 marks on 1 queries, 1 of them right" in out and "sysu/indoor" in out
        file.write_text(file.read_text() + "by hand\n")
        code, out, err = vireid(*asked)
        assert code == 1 and "line 5" in err and not out


class TestPeople:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Path:
        """Visible images 1 to 5 and infrared images a, b, c."""
        for number in range(1, 6):
            paint(tmp_path / "site" / "cam1" / f"{number}.png", (number, 0, 0))
        for number, name in enumerate("abc"):
            paint(tmp_path / "site" / "cam2" / f"{name}.png", (0, number, 9))
        return tmp_path / "site"

    def marked(self, site: Path, marks: list[tuple[str, str, str]]) -> Path:
        """A file of marks on hits of an index of camera 1."""
        source = GallerySource(site / "cam1", Modality.VISIBLE)
        _, index = open_or_refresh(source, None, site.parent / "indexes", MeanEncoder(), batch_size=4)
        for query, hit, kind in marks:
            content = hashlib.sha256((site / "cam2" / f"{query}.png").read_bytes()).hexdigest()
            named = query_name([(f"{query}.png", content)])
            append_mark(
                site.parent / "feedback.csv",
                replace(mark(query, f"{hit}.png", kind), query=named, index=str(index.resolve())),
            )
        return site.parent / "feedback.csv"

    def manifest(self, vireid: Call, site: Path, feedback: Path, *options: str) -> dict[str, str]:
        out = site.parent / "site.csv"
        out.unlink(missing_ok=True)
        arguments = ("data", "manifest", str(site), "--pattern", "cam{camera}/{name}", "--infrared-cameras", "2")
        code, _, err = vireid(*arguments, "--out", str(out), "--feedback", str(feedback), *options)
        assert code == 0, err
        rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
        return {row[0].rpartition("/")[2].removesuffix(".png"): row[3] for row in rows}

    def test_right_hits_and_their_query_show_one_person(self, vireid: Call, site: Path) -> None:
        marks = [
            ("a", "1", "right"),
            ("a", "2", "right"),
            ("b", "2", "right"),
            ("c", "4", "right"),
            ("c", "5", "wrong"),
        ]
        people = self.manifest(vireid, site, self.marked(site, marks))
        assert people["a"] == people["b"] == people["1"] == people["2"] != ""  # both queries found image 2
        assert people["c"] == people["4"] not in ("", people["a"])
        assert people["3"] == people["5"] == ""

    def test_marks_that_contradict_each_other_name_nobody(self, vireid: Call, site: Path) -> None:
        marks = [
            ("a", "1", "right"),
            ("b", "1", "right"),
            ("b", "2", "right"),
            ("a", "2", "wrong"),
            ("c", "4", "right"),
        ]
        people = self.manifest(vireid, site, self.marked(site, marks))
        assert {name for name, person in people.items() if person} == {"c", "4"}

    def test_in_a_test_split_are_images_of_known_people_only(self, vireid: Call, site: Path) -> None:
        feedback = self.marked(site, [("a", "1", "right"), ("c", "4", "right"), ("c", "4", "withdrawn")])
        assert set(self.manifest(vireid, site, feedback, "--split", "test")) == {"a", "1"}

    def test_a_pattern_with_people_and_a_lost_index_are_refused(self, vireid: Call, site: Path) -> None:
        feedback = self.marked(site, [("a", "1", "right")])
        arguments = ("data", "manifest", str(site), "--infrared-cameras", "2", "--feedback", str(feedback))
        code, _, err = vireid(*arguments, "--pattern", "cam{camera}/{person}", "--out", str(site.parent / "other.csv"))
        assert code == 1 and "without {person}" in err
        feedback.write_text(feedback.read_text().replace(str(site.parent / "indexes"), str(site.parent / "gone")))
        code, _, err = vireid(*arguments, "--pattern", "cam{camera}/{name}", "--out", str(site.parent / "other.csv"))
        assert code == 1 and "the index of a mark cannot be read" in err
        assert not (site.parent / "other.csv").exists()
