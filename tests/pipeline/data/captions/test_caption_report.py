"""Captions in numbers: worked by hand, one word a token."""

import logging

import numpy as np
import pytest

from models.modality import PerModality
from pipeline.data.captions.report import describe_captions, names_colour
from pipeline.data.captions.store import Captions, truncation_report
from pipeline.errors import DataError


def words(texts: list[str]) -> np.ndarray:
    return np.array([len(text.split()) + 2 for text in texts], dtype=np.int64)


TEXTS = PerModality(("a b c", "a b c", "a red b " * 25 + "c d", "a"), ("a grey b", "a bgrey"))


def test_every_number_of_the_report():
    visible, infrared = describe_captions(TEXTS, words).modalities

    # Lengths with start and end: 5, 5, 3 * 25 + 2 + 2 = 79, 3: mean 92 / 4 = 23; 95 % of four are all four.
    assert (visible.images, visible.coverage) == (4, 1.0)
    assert visible.mean_tokens == 23.0
    assert (visible.p95_tokens, visible.max_tokens) == (79, 79)
    assert visible.truncated_share == 0.25
    assert visible.duplicate_share == 0.25
    assert visible.colour_share == 0.25
    assert visible.histogram == {"0-9": 3, "70-79": 1}
    assert (infrared.colour_share, infrared.duplicate_share, infrared.mean_tokens) == (0.5, 0.0, 4.5)


def test_exactly_77_tokens_are_not_too_many():
    texts = PerModality((" ".join(["a"] * 75),), (" ".join(["a"] * 76),))

    report = describe_captions(texts, words)

    assert (report.modalities.visible.truncated_share, report.modalities.infrared.truncated_share) == (0.0, 1.0)


def test_the_length_of_95_in_100_is_that_of_the_95th():
    texts = tuple(" ".join(["a"] * length) for length in range(1, 101))

    # Lengths 3 to 102; the 95th of them is 97.
    assert describe_captions(PerModality(texts, texts), words).modalities.visible.p95_tokens == 97


def test_a_report_is_logged_a_line_a_modality_and_is_plain_json(caplog):
    with caplog.at_level(logging.INFO):
        report = truncation_report(Captions(TEXTS, ""), words, max_truncated_share=0.25)

    assert len(caplog.messages) == 2
    assert caplog.messages[0] == (
        "visible captions: 4 images, 100.0% with one, 25.0% repeated, 23.0 tokens (95 % within 79, at most 79), "
        "25.0% over 77, 25.0% name a colour"
    )
    assert report.to_dict()["infrared"]["histogram"] == {"0-9": 2}


def test_a_larger_share_of_captions_that_lose_their_end_than_allowed_is_refused():
    with pytest.raises(DataError, match=r"25.0% of the visible captions have more than 77 tokens.*longest has 79"):
        truncation_report(Captions(TEXTS, ""), words, max_truncated_share=0.05)


@pytest.mark.parametrize(
    ("text", "named"), [("Navy", True), ("a white-striped shirt", True), ("a tanned man", False), ("", False)]
)
def test_a_colour_is_a_whole_word(text, named):
    assert names_colour(text) is named
