"""LLCM: 1,064 people under nine cameras, visible by day and infrared by night.

How to obtain it: sign the agreement in ZYK100/LLCM and send it to the authors; it is for research only and is never
passed on.

    LLCM/idx/{train_vis,train_nir}.txt    a line: "nir/0001/0001_c01_s185535_f7010_nir.jpg 0"
    LLCM/idx/test_id.txt                  the people tested on, one line with commas
    LLCM/vis/ nir/                        training images at any depth, named {person:04d}_c{camera:02d}_...
    LLCM/test_vis/cam{1..9}/{person:04d}/ test_nir/...     test images, named alike
"""

from pathlib import Path

from models.modality import PerModality
from pipeline.data.check import DatasetCheck, accept
from pipeline.data.datasets.llcm.archive import open_archive
from pipeline.data.datasets.llcm.counts import check_archive
from pipeline.data.images import file_list_digest
from pipeline.data.tables import build_tables
from pipeline.data.truth import Dataset

NAME = "llcm"

_UNPACK = "unpack the data set again: vis and test_vis hold visible images, nir and test_nir infrared ones"


def read_llcm(root: Path, *, allow_partial: bool = False) -> Dataset:
    """List the images of LLCM, or of a drawn data set of the same layout.

    Person and camera are read from the file's name; in the test folders they must agree with the folders. One camera
    number stands for one place in both modalities. A place without images of a modality, such as infrared test camera
    3, is no error. Rows are sorted by person, then camera, then file name; nothing below `root` is written and no image
    is opened.

    Args:
        root: The folder with `idx`, `vis`, `nir`, `test_vis` and `test_nir`.
        allow_partial: Go on when counts differ from the published ones; the result is then marked `partial`.

    Returns:
        Training tables of the 713 people in the lists and test tables of the 351 people in the test folders. LLCM has
        no validation people.

    Raises:
        DataError: The folder is something else, a name says nothing or contradicts its folder, people are in training
            and in test, counts differ, or a modality is empty.

    Cost:
        2 s for 46,767 images (measured) once the folder listings are in memory.
    """
    archive = open_archive(root)
    partial = accept(root, check_archive(archive), allow_partial)
    trained, tested = PerModality.build(archive.training_rows), PerModality.build(archive.test_rows)
    training = build_tables(root, trained, purpose="training", advice=_UNPACK)
    test = build_tables(root, tested, purpose="test", advice=_UNPACK)
    every_row = trained.map_with(lambda of_training, of_test: (*of_training, *of_test), tested)
    return Dataset(
        name=NAME,
        kind=archive.kind,
        root=root,
        images=build_tables(root, every_row, purpose="the data set", advice=_UNPACK).images,
        training=training,
        validation=None,
        test=test,
        partial=partial,
        file_list=file_list_digest((*training.images, *test.images)),
    )


def check_llcm(root: Path) -> DatasetCheck:
    """Compare LLCM with its published counts, or a drawn stand-in with those it was drawn with.

    The notes give the size of each gallery, which follows from the folders.

    Raises:
        DataError: The folder is not laid out like LLCM, or contradicts itself about a person.
    """
    return check_archive(open_archive(root))
