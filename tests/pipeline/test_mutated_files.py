"""Every kind of file that is read, mutated 2,000 times with a fixed seed: it is read, or refused in one sentence.

A new kind of file is one more entry of `KINDS`: its files, how they are made, and how they are read.
"""

import contextlib
import io
import json
import re
import shutil
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.clip import load_clip
from models.clip_files import WeightsLoadError, read_weights
from models.encoder import DualStemEncoder
from models.modality import Modality, PerModality
from models.saved_encoder import load_encoder, save_encoder
from pipeline.captioning.files import image_list, merge_captions
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.presets import load_config
from pipeline.data import store
from pipeline.data.captions.files import read_caption_rows
from pipeline.data.image_list import list_images
from pipeline.data.listing import read_labelled_list, read_person_list
from pipeline.data.synthetic.record import read_drawn
from pipeline.errors import VireidError
from pipeline.evaluation.feature_files import read_features, read_vectors, write_feature_file
from pipeline.evaluation.report import EvaluationReport
from pipeline.inference import embedding
from pipeline.inference.index import GallerySource, open_gallery
from pipeline.inference.index_refresh import refresh_gallery
from pipeline.inference.run_encoder import read_run_encoder
from pipeline.methods.cclnet.state import CclnetState
from pipeline.runs.open import run_path
from pipeline.runtime.atomic_files import check_archive, read_json
from pipeline.runtime.environment import peak_resident_bytes
from pipeline.storage.run_folder import RunFolder, read_checkpoint
from pipeline.storage.run_reader import read_run
from pipeline.tracking.replay import TrackingNote, read_note, write_note
from pipeline.training.state import restore_state
from tests.models.conftest import ARCHITECTURES, write_folder
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint

ROUNDS = 2_000
SECONDS = 20
MEGABYTES = 400
ALIEN: tuple[Any, ...] = (
    None, True, -1, 0, 2**70, 1e308, float("nan"), "", "a\0b", "\ud800", "../../x", [], {}, [[]], {"a": {"b": [1]}},
    "x" * 5_000,
)  # fmt: skip
NUMBERS = (b"-1", b"0", b"1e999", b"9" * 5_000, b"18446744073709551616", b"0.5", b"NaN")
Make = Callable[[Path], None]
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Kind:
    """Files of one kind in a folder: what is mutated, how they are made, how they are read."""

    files: tuple[str, ...]
    make: Make
    read: Read
    weight: int = 1


# ---- making ----

ROWS = np.random.default_rng(1).normal(size=(12, 4)).astype(np.float32)


def make_features(folder: Path) -> None:
    modalities = np.where(np.arange(12) % 2, "infrared", "visible")
    paths = np.array([f"{number}.jpg" for number in range(12)])
    arrays = {"person_ids": np.arange(12) // 4, "cameras": np.arange(12), "modalities": modalities, "paths": paths}
    np.savez(folder / "plain.npz", features=ROWS, **arrays)
    np.savez_compressed(folder / "packed.npz", features=ROWS, **arrays)
    np.save(folder / "lone.npy", ROWS)
    write_feature_file(
        folder / "rows.parquet", [{"features": ROWS, **arrays}], rows=12, record={"root": "/"}, option="--out"
    )


def make_tables(folder: Path) -> None:
    lines = [f"cam{number}/{number}.jpg,visible,{number},anna,train" for number in range(6)]
    (folder / "people.csv").write_text("\n".join(["path,modality,camera,person,split", *lines]))
    names = ("path", "modality", "camera", "person", "split")
    rows = [json.dumps(dict(zip(names, line.split(","), strict=True))) for line in lines]
    (folder / "people.jsonl").write_text("\n".join(rows))
    paths = [line.split(",")[0] for line in lines]
    for path in paths:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    (folder / "images.txt").write_text("# images\n" + "\n".join(paths))


def read_table(path: Path) -> object:
    return list_images(path, Modality.VISIBLE)


def make_captions(folder: Path) -> None:
    rows = [{"path": f"{number}.jpg", "modality": "visible", "caption": "a coat", "person": 3} for number in range(5)]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "c.json").write_text(json.dumps({row["path"]: row for row in rows}))
    images = image_list(row["path"] for row in rows)
    meta = {"library_versions": {"torch": "2"}, "images": 5, "all_images": images, "shard": "1/1"}
    (folder / "c.meta.json").write_text(json.dumps(meta))


