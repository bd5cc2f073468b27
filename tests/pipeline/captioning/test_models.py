"""Real classes of transformers, loaded from folders and asked about images."""

import importlib
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from models.modality import PerModality
from pipeline.captioning import models
from pipeline.captioning.models import PATH_ENTRY, BlipCaptioner, ChatCaptioner, LoadedModel, StubCaptioner, load_model
from pipeline.captioning.settings import GREYSCALE, PLAIN, RESTRAINED, choose_prompts
from pipeline.errors import ConfigError, WeightsError
from tests.pipeline.captioning.tiny_models import make_llava, make_qwen


def load(model: Path | str) -> LoadedModel:
    return load_model(str(model), device="cpu", precision="auto", local_files_only=True)


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("family", ["chat", "blip"])
def test_a_batch_gives_what_its_images_give_one_by_one_in_their_order(family, request):
    model = load(request.getfixturevalue({"chat": "tiny_llava", "blip": "tiny_blip"}[family]))
    captioner = model.captioner(PLAIN if family == "chat" else "", 12)
    images = pictures(5)

    together = captioner.describe(images)

    assert model.family == family
    assert together == [captioner.describe([image])[0] for image in images]
    assert len(set(together)) > 1, "answers depend on the image"
    assert together == captioner.describe(images), "and on nothing else"


def test_prompts_of_different_lengths_do_not_change_an_answer(tmp_path):
    """An image of Qwen2.5-VL is so many tokens as it is large: a batch has to be padded, at the left."""
    captioner = load(make_qwen(tmp_path / "qwen")).captioner("Please describe a person", 12)
    rng = np.random.default_rng(1)
    images = [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((40, 20), (64, 16), (16, 16))
    ]

    assert captioner.describe(images) == [captioner.describe([image])[0] for image in images]


def test_a_package_that_a_model_needs_is_named(tiny_llava, monkeypatch):
    import transformers

    def incomplete(*_: object, **__: object) -> None:
        raise ImportError("Package `num2words` is required to run SmolVLM processor.")

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", incomplete)

    with pytest.raises(ConfigError, match="needs a package that is not installed: Package `num2words`"):
        load(tiny_llava)


def test_an_answer_does_not_repeat_the_instruction_and_has_no_special_tokens(tiny_llava):
    answers = load(tiny_llava).captioner(PLAIN, 5).describe(pictures(3))

    for answer in answers:
        assert "USER" not in answer.split()[:1]
        assert len(answer.split()) <= 5
        assert not {"<s>", "</s>", "<pad>", "<image>"} & set(answer.split())


def test_blip_goes_on_from_a_prefix(tiny_blip):
    answers = load(tiny_blip).captioner("a person with", 5).describe(pictures(2))

    assert all(answer.startswith("a person with") for answer in answers)


def test_a_folder_is_named_without_the_way_to_it_and_by_the_content_of_its_files(tiny_llava, tmp_path):
    copy = tmp_path / "elsewhere" / tiny_llava.name
    shutil.copytree(tiny_llava, copy)
    one, other = load(tiny_llava), load(copy)
    assert (one.model_id, one.revision, one.dtype) == ("tiny-llava", other.revision, "float32")

    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert load(copy).revision != one.revision


def test_a_chat_model_without_a_template_is_refused(tmp_path):
    folder = make_llava(tmp_path / "dumb", template=None)

    with pytest.raises(WeightsError, match="no chat template") as caught:
        load(folder)

    assert "chat_template.jinja" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", "{"),
        ("config.json", '{"model_type": "unheard-of"}'),
        ("model.safetensors", None),
        ("model.safetensors", "damaged"),
        ("processor_config.json", None),
        ("tokenizer.json", "{}"),
    ],
)
def test_a_folder_that_is_not_complete_is_refused(tiny_llava, tmp_path, file, content):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llava, folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)

    with pytest.raises(WeightsError):
        load(folder)


