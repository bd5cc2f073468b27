"""SYSU-MM01: 491 people under four visible and two infrared cameras.

How to obtain it: sign the agreement in wuancong/SYSU-MM01 and send it to the authors; it is for research only and is
never passed on. `rand_perm_cam.mat`, needed for the `official` gallery draw alone, is in `evaluation/data_split/` of
that repository and belongs into `exp/`.

    SYSU-MM01/cam{1..6}/{person:04d}/{image:04d}.jpg      visible: cameras 1 2 4 5; infrared: cameras 3 6
    SYSU-MM01/exp/{train,val,test}_id.{txt,mat}           rand_perm_cam.mat
"""

from pathlib import Path

from models.modality import Modality, PerModality
from pipeline.data.check import accept
from pipeline.data.datasets.sysu.archive import MODALITY_OF_CAMERA, SPLITS, SysuArchive, open_archive
from pipeline.data.datasets.sysu.counts import check_sysu_mm01
from pipeline.data.images import file_list_digest
from pipeline.data.tables import ImageRow, build_tables
from pipeline.data.truth import Dataset, SplitTables
from pipeline.errors import ConfigError

NAME = "sysu-mm01"


def read_sysu_mm01(root: Path, *, split: str = "train_val", allow_partial: bool = False) -> Dataset:
    """List the images of SYSU-MM01, or of a drawn data set of the same layout.

    Rows are sorted by person, then camera, then file name; nothing below `root` is written and no image is opened.
    The whole data set is checked, not only the splits asked for.

    Args:
        root: The folder with `cam1` to `cam6` and `exp`.
        split: The people to train on: `train_val` (395, what published results use), `train` (296) or `val` (99).
        allow_partial: Go on when counts differ from the published ones; the result is then marked `partial`.

    Returns:
        Training tables of `split` and test tables of the 96 test people, all their images in both modalities; the 99
        validation people apart when `split` is `train`.

    Raises:
        ConfigError: No such split.
        DataError: The folder is something else, its lists contradict each other, counts differ, or a modality is empty.

    Cost:
        0.7 s for 45,000 images (measured) once the folder listings are in memory.
    """
    splits_of_training = {"train_val": ("train", "val"), "train": ("train",), "val": ("val",)}
    if split not in splits_of_training:
        raise ConfigError(f"SYSU-MM01 has no training split {split!r}", hint=f"one of {', '.join(splits_of_training)}")
    archive = open_archive(root)
    partial = accept(root, check_sysu_mm01(archive), allow_partial)
    training = _tables(archive, "training", splits_of_training[split])
    test = _tables(archive, "test", ("test",))
    return Dataset(
        name=NAME,
        kind=archive.kind,
        root=root,
        images=_tables(archive, "the data set", SPLITS).images,
        training=training,
        validation=_tables(archive, "validation", ("val",)) if split == "train" else None,
        test=test,
        partial=partial,
        file_list=file_list_digest((*training.images, *test.images)),
    )


def _tables(archive: SysuArchive, purpose: str, splits: tuple[str, ...]) -> SplitTables:
    members = {person for split in splits for person in archive.people[split]}

    def rows(modality: Modality) -> tuple[ImageRow, ...]:
        return tuple(
            ImageRow(person=person, camera=camera, path=f"cam{camera}/{person:04d}/{name}")
            for (camera, person), names in archive.folders.items()
            if person in members and MODALITY_OF_CAMERA[camera] is modality
            for name in names
        )

    advice = "unpack the data set again; cameras 3 and 6 are infrared, the others visible"
    return build_tables(archive.root, PerModality.build(rows), purpose=purpose, advice=advice)