def read_captions(path: Path) -> None:
    if path.name == "c.meta.json":
        merge_captions(path.parent / "out.jsonl", [path.parent / "c.jsonl"])
        (path.parent / "out.jsonl").unlink()
    else:
        read_caption_rows(path, caption_field="caption", path_prefix="")


def make_lists(folder: Path) -> None:
    """Of text only: MATLAB files are read by scipy, which can end the process on a damaged one."""
    (folder / "train_id.txt").write_text("1,2,3,40\n")
    (folder / "idx.txt").write_text("Visible/1/a.bmp 0\nThermal/2/b c.bmp 1\n")


def read_list(path: Path) -> object:
    return read_labelled_list(path) if path.name == "idx.txt" else read_person_list(path.parent, "train")


def make_preset(folder: Path) -> None:
    (folder / "mine.toml").write_text(
        'extends = "smoke"\nseed = 3\n[stages]\nprepare_rounds = 2\n[data]\nname = "sysu"\n'
        '[evaluation]\nheads = ["neck"]\n'
    )


STATE = {"a.weight": torch.arange(60.0).reshape(6, 10), "a.bias": torch.zeros(6), "n": torch.tensor(3)}


def make_weights(folder: Path) -> None:
    save_file(STATE, folder / "w.safetensors")
    torch.save({"state_dict": STATE, "epoch": 3}, folder / "w.pt")
    torch.save(STATE, folder / "old.pt", _use_new_zipfile_serialization=False)


def make_model_folder(folder: Path) -> None:
    write_folder(folder, ARCHITECTURES["vit"])


def make_saved_encoder(folder: Path) -> None:
    clip = load_clip("tiny", "random")
    encoder = DualStemEncoder.from_clip(clip, image_height=64, image_width=32)
    save_encoder(folder, encoder, clip.architecture, {"round": 1})


def make_index(folder: Path) -> None:
    for name in ("a", "b", "c"):
        paint(folder / "images" / f"{name}.png", (len(name) * 40, ord(name), 9))
    source = GallerySource(folder / "images", Modality.VISIBLE)
    refresh_gallery(folder / "index", MeanEncoder(), source, batch_size=4, kind="ivf")


def read_index(path: Path) -> None:
    gallery = open_gallery(path.parent, "mean")
    gallery.search(np.ascontiguousarray(np.asarray(gallery.vectors)[:1]), 2)
    refresh_gallery(
        path.parent, MeanEncoder(), GallerySource(path.parents[1] / "images", Modality.VISIBLE), batch_size=4
    )


KEY = "0" * 64


def make_store(folder: Path) -> None:
    (folder / KEY).mkdir()
    for modality in Modality:
        np.save(folder / KEY / f"{modality}.npy", np.zeros((3, 4, 2, 3), np.uint8))
    index = {"format": 1, "key": KEY, "height": 4, "width": 2, "pillow": "1", "paths": {"visible": ["a"]}}
    (folder / KEY / "index.json").write_text(json.dumps(index | {"sha256": {"visible": "a", "infrared": "b"}}))


def read_store(path: Path) -> None:
    list(store.stores_below(path.parents[1]))
    shape = (3, 4, 2, 3)
    store.damaged_arrays(store._open(path.parent, KEY, PerModality(shape, shape)))


def make_part(folder: Path) -> None:
    embedding._write_part(folder / "000000.npz", ROWS[:2], ["", "not an image", ""])


def read_part(path: Path) -> object:
    return embedding._read_part(path, embedding._Chunk(np.arange(3), Modality.VISIBLE))


def read_run_files(path: Path) -> None:
    run = path.parent if path.parent.name != "labels" else path.parents[1]
    match path.name:
        case "checkpoint.pt":
            read_run_encoder(run, "cpu")
        case "tracking.json":
            read_note(run)
        case "evaluation.json":
            EvaluationReport.from_dict(read_json(path) or {})
        case "round-001.npz":
            check_archive(path)
        case _:
            found = read_run(run)
            json.dumps(found.to_dict())
            with RunFolder.open(run, load_config("smoke").model_dump(mode="json"), "0"):
                pass