def test_weights_that_are_not_in_the_file_are_not_made_up(tiny_llava, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_llava, folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "multi_modal_projector" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(WeightsError, match=r"lacks 1 of its weights, first .*multi_modal_projector"):
        load(folder)


def test_pickled_weights_are_not_read(tiny_llava, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llava, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")

    with pytest.raises(WeightsError, match="safetensors"):
        load(folder)


def test_code_that_comes_with_a_model_is_not_run(tiny_llava, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llava, folder)
    marker = tmp_path / "was-run"
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Config: ...\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(WeightsError):
        load(folder)
    assert not marker.exists()


def test_a_text_model_does_not_read_images(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.pipeline.captioning.tiny_models import make_tokenizer

    folder = tmp_path / "text"
    config = LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)

    with pytest.raises(WeightsError, match="does not read images"):
        load(folder)


@pytest.mark.parametrize("name", ["./absent", "some/way/to/a/model"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_a_hub(name):
    with pytest.raises(WeightsError, match="there is no folder"):
        load(name)


def test_a_hub_that_does_not_answer_is_an_error_that_names_the_way_out(monkeypatch):
    import transformers

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub to load the files,\n and couldn't find them in the cached files.")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)

    with pytest.raises(WeightsError, match="couldn't connect to the hub to load the files, and") as caught:
        load_model("llava-hf/llava-1.5-7b-hf", device="cpu", precision="auto", local_files_only=False)

    assert caught.value.hint.startswith("use the folder of a model")


def test_a_model_that_was_not_downloaded_is_refused_without_asking_its_hub(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(WeightsError, match=r"llava-hf/llava-1\.5-7b-hf cannot be loaded"):
        load("llava-hf/llava-1.5-7b-hf")


def test_without_transformers_the_error_says_how_to_install_it(monkeypatch):
    real = importlib.import_module

    def absent(name: str, *arguments: str) -> object:
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
        return real(name, *arguments)

    monkeypatch.setattr(models.importlib, "import_module", absent)

    with pytest.raises(ConfigError, match="transformers") as caught:
        load("llava-hf/llava-1.5-7b-hf")

    assert "pip install -e '.[cpu,caption]'" in caught.value.hint


def test_the_stub_needs_no_library(monkeypatch):
    monkeypatch.setattr(models.importlib, "import_module", lambda name, *_: pytest.fail(f"imports {name}"))

    model = load_model("stub", device="cpu", precision="auto", local_files_only=False)

    image = Image.new("RGB", (2, 2), (10, 20, 30))
    image.info[PATH_ENTRY] = "cam1/1.jpg"
    assert model.captioner("Who?", 5).describe([image]) == ["Who? cam1/1.jpg, mean colour 10 20 30"]


def test_bfloat16_is_for_gpus(tiny_llava):
    with pytest.raises(ConfigError, match="for GPUs"):
        load_model(str(tiny_llava), device="cpu", precision="bfloat16", local_files_only=True)


def test_a_device_that_is_not_there_is_refused(tiny_llava):
    with pytest.raises(ConfigError, match="cuda:99"):
        load_model(str(tiny_llava), device="cuda:99", precision="auto", local_files_only=True)


class FakeInputs(dict):
    def to(self, *_: object) -> "FakeInputs":
        return self


class FakeProcessor:
    """Prompts of different lengths, padded at the side that was asked for."""

    def __init__(self) -> None:
        self.tokenizer = SimpleNamespace(padding_side="right")
        self.asked: list[dict] = []

    def apply_chat_template(self, conversations: list, **options: object) -> FakeInputs:
        assert self.tokenizer.padding_side == "left"
        self.asked.append({"conversations": conversations, **options})
        return FakeInputs(input_ids=torch.zeros(len(conversations), 7, dtype=torch.long))

    def batch_decode(self, tokens: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return [f"  answer\n {' '.join(map(str, row.tolist()))} " for row in tokens]


class FakeModel:
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, fits: int) -> None:
        self.fits = fits

    def generate(self, input_ids: torch.Tensor, **options: object) -> torch.Tensor:
        assert options == {"max_new_tokens": 3, "do_sample": False, "num_beams": 1}
        if len(input_ids) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.cat([input_ids, torch.arange(len(input_ids))[:, None]], dim=1)


def test_prompts_are_padded_at_the_left_and_cut_off_and_whitespace_is_collapsed():
    processor = FakeProcessor()
    images = pictures(2)

    answers = ChatCaptioner(processor, FakeModel(2), instruction="Who?", max_new_tokens=3).describe(images)

    # Seven tokens of each row are the prompt, the eighth is the answer: the number of the row.
    assert answers == ["answer 0", "answer 1"]
    (asked,) = processor.asked
    assert asked["add_generation_prompt"] and asked["processor_kwargs"] == {"padding": True}
    assert [conversation[0]["content"] for conversation in asked["conversations"]] == [
        [{"type": "image", "image": image}, {"type": "text", "text": "Who?"}] for image in images
    ]


def test_too_little_memory_is_a_memory_error():
    captioner = ChatCaptioner(FakeProcessor(), FakeModel(2), instruction="Who?", max_new_tokens=3)

    with pytest.raises(MemoryError, match="CUDA out of memory"):
        captioner.describe(pictures(3))


def test_blip_is_asked_nothing_unless_there_is_a_prefix():
    asked: list[dict] = []

    class Processor(FakeProcessor):
        def __call__(self, images: list, **options: object) -> FakeInputs:
            asked.append(options)
            return FakeInputs(input_ids=torch.zeros(len(images), 0, dtype=torch.long))

    for prefix in ("", "a photo of"):
        BlipCaptioner(Processor(), FakeModel(2), prefix=prefix, max_new_tokens=3).describe(pictures(2))

    assert asked == [{"return_tensors": "pt"}, {"return_tensors": "pt", "text": ["a photo of", "a photo of"]}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("chat", None, None, None), (PLAIN, PLAIN)),
        (("chat", "restrained", None, None), (RESTRAINED, RESTRAINED)),
        (("chat", "greyscale", None, None), (PLAIN, f"{PLAIN} {GREYSCALE}")),
        (("chat", "restrained-greyscale", None, None), (RESTRAINED, f"{RESTRAINED} {GREYSCALE}")),
        (("chat", "greyscale", "Who?", None), ("Who?", "Who?")),
        (("chat", None, None, "Who?"), (PLAIN, "Who?")),
        (("blip", None, None, None), ("", "")),
        (("blip", None, "a photo of", "an infrared photo of"), ("a photo of", "an infrared photo of")),
    ],
)
def test_what_is_asked(arguments, expected):
    assert choose_prompts(*arguments) == PerModality(*expected)


def test_an_instruction_is_not_for_blip():
    with pytest.raises(ConfigError, match="BLIP takes none"):
        choose_prompts("blip", "restrained", None, None)


def test_the_stub_says_the_same_again():
    images = pictures(3)
    assert StubCaptioner("").describe(images) == StubCaptioner("").describe(images)


def test_loading_logs_nothing_of_its_own(tiny_llava, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        load(tiny_llava).captioner(PLAIN, 3).describe(pictures(1))

    streams = capsys.readouterr()
    assert (streams.out, streams.err) == ("", "")
