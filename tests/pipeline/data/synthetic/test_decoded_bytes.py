"""Images in the layouts of published data sets: the bytes, and the keys of stores, of earlier versions."""

import numpy as np
import pytest
from PIL import Image

from pipeline.data.dataset import read_dataset, reading_of, spec_of
from pipeline.data.image_files import AS_STORED
from pipeline.data.store import open_store, store_key


@pytest.mark.parametrize("layout", ["sysu", "regdb", "llcm"])
def test_published_images_keep_their_bytes(smoke_sets, tmp_path, layout):
    tables = read_dataset(layout, smoke_sets[layout][0], split=spec_of(layout).any_split).images
    reading = reading_of(layout)
    assert reading == AS_STORED
    store = open_store(tables, height=32, width=16, cache_folder=tmp_path, reading=reading)
    assert store.folder.name == store_key(tables, height=32, width=16)
    for modality, table in tables.items():
        for row in range(0, len(table), 5):
            with Image.open(table.root / table.paths[row]) as image:
                expected = image.convert("RGB").resize((16, 32), Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(store.arrays[modality][row], np.asarray(expected))


def test_a_manifest_applies_orientation_tags_unless_a_setting_forbids_it():
    assert reading_of("manifest").orientation == "apply"
    assert reading_of("manifest", orientation="ignore") == AS_STORED
    assert reading_of("sysu", orientation="apply").orientation == "apply"
