"""Files given as weights that are something else, are damaged, or hold code: one sentence, and nothing is executed."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from models.clip_files import WeightsLoadError, read_weights
from models.file_kinds import what_is

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.(script|save):DeprecationWarning")

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(3)}
OFFICE = ("xl/workbook.xml", "word/document.xml", "content.xml", "notes.txt", "features.npy")


def torch_bytes(content: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zip_bytes(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return buffer.getvalue()


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pt"))
    return buffer.getvalue()


def header(size: int, content: bytes) -> bytes:
    return struct.pack("<Q", size) + content


def refused(path: Path) -> WeightsLoadError:
    with pytest.raises(WeightsLoadError) as caught:
        read_weights(path)
    text = f"{caught.value.message} {caught.value.hint}"
    assert "\n" not in text and not any(word in text for word in ("weights_only", "allow_pickle", "arbitrary"))
    assert caught.value.message.rpartition(": ")[2]
    return caught.value


KINDS = {
    "pointer.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:07\nsize 4096\n", "a Git LFS pointer"),
    "page.pt": (b"<!DOCTYPE html><html><title>Sign in</title></html>", "a web page"),
    "page2.safetensors": (b"\n <HTML><body>", "a web page"),
    "denied.pt": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text"),
    "empty.pt": (b"", "empty"),
    "zeros.pt": (bytes(5000), "filled with zeros"),
    "book.pt": (zip_bytes(OFFICE[0]), "a spreadsheet"),
    "text.safetensors": (zip_bytes(OFFICE[1]), "a text document"),
    "sheet.pt": (zip_bytes(OFFICE[2]), "a document of an office program"),
    "packed.pt": (zip_bytes(OFFICE[3]), "a zip archive"),
    "features.pt": (zip_bytes(OFFICE[4]), "a .npz archive"),
    "packed2.pt": (tar_bytes(), "a tar archive"),
    "cut.pt": (torch_bytes(STATE)[:-100], "a zip archive, and its end is missing"),
    "array.pt": (b"\x93NUMPY\x01\x00", "a .npy array"),
    "picture.pt": (b"\xff\xd8\xff\xe0", "a JPEG image"),
    "answer.pt": (b'{"error": "quota"}', "a JSON text"),
    "utf16.pt": ("a,b".encode("utf-16"), "a text in UTF-16"),
    "notes.bin": (b"not weights", "a text"),
    "noise.pt": (b"\x01\x02\x03\x00" * 9, "of an unknown kind"),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_message_names_what_a_file_is(name: str, tmp_path: Path) -> None:
    content, kind = KINDS[name]
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name).message == f"{tmp_path / name} cannot be read as weights: it is {kind}"
    assert what_is(tmp_path / name).name == kind


def test_hints_follow_the_kind(tmp_path: Path) -> None:
    for name, hint in (("pointer.pt", "git lfs pull"), ("page.pt", "sign-in"), ("packed2.pt", "unpack it")):
        (tmp_path / name).write_bytes(KINDS[name][0])
        assert hint in refused(tmp_path / name).hint


def test_folders_pipes_and_names_that_no_file_has_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    assert "it is a folder" in refused(tmp_path).message
    assert "it is a pipe" in refused(tmp_path / "pipe").message
    assert "not readable (Too many levels" in refused(tmp_path / "loop").message
    assert "File name too long" in refused(tmp_path / ("n" * 300)).message
    assert "there is no file" in refused(tmp_path / "a\0b").message


@pytest.mark.parametrize(
    "content",
    [
        safetensors_bytes(STATE), torch_bytes(STATE), torch_bytes(STATE, _use_new_zipfile_serialization=False),
        torch_bytes({"epoch": 3, "state_dict": {f"module.{name}": one for name, one in STATE.items()}}),
        torch_bytes({"model": {f"model.{name}": one for name, one in STATE.items()}}),
        torch_bytes({"model_state_dict": {f"_orig_mod.{name}": one for name, one in STATE.items()}}),
    ],
    ids=["safetensors", "zip", "old", "nested", "model", "compiled"],
)  # fmt: skip
def test_weights_are_known_by_their_content(content: bytes, tmp_path: Path) -> None:
    for name in ("weights.pt", "weights.safetensors", "weights.ckpt", "weights"):
        (tmp_path / name).write_bytes(content)
        found = read_weights(tmp_path / name)
        assert found.keys() == STATE.keys() and all(torch.equal(found[key], STATE[key]) for key in STATE)


class SavesAtLoading(nn.Module):
    """Its archive writes a file while it is loaded."""

    @torch.jit.export
    def __getstate__(self):
        return torch.zeros(1), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "executed")
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Runs:
    """Unpickling it runs a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def script_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(SavesAtLoading()), buffer)
    return buffer.getvalue()


def test_the_payload_of_a_script_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.load(io.BytesIO(script_bytes()))
    assert Path("executed").exists()


PAYLOADS = {
    "script.pt": (script_bytes, "a TorchScript archive, which runs code when it is loaded"),
    "pickle.pt": (lambda: pickle.dumps({"a": Runs()}, protocol=2), "other objects than tensors (posix.system)"),
    "state.pt": (lambda: torch_bytes({"a": Runs()}), "other objects than tensors (posix.system)"),
    "old.pt": (lambda: torch_bytes({"a": Runs()}, _use_new_zipfile_serialization=False), "(posix.system)"),
    "long-header.safetensors": (lambda: header(2**24, b"{" + b" " * 100), "its header claims 16,777,216 bytes"),
    "huge-header.safetensors": (lambda: header(2**63, b"{}"), "of an unknown kind"),
    "wide.safetensors": (
        lambda: header(65, json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}).encode()),
        "header",
    ),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_code_of_a_file_is_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = PAYLOADS[name]
    Path(name).write_bytes(make())
    assert message in refused(Path(name)).message
    assert not Path("executed").exists()


def test_an_archive_that_claims_to_become_far_larger_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"x")
        with archive.open("bomb/data/0", "w") as entry:
            for _ in range(300):
                entry.write(bytes(2**20))
    assert "bytes that claim to become 314,572,801" in refused(tmp_path / "bomb.pt").message


@pytest.mark.parametrize(
    "content", [{"a": torch.zeros(2).to_sparse()}, {"a": torch.zeros(2, dtype=torch.complex64)}, {1: torch.zeros(2)}]
)
def test_tensors_that_are_no_weights_are_refused(content: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    assert "tensor" in refused(tmp_path / "odd.pt").message


def test_a_tensor_that_repeats_one_number_is_not_unfolded(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1, dtype=torch.float16).expand(10**12)}, tmp_path / "expanded.pt")
    assert read_weights(tmp_path / "expanded.pt")["a"].shape == (10**12,)  # its shape is compared before it is copied
