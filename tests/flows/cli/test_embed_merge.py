"""`vireid embed --shard` and `vireid embed-merge` as their users call them; `rank` and `label` read the result."""

import json
from pathlib import Path

import pytest

from pipeline.inference import run_encoder
from tests.flows.command_line import Call
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Twelve images of four people, and an encoder that needs no run."""
    rows = ["path,modality,camera,person,split"]
    for number in range(12):
        paint(tmp_path / f"{number}.png", (20 * number, 10 * (number % 4), 0))
        rows.append(f"{number}.png,{'infrared' if number % 2 else 'visible'},c{number % 2},p{number // 3},test")
    (tmp_path / "site.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_encoder, "open_encoder", lambda *_: MeanEncoder())


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_shards_are_embedded_merged_ranked_and_labelled(vireid: Call, suffix: str) -> None:
    parts = [f"s{number}.{suffix}" for number in (1, 2, 3)]
    for number, part in enumerate(parts, start=1):
        code, _, err = vireid("embed", "run", "site.csv", "-o", part, "--shard", f"{number}/3")
        assert code == 0, err
    code, out, err = vireid("embed-merge", f"all.{suffix}", *parts)
    assert (code, out) == (0, f"all.{suffix}: 12 vectors of 12 dimensions, of 3 shards\n"), err
    assert vireid("embed", "run", "site.csv", "-o", f"whole.{suffix}")[0] == 0
    found = []
    for name in ("all", "whole"):
        rank = vireid("rank", f"{name}.{suffix}", "--protocol", "pairs", "--exclude", "none", "--json")
        label = vireid("label", f"{name}.{suffix}", "--k1", "4", "--k2", "2", "--min-samples", "2", "--json")
        assert rank[0] == label[0] == 0, rank[2] + label[2]
        found.append((json.loads(rank[1]), json.loads(label[1])["clusters"]))
    assert found[0] == found[1]


def test_mistakes_are_one_error(vireid: Call) -> None:
    assert vireid("embed", "run", "site.csv", "-o", "s1.npz", "--shard", "1/2")[0] == 0
    before = Path("s1.npz").read_bytes()
    for arguments, message in (
        (("embed", "run", "site.csv", "-o", "s2.npz", "--shard", "3/2"), "'3/2' is not a shard"),
        (("embed", "run", "site.csv", "-o", "s2.txt"), "vectors are written as a .npz archive or a .parquet table"),
        (("embed-merge", "all.npz", "s1.npz"), "shard 2 is missing"),
        (("embed-merge", "all.npz", "s1.npz", "site.csv"), "site.csv is no .npz archive"),
        (("embed-merge", "s1.npz", "s1.npz"), "is also an input of this command"),
    ):
        code, out, err = vireid(*arguments)
        assert (code, out) == (1, "") and message in err and "hint:" in err, err
    assert Path("s1.npz").read_bytes() == before and not Path("all.npz").exists()
