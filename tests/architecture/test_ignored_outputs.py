"""What commands write in a checkout shows people, and is never committed by `git add .`."""

import re
import subprocess
from collections.abc import Iterable

import pytest

from tests.architecture.source_tree import ROOT

OPTION = r"(?:-o|--(?:out|csv|parquet|sqlite|html|features|per-query|feedback|param out))[ =]"
FILE = re.compile(OPTION + r"'?([\w./-]+\.(?:npz|npy|csv|parquet|sqlite|html|jsonl))\b")
DATABASE = re.compile(r"milvus:(?:///[\w/]*?)?(\w+\.db)\b")
OTHERS = (
    "captions.jsonl", "captions.jsonl.old", "captions.errors.jsonl", "captions.meta.json", "found-002.html",
    "found.htm", "people.npz.parts/000000.npz", "people.parquet.parts/plan.json", "out/hits.csv", "out/found.html",
    "day.tsv", "hits.db", "hits.sqlite3", "runs/x/checkpoint.pt", "indexes/day-1/index.json", "exports/x/model.onnx",
)  # fmt: skip


def git(*arguments: str, given: Iterable[str] = ()) -> list[str]:
    """The lines that git prints."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], input="\n".join(given), capture_output=True, text=True, check=False
    )
    if done.returncode > 1:
        pytest.skip(f"no checkout: {done.stderr}")
    return done.stdout.splitlines()


def shown_in_docs() -> set[str]:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    return {*FILE.findall(text), *(f"{name}/LOCK" for name in DATABASE.findall(text))}


def test_outputs_that_the_docs_show_are_ignored() -> None:
    names = shown_in_docs()
    assert {"site.csv", "people.npz", "found.html", "labels.npy", "s3.parquet", "feedback.csv", "day.db/LOCK"} <= names
    written = names | {*OTHERS}
    assert written - {*git("check-ignore", "--stdin", given=sorted(written))} == set()


def test_no_file_of_the_project_is_ignored() -> None:
    assert git("ls-files", "-ci", "--exclude-standard") == []
    own = [".gitignore", "README.md", "flows/server/search_page/index.html", "benchmarks/results/serve.json"]
    assert git("check-ignore", "--no-index", "--stdin", given=own) == []