def make_drawn(folder: Path) -> None:
    (folder / "drawn.json").write_text(json.dumps({"size": "smoke", "seed": 1, "counts": {"train": 3}}))


KINDS = {
    "preset": Kind(("mine.toml",), make_preset, lambda path: load_config(str(path)), 2),
    "table": Kind(("people.csv", "people.jsonl", "images.txt"), make_tables, read_table, 2),
    "captions": Kind(("c.jsonl", "c.json", "c.meta.json"), make_captions, read_captions, 2),
    "lists": Kind(("train_id.txt", "idx.txt"), make_lists, read_list),
    "drawn": Kind(("drawn.json",), make_drawn, lambda path: read_drawn(path.parent)),
    "features": Kind(("plain.npz", "packed.npz", "rows.parquet"), make_features, read_features, 2),
    "vectors": Kind(("plain.npz", "packed.npz", "lone.npy", "rows.parquet"), make_features, read_vectors, 2),
    "weights": Kind(("w.safetensors", "w.pt", "old.pt"), make_weights, read_weights, 3),
    "model folder": Kind(
        ("open_clip_config.json", "open_clip_model.safetensors"),
        make_model_folder,
        lambda path: load_clip("", str(path.parent)),
    ),
    "saved encoder": Kind(
        ("encoder.json", "encoder.safetensors"), make_saved_encoder, lambda path: load_encoder(path.parent)
    ),
    "index": Kind(
        ("index/index.json", "index/files-000001.jsonl", "index/vectors-000001.npy", "index/lists-000001.faiss"),
        make_index,
        read_index,
        2,
    ),
    "store": Kind((f"{KEY}/index.json", f"{KEY}/visible.npy"), make_store, read_store, 2),
    "part": Kind(("000000.npz",), make_part, read_part),
}
RUN_FILES = (
    "config.json", "metrics.jsonl", "timings.jsonl", "tracking.json", "evaluation.json", "checkpoint.pt",
    "labels/round-001.npz",
)  # fmt: skip
WEIGHTS = sum(kind.weight for kind in KINDS.values()) + 4

# ---- mutating ----


def other_value(value: Any, random: np.random.Generator) -> Any:
    """The value with one part of another type, or without it, or with one more."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        name = list(value)[random.integers(len(value))]
        choice = random.random()
        if choice < 0.2:
            return {key: one for key, one in value.items() if key != name}
        return {**value, name: other_value(value[name], random)} if choice < 0.9 else {**value, "more": 1}
    if isinstance(value, list) and value and random.random() < 0.7:
        place = int(random.integers(len(value)))
        return [*value[:place], other_value(value[place], random), *value[place + 1 :]]
    if random.random() < 0.1:
        return json.loads("[" * 60 + "]" * 60)
    return ALIEN[random.integers(len(ALIEN))]


def other_json(content: bytes, random: np.random.Generator) -> bytes:
    lines = content.splitlines()
    try:
        return json.dumps(other_value(json.loads(content), random)).encode()
    except ValueError:
        place = int(random.integers(len(lines)))
        lines[place] = json.dumps(other_value(json.loads(lines[place]), random)).encode()
        return b"\n".join(lines)


def other_member(content: bytes, random: np.random.Generator) -> bytes:
    """A zip archive with one changed member, and right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        names = old.namelist()
        victim = names[random.integers(len(names))]
        for name in names:
            new.writestr(name, other_bytes(old.read(name), random) if name == victim else old.read(name))
    return buffer.getvalue()


