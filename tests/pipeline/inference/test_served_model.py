"""Tables of image paths: a vector a row, whatever the order of the modalities."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.inference.served_model import ServedEncoder
from tests.pipeline.inference.mean_encoder import MeanEncoder, paint


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    paths = [str(paint(tmp_path / f"{number}.png", (10 * number, 0, 0))) for number in range(4)]
    return pd.DataFrame(
        {"path": [*paths, paths[0]], "modality": ["infrared", "visible", "infrared", "visible", "visible"]}
    )


def test_a_vector_stands_in_the_row_of_its_image(table: pd.DataFrame) -> None:
    # The stand-in encoder makes visible images brighter by one; the last row shows the first image again.
    assert ServedEncoder(MeanEncoder()).predict(table)[:, 0].tolist() == [0, 11, 20, 31, 1]


def test_an_unknown_modality_is_named(table: pd.DataFrame) -> None:
    table.loc[2, "modality"] = "thermal"
    with pytest.raises(ValueError, match="row 2: modality 'thermal'"):
        ServedEncoder(MeanEncoder()).predict(table)


def test_an_image_that_cannot_be_read_is_named(table: pd.DataFrame) -> None:
    Path(table["path"][3]).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"3\.png: no image"):
        ServedEncoder(MeanEncoder()).predict(table)
    assert np.isfinite(ServedEncoder(MeanEncoder()).predict(table[:3])).all()
