"""RegDB: 412 people under one camera that sees visible light and infrared, ten images of each.

How to obtain it: ask its authors (Dongguk University) for it; it is for research only and is never passed on. The lists
of the ten trials come with the copies that follow-up work uses and belong into `idx/`.

    RegDB/Visible/{person}/female_back_v_02396_193.bmp     RegDB/Thermal/{person}/female_back_t_02405_193.bmp
    RegDB/idx/{train,test}_{visible,thermal}_{1..10}.txt   a line: "Visible/193/female_back_v_02396_193.bmp 17"
"""

from itertools import chain, islice
from pathlib import Path

from models.modality import Modality, PerModality
from pipeline.data.check import DatasetCheck, accept
from pipeline.data.datasets.regdb.archive import LIST_FOLDER, SPLITS, TRIALS, RegdbArchive, TrialLists, open_archive
from pipeline.data.datasets.regdb.counts import check_archive, label_mismatches, people_trained_and_tested
from pipeline.data.images import file_list_digest
from pipeline.data.tables import ImageRow, build_tables
from pipeline.data.truth import Dataset, SplitTables
from pipeline.errors import ConfigError, DataError

NAME = "regdb"
CAMERAS = PerModality(1, 2)
"""One housing, two sensors. Images of one person by both may be matched: the protocol hides nothing."""

_UNPACK = "unpack the data set again: Visible and Thermal hold ten images of each of 412 people"


def read_regdb(root: Path, *, trial: int | None, allow_partial: bool = False) -> Dataset:
    """List the images of RegDB in one of its ten random splits, or of a drawn data set of the same layout.

    A model belongs to a trial: one that was trained on trial 1 has seen half of the test people of trial 2. The person
    is the folder; the labels in the lists count differently in every list and are only compared with it. Rows are
    sorted by person, then file name, whatever the lists' order. All ten trials are checked, not only the one asked for;
    nothing below `root` is written and no image is opened.

    Args:
        root: The folder with `Visible`, `Thermal` and `idx`.
        trial: Which split, 1 to 10. There is no default.
        allow_partial: Go on when counts differ from the published ones; the result is then marked `partial`. A trial
            that lacks a list, tests its training people, or mixes people up is refused all the same.

    Returns:
        Training and test tables of the trial, visible rows under camera 1 and infrared ones under camera 2; images of
        all trials. RegDB has no validation people.

    Raises:
        ConfigError: No trial is given, or one that does not exist.
        DataError: The folder is something else, the trial's lists contradict each other or the folders, counts differ,
            or a modality is empty.

    Cost:
        1.5 s for 8,240 images and 40 lists (measured) once the folder listings are in memory.
    """
    if trial is None or trial not in TRIALS:
        unset = "RegDB is split in ten ways, and data.trial does not say which to use"
        raise ConfigError(
            unset if trial is None else f"RegDB has no trial {trial}: they are numbered 1 to 10",
            hint="one model a trial: `vireid train cclnet-regdb --trials 1-10` trains ten, `--set data.trial=1` one",
        )
    archive = open_archive(root)
    lists = archive.trials[TRIALS.index(trial)]
    _require_usable(root, lists)
    partial = accept(root, check_archive(archive), allow_partial)
    training, test = (_tables(archive, lists, split) for split in SPLITS)
    every_image = archive.images.map(frozenset)
    return Dataset(
        name=NAME,
        kind=archive.kind,
        root=root,
        images=_tables_of(archive, every_image, "the data set").images,
        training=training,
        validation=None,
        test=test,
        partial=partial,
        file_list=file_list_digest((*training.images, *test.images)),
        trial=trial,
    )


def check_regdb(root: Path) -> DatasetCheck:
    """Compare RegDB with its published counts in all ten trials, or a drawn stand-in with what it was drawn with.

    Contradictions between lists are rows as well, so that one report names all of them.

    Raises:
        DataError: The folder is not laid out like RegDB, or a line of a list is not a path and a label.
    """
    return check_archive(open_archive(root))


def _require_usable(root: Path, lists: TrialLists) -> None:
    """Refuse what would make every number of the trial wrong, however much of the rest is there."""
    if lists.missing:
        raise DataError(
            f"{root}: trial {lists.trial} lacks {', '.join(lists.missing)}",
            hint=f"copy {LIST_FOLDER}/ again: a trial is four lists, train and test of both modalities",
        )
    problems = list(islice(chain(people_trained_and_tested(lists), label_mismatches(lists)), 5))
    if problems:
        raise DataError(
            f"{root / LIST_FOLDER} contradicts itself: {'; '.join(problems)}",
            hint="restore the lists from the data set: a model must not be tested on people it was trained on, and a "
            "label stands for one folder",
        )


def _tables(archive: RegdbArchive, lists: TrialLists, split: str) -> SplitTables:
    listed = PerModality.build(lambda modality: frozenset(image.path for image in lists.listed(split, modality)))
    return _tables_of(archive, listed, {"train": "training", "test": "test"}[split])


def _tables_of(archive: RegdbArchive, wanted: PerModality[frozenset[str]], purpose: str) -> SplitTables:
    """Tables of the wanted paths that exist."""

    def rows(modality: Modality) -> tuple[ImageRow, ...]:
        people = archive.images[modality]
        return tuple(
            ImageRow(person=person, camera=CAMERAS[modality], path=path)
            for path, person in people.items()
            if path in wanted[modality]
        )

    return build_tables(archive.root, PerModality.build(rows), purpose=purpose, advice=_UNPACK)