def other_bytes(content: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(content)
    start, end = sorted(int(one) for one in random.integers(0, len(content) + 1, 2))
    # Headers are where sizes stand.
    first = int(random.integers(0, max(1, min(len(content), 200)))) if random.random() < 0.5 else start
    match int(random.integers(7)):
        case 0:
            for place in random.integers(0, max(1, len(content)), random.integers(1, 9)):
                changed[place : place + 1] = (
                    bytes([changed[place] ^ (1 << int(random.integers(8)))]) if content else b"x"
                )
        case 1:
            del changed[start:]
        case 2:
            changed[end:end] = content[start:end]
        case 3:
            changed[first : first + 8] = random.bytes(8)
        case 4:
            changed[first:first] = random.bytes(int(random.integers(1, 40)))
        case 5:
            found = list(re.finditer(rb"\d+", content))
            if found:
                number = found[random.integers(len(found))]
                changed[number.start() : number.end()] = NUMBERS[random.integers(len(NUMBERS))]
        case _:
            del changed[start:end]
    return bytes(changed)


def mutated(content: bytes, name: str, random: np.random.Generator) -> bytes:
    if name.endswith((".json", ".jsonl")) and random.random() < 0.6:
        return other_json(content, random)
    if zipfile.is_zipfile(io.BytesIO(content)) and random.random() < 0.5:
        return other_member(content, random)
    return other_bytes(content, random)


# ---- the sweep ----


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def sweep(folder: Path, names: tuple[str, ...], read: Read, times: int, seed: int) -> list[str]:
    """What was raised that is no `VireidError`; each mutation is of a fresh copy of the folder's file."""
    random, failures = np.random.default_rng(seed), list[str]()
    contents = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        read(folder / name)
    kept = folder.with_name(f"{folder.name}-kept")
    shutil.copytree(folder, kept)
    before = peak_resident_bytes()
    for number in range(times):
        name = names[number % len(names)]
        changed = mutated(contents[name], name, random)
        (folder / name).write_bytes(changed)
        try:
            with warnings.catch_warnings(), limited(SECONDS):
                warnings.simplefilter("ignore")
                read(folder / name)
        except (VireidError, WeightsLoadError) as error:
            text = f"{error.message} {error.hint}"
            if not error.hint or any(advice in text for advice in ("weights_only", "allow_pickle", "int_max_str")):
                failures.append(f"{name}, {number}: {text[:300]}")
        except BaseException as error:  # noqa: BLE001 - that there is none is what is tested
            failures.append(f"{name}, {number}: {type(error).__name__}: {str(error)[:300]} {changed[:80]!r}")
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
    grown = (peak_resident_bytes() - before) / 2**20
    return failures + [f"{grown:.0f} MB more memory"] * (grown > MEGABYTES)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_mutated_file_is_read_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    kind, folder = KINDS[name], tmp_path / "files"
    folder.mkdir()
    kind.make(folder)
    times = ROUNDS * kind.weight // WEIGHTS
    assert sweep(folder, kind.files, kind.read, times, seed=list(KINDS).index(name)) == []


@pytest.mark.slow
def test_a_mutated_run_is_read_or_refused_in_one_sentence(finished_run: CclnetConfig) -> None:
    run = run_path(finished_run)
    write_note(run, TrackingNote("0" * 32, rounds=2))
    (run / "figures").rename(run.parent / "figures")
    (run / "config.json").write_text(json.dumps(json.loads((run / "config.json").read_text()) | {"digest": "0"}))
    assert sweep(run, RUN_FILES, read_run_files, ROUNDS * 3 // WEIGHTS, seed=100) == []


@pytest.mark.slow
def test_parts_of_a_checkpoint_of_other_types_are_refused_in_one_sentence(finished_run: CclnetConfig) -> None:
    checkpoint = read_checkpoint(run_path(finished_run) / "checkpoint.pt")
    assert checkpoint is not None
    random, failures = np.random.default_rng(7), list[str]()
    clip = load_clip("tiny", "random")
    images = finished_run.images
    for number in range(ROUNDS // WEIGHTS):
        encoder = DualStemEncoder.from_clip(clip, image_height=images.height, image_width=images.width)
        changed = other_value(checkpoint, random)
        if not isinstance(changed, dict):
            continue
        optimiser = torch.optim.Adam(encoder.parameters())
        try:
            restore_state(changed, encoder, CclnetState(), {"prepare": optimiser}.__getitem__, torch.device("cpu"))
        except VireidError:
            continue
        except Exception as error:  # noqa: BLE001 - that there is none is what is tested
            failures.append(f"{number}: {type(error).__name__}: {str(error)[:300]}")
    assert failures == []
