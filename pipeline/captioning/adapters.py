"""Models of the transformers library as captioners. Neither it nor torch is imported before the first image."""

from typing import Any

from PIL import Image


class ChatCaptioner:
    """A model that answers an instruction about an image: LLaVA, Qwen-VL, SmolVLM and their like.

    Decoding is greedy and deterministic. In 16 bits an answer can depend on what else is in the batch, by a word.

    Args:
        processor: Turns conversations into tensors; it has a chat template. From then on it pads at the left, since an
            answer goes on where its prompt ends.
        model: Generates.
        instruction: What is asked about every image.
        max_new_tokens: The longest answer, in the model's own tokens.

    Source: the instruction and greedy answers follow RSBA (IJCAI 2025) as far as it is described.
    """

    def __init__(self, processor: Any, model: Any, *, instruction: str, max_new_tokens: int) -> None:
        processor.tokenizer.padding_side = "left"
        self._processor, self._model = processor, model
        self._instruction, self._max_new_tokens = instruction, max_new_tokens

    def describe(self, images: list[Image.Image]) -> list[str]:
        """See `Captioner`. Nothing is cut off a prompt: an image alone may be hundreds of tokens."""
        conversations = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": image}, {"type": "text", "text": self._instruction}],
                }
            ]
            for image in images
        ]
        inputs = self._processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        answers = _generate(self._model, inputs, self._max_new_tokens)
        return _texts(self._processor, answers[:, inputs["input_ids"].shape[1] :])


class BlipCaptioner:
    """BLIP: it is asked nothing, and goes on from a text, if one is given, which is then part of the caption.

    Args:
        processor: Turns images and the text into tensors.
        model: Generates.
        prefix: How every caption begins; empty for none.
        max_new_tokens: The longest continuation, in the model's own tokens.
    """

    def __init__(self, processor: Any, model: Any, *, prefix: str, max_new_tokens: int) -> None:
        self._processor, self._model = processor, model
        self._prefix, self._max_new_tokens = prefix, max_new_tokens

    def describe(self, images: list[Image.Image]) -> list[str]:
        """See `Captioner`."""
        texts = {"text": [self._prefix] * len(images)} if self._prefix else {}
        inputs = self._processor(images=images, return_tensors="pt", **texts)
        return _texts(self._processor, _generate(self._model, inputs, self._max_new_tokens))


def _generate(model: Any, inputs: Any, max_new_tokens: int) -> Any:
    import torch

    try:
        with torch.inference_mode():
            return model.generate(
                **inputs.to(model.device, model.dtype), max_new_tokens=max_new_tokens, do_sample=False, num_beams=1
            )
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error


def _texts(processor: Any, tokens: Any) -> list[str]:
    return [" ".join(text.split()) for text in processor.batch_decode(tokens, skip_special_tokens=True)]
