"""Vision-language models of the real classes with a few thousand random weights, in folders as a hub gives them."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from models.torchvision_operators import define_missing_operators

WORDS = (
    *("<pad>", "<s>", "</s>", "<unk>", "<image>", "USER", "ASSISTANT", ":"),
    *("Please", "describe", "the", "characteristics", "of", "pedestrian", "in", "image", "."),
    *("a", "person", "with", "and", "red", "blue", "black", "white", "shirt", "trousers", "hat", "bag"),
)
TEMPLATE = (
    "{% for message in messages %}USER : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} ASSISTANT :{% endif %}"
)
SIZE = 16


def make_llava(folder: Path, *, template: str | None = TEMPLATE) -> Path:
    """LLaVA as `llava-hf` publishes it: CLIP's image tower, a projection and a Llama."""
    define_missing_operators()
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    images = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    processor = LlavaProcessor(
        images,
        make_tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIZE,
            patch_size=8,
        ),
        text_config=LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_id=WORDS.index("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    return _save(LlavaForConditionalGeneration, config, processor, folder)


def make_blip(folder: Path) -> Path:
    """BLIP as `Salesforce` publishes it: an image tower and a text decoder."""
    define_missing_operators()
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
        BlipTextConfig,
        BlipVisionConfig,
    )

    tokenizer = make_tokenizer(ends="<s> $A </s>")
    processor = BlipProcessor(BlipImageProcessor(size={"height": SIZE, "width": SIZE}), tokenizer)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = BlipConfig(
        text_config=BlipTextConfig(
            vocab_size=len(WORDS),
            encoder_hidden_size=16,
            projection_dim=16,
            bos_token_id=1,
            eos_token_id=2,
            sep_token_id=2,
            pad_token_id=0,
            **sizes,
        ).to_dict(),
        vision_config=BlipVisionConfig(image_size=SIZE, patch_size=8, projection_dim=16, **sizes).to_dict(),
        image_text_hidden_size=16,
        projection_dim=16,
    )
    return _save(BlipForConditionalGeneration, config, processor, folder)


def make_qwen(folder: Path) -> Path:
    """Qwen2.5-VL, whose prompts are the longer the larger an image is."""
    define_missing_operators()
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=4, merge_size=2, min_pixels=64, max_pixels=1024),
        tokenizer=make_tokenizer(image_token="<|image_pad|>"),
        video_processor=Qwen2VLVideoProcessor(patch_size=4, merge_size=2),
        chat_template=TEMPLATE.replace("<image>", "<|image_pad|>"),
    )
    sizes = {"hidden_size": 16, "intermediate_size": 16}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(WORDS),
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **sizes,
        },
        vision_config={
            "depth": 1,
            "num_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 16,
            "window_size": 16,
            "fullatt_block_indexes": [0],
            **sizes,
        },
        image_token_id=WORDS.index("<image>"),
    )
    return _save(Qwen2_5_VLForConditionalGeneration, config, processor, folder)


def make_tokenizer(ends: str | None = None, image_token: str = "<image>") -> Any:
    """A word is a token."""
    from transformers import PreTrainedTokenizerFast

    words = [image_token if word == "<image>" else word for word in WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if ends is not None:
        tokenizer.post_processor = processors.TemplateProcessing(single=ends, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[image_token],
    )


def _save(network: Any, config: Any, processor: Any, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = network(config)
        for weights in model.parameters():
            if weights.ndim > 1:  # larger than they are by default, so that answers depend on the image
                torch.nn.init.normal_(weights, std=0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
