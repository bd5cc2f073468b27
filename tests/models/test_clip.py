import hashlib
import importlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models import clip as clip_module
from models.clip import LoadedClip, WeightsLoadError, demo_clip_folder, load_clip
from tests.models.conftest import ARCHITECTURES, write_folder

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.(script|save):DeprecationWarning")

RN50_DIGEST = "afeb0e10f9e5a86d"


class Node(nn.Module):
    """Holds tensors at the places that their names spell, so that its state dict has exactly these names."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        deeper: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            first, _, rest = name.partition(".")
            if rest:
                deeper.setdefault(first, {})[rest] = tensor
            else:
                self.register_buffer(name, tensor)
        for first, part in deeper.items():
            self.add_module(first, Node(part))


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def write_archive(path: Path, state: dict[str, Tensor]) -> None:
    """A TorchScript archive as OpenAI's are: half precision, and three numbers among the weights."""
    numbers = {
        "input_resolution": torch.tensor(64),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    torch.jit.save(torch.jit.script(Node({**halved(state), **numbers})), path)


def assert_same_weights(loaded: LoadedClip, expected: dict[str, Tensor]) -> None:
    state = loaded.model.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert tensor.dtype in (torch.float32, torch.int64)
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name


def refusal(model: str, weights: Path | str) -> WeightsLoadError:
    with pytest.raises(WeightsLoadError) as caught:
        load_clip(model, str(weights))
    return caught.value


def test_random_weights_are_those_of_the_seed(tiny_clip: LoadedClip) -> None:
    assert load_clip("tiny", "random", seed=1).origin == tiny_clip.origin
    assert load_clip("tiny", "random", seed=2).origin.digest != tiny_clip.origin.digest
    assert (tiny_clip.origin.kind, tiny_clip.origin.model, len(tiny_clip.origin.digest)) == ("random", "tiny", 16)


def test_loading_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    load_clip("tiny", "random", seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_random_trunk_is_not_the_identity(tiny_clip: LoadedClip) -> None:
    scales = {name: value for name, value in tiny_clip.model.named_parameters() if name.endswith("bn3.weight")}
    assert len(scales) == 5  # four blocks and the stem
    assert all((scale == 1).all() for scale in scales.values())


def test_a_loaded_model_is_in_single_precision_and_evaluation_mode(tiny_clip: LoadedClip) -> None:
    assert {parameter.dtype for parameter in tiny_clip.model.parameters()} == {torch.float32}
    assert not any(module.training for module in tiny_clip.model.modules())


def test_the_tokenizer_is_clips_own_vocabulary(tiny_clip: LoadedClip) -> None:
    ids = tiny_clip.tokenizer(["a", ""])
    assert ids.shape == (2, 77)
    assert ids[:, :4].tolist() == [[49406, 320, 49407, 0], [49406, 49407, 0, 0]]


@pytest.mark.parametrize("name", ["plain.pt", "weights.safetensors", "parallel.pt"])
def test_a_state_dict_is_read_back_exactly(name: str, tiny_clip: LoadedClip, tmp_path: Path) -> None:
    path, state = tmp_path / name, tiny_clip.model.state_dict()
    match name:
        case "weights.safetensors":
            save_file(state, path)
        case "parallel.pt":  # a checkpoint of a training script that ran on several devices
            torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
        case _:
            torch.save(state, path)
    loaded = load_clip("tiny", str(path))
    assert_same_weights(loaded, tiny_clip.model.state_dict())
    assert (loaded.origin.kind, loaded.origin.digest) == ("file", tiny_clip.origin.digest)


def test_an_archive_without_step_counters_is_read(tiny_clip: LoadedClip, tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    state = {k: v for k, v in tiny_clip.model.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, path)
    assert_same_weights(load_clip("tiny", str(path)), tiny_clip.model.state_dict())


def test_an_archive_that_is_not_the_published_one_is_refused(tiny_clip: LoadedClip, tmp_path: Path) -> None:
    path = tmp_path / "RN50.pt"
    write_archive(path, tiny_clip.model.state_dict())
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    error = refusal("RN50-quickgelu", path)
    assert f"SHA-256 {found}..., published {RN50_DIGEST}..." in error.message
    assert "safetensors" in error.hint
    assert "is a TorchScript archive, which runs code" in refusal("tiny", path).message  # no published digest


def test_an_archive_with_the_published_digest_is_read_and_counts_as_openais(
    tiny_clip: LoadedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "RN50.pt"
    write_archive(path, tiny_clip.model.state_dict())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(clip_module, "_published_digest", lambda _name, _tag: digest)
    loaded = load_clip("tiny", str(path))
    assert_same_weights(loaded, halved(tiny_clip.model.state_dict()))
    assert loaded.origin.kind == "openai"


@pytest.mark.parametrize("weights", ["openai", "RN50.pt"])
def test_openai_weights_are_refused_by_an_architecture_with_the_plain_gelu(
    weights: str, tiny_clip: LoadedClip, tmp_path: Path
) -> None:
    if weights == "RN50.pt":
        write_archive(tmp_path / weights, tiny_clip.model.state_dict())
        weights = str(tmp_path / weights)
    error = refusal("RN50", weights)
    assert "quick GELU" in error.message
    assert error.hint == "set model.architecture to RN50-quickgelu"


def test_weights_that_cannot_be_downloaded_are_named_with_their_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(entry: dict[str, Any]) -> str:
        raise FileNotFoundError("Failed to download file (open_clip_model.safetensors)\nand a long story")

    monkeypatch.setattr(importlib.import_module("open_clip.pretrained"), "download_pretrained", offline)
    error = refusal("RN50-quickgelu", "openai")
    assert error.message == (
        "the openai weights of RN50-quickgelu cannot be downloaded: "
        "Failed to download file (open_clip_model.safetensors)"
    )
    assert f"RN50.pt, SHA-256 {RN50_DIGEST}..." in error.hint
    assert "model.weights to the path of the file" in error.hint
    other = refusal("RN50-quickgelu", "cc12m")
    assert "the cc12m weights of RN50-quickgelu" in other.hint


def test_a_downloaded_file_is_read_and_carries_its_tag(
    tiny_clip: LoadedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "open_clip_model.safetensors"
    save_file(tiny_clip.model.state_dict(), path)
    monkeypatch.setattr(importlib.import_module("open_clip.pretrained"), "download_pretrained", lambda _: str(path))
    monkeypatch.setattr(clip_module, "_architecture", lambda _: clip_module._TINY_ARCHITECTURE)
    loaded = load_clip("RN50-quickgelu", "openai")
    assert_same_weights(loaded, tiny_clip.model.state_dict())
    assert (loaded.origin.kind, loaded.origin.model) == ("openai", "RN50-quickgelu")


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_a_folder_in_open_clips_form_brings_its_own_architecture(name: str, tmp_path: Path) -> None:
    original = write_folder(tmp_path / name, ARCHITECTURES[name])
    loaded = load_clip("any name", str(tmp_path / name))
    assert_same_weights(loaded, original.state_dict())
    assert (loaded.origin.kind, loaded.origin.model) == ("file", name)


def test_the_stand_in_is_loaded_by_name_and_recognised_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo_clip"
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3}
    vision = {"image_size": 128, "layers": [1, 1, 2, 1], "width": 16}
    original = write_folder(folder, {"embed_dim": 128, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text})
    monkeypatch.setattr(clip_module, "demo_clip_folder", lambda: folder)
    loaded = load_clip("RN50-quickgelu", "demo")
    assert_same_weights(loaded, original.state_dict())
    assert (loaded.origin.kind, loaded.origin.model) == ("demo", "demo_clip")
    assert load_clip("RN50-quickgelu", f"{tmp_path}/./demo_clip").origin == loaded.origin


def test_the_shipped_stand_in_lies_beside_the_code() -> None:
    assert demo_clip_folder() == Path(clip_module.__file__).parent / "demo_clip"


def test_the_text_tower_is_found_in_the_older_layout_of_names(mean_vit_clip: LoadedClip, tmp_path: Path) -> None:
    # A model whose text tower is a module of its own reads weights that were saved when it was not one.
    state = {name.removeprefix("text."): tensor for name, tensor in mean_vit_clip.model.state_dict().items()}
    folder = tmp_path / "older"
    write_folder(folder, ARCHITECTURES["mean-vit"])
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({**state, "logit_scale": state["logit_scale"].reshape(1)}, folder / "open_clip_pytorch_model.bin")
    # The image tower has a transformer and positions too: they keep their names.
    assert_same_weights(load_clip("", str(folder)), mean_vit_clip.model.state_dict())


def test_the_first_difference_of_another_architecture_is_named(tiny_clip: LoadedClip, tmp_path: Path) -> None:
    state = tiny_clip.model.state_dict()
    path = tmp_path / "other.safetensors"

    save_file({**state, "visual.layer2.0.conv1.weight": torch.zeros(16, 64, 1, 1)}, path)
    message = refusal("tiny", path).message
    assert "visual.layer2.0.conv1.weight is 16 x 64 x 1 x 1 in the file, 16 x 32 x 1 x 1 in the model" in message

    save_file({name: tensor for name, tensor in state.items() if name != "ln_final.weight"}, path)
    assert f"{path} does not fit tiny: ln_final.weight (64) is missing in the file" == refusal("tiny", path).message

    save_file({**state, "visual.proj": torch.zeros(4, 2)}, path)
    error = refusal("tiny", path)
    assert "visual.proj (4 x 2) is unknown to the model" in error.message
    assert "model.architecture" in error.hint


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    error = refusal("RN50-quickgelu", tmp_path / "RN50.pt")
    assert str(tmp_path / "RN50.pt") in error.message
    assert "openai" in error.hint  # a tag that this architecture has


@pytest.mark.parametrize("weights", ["random", "openai"])
def test_an_unknown_architecture_is_answered_with_similar_names(weights: str) -> None:
    error = refusal("RN50-quickgelo", weights)
    assert error.message == "open_clip has no architecture RN50-quickgelo"
    assert "RN50-quickgelu" in error.hint


def test_an_architecture_with_a_tower_of_another_library_is_refused() -> None:
    assert "another library" in refusal("ViT-B-16-SigLIP", "random").message


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pt", "text.pt", "archive.pt"])
def test_a_damaged_file_is_refused(name: str, tiny_clip: LoadedClip, tmp_path: Path) -> None:
    path, state = tmp_path / name, tiny_clip.model.state_dict()
    match name:
        case "cut.safetensors":
            save_file(state, path)
        case "archive.pt":
            write_archive(path, state)
        case _:
            torch.save(state, path)
    path.write_bytes(b"not weights" if name == "text.pt" else path.read_bytes()[: path.stat().st_size // 2])
    error = refusal("tiny", path)
    assert f"{path} cannot be read as weights: " in error.message
    assert "\n" not in error.message


class Trap:
    """Unpickling it would leave a trace."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


def test_objects_in_a_file_are_never_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Trap()}, "trap.pt")
    assert "cannot be read as weights" in refusal("tiny", "trap.pt").message
    assert not Path("executed").exists()


def test_a_file_of_other_things_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": [1, 2]}, tmp_path / "list.pt")
    assert "does not contain named tensors only" in refusal("tiny", tmp_path / "list.pt").message
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    assert "does not contain named tensors only" in refusal("tiny", tmp_path / "list.pt").message


def test_a_folder_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    assert "has no open_clip_config.json" in refusal("tiny", tmp_path).message
    config = tmp_path / "open_clip_config.json"
    config.write_text("{}", encoding="utf-8")
    assert "does not describe a model" in refusal("tiny", tmp_path).message
    config.write_text(json.dumps({"model_cfg": ARCHITECTURES["vit"]}), encoding="utf-8")
    assert "has no weights" in refusal("tiny", tmp_path).message
    save_file({"a": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    assert "describes 2 layers, and its weights have 1 tensors" in refusal("tiny", tmp_path).message
    write_folder(tmp_path, ARCHITECTURES["vit"])
    wide = {**ARCHITECTURES["vit"], "text_cfg": {**ARCHITECTURES["vit"]["text_cfg"], "vocab_size": 10**12}}
    config.write_text(json.dumps({"model_cfg": wide}), encoding="utf-8")  # four terabytes, were they allocated
    assert "1000000000000" in refusal("tiny", tmp_path).message
    config.write_text(json.dumps({"model_cfg": {**ARCHITECTURES["vit"], "depth": 3}}), encoding="utf-8")
    assert "depth" in refusal("tiny", tmp_path).message


def test_the_error_survives_a_trip_between_processes() -> None:
    error = pickle.loads(pickle.dumps(WeightsLoadError("no weights", "get some")))
    assert (str(error), error.hint) == ("no weights", "get some")
    assert isinstance(error, ValueError)
