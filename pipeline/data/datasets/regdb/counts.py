"""Is this all of RegDB? Images, lists and contradictions of all ten trials, expected against found."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice

from models.modality import Modality, PerModality
from pipeline.data.check import MAX_OFFENDERS, CheckRow, DatasetCheck
from pipeline.data.datasets.regdb.archive import IMAGE_FOLDERS, LIST_FOLDER, SPLITS, RegdbArchive, TrialLists, list_name
from pipeline.data.labelled_lists import label_contradictions, name_missing_images, repetitions
from pipeline.data.split_counts import SplitCounts, drawn_split_counts

# Every trial splits the 412 people at random into two halves; each has ten images of either modality.
PUBLISHED_COUNTS: Mapping[str, SplitCounts] = {
    "train": SplitCounts(people=206, images=PerModality(2060, 2060)),
    "test": SplitCounts(people=206, images=PerModality(2060, 2060)),
}
IMAGES_A_PERSON = 10

_FILES = "unpack Visible and Thermal again: each holds 412 folders of 10 images"
_LISTS = f"copy {LIST_FOLDER}/ again: 40 lists, train and test of both modalities for each of ten trials"
_DRAWN = "draw the data set again"


def check_archive(archive: RegdbArchive) -> DatasetCheck:
    """Compare an archive with the published counts, or a drawn one with those it was written with.

    Returns:
        Every row, and at most five offenders.

    Raises:
        DataError: `drawn.json` has no counts.
    """
    expected = PUBLISHED_COUNTS if archive.drawn is None else drawn_split_counts(archive.drawn, SPLITS)
    rows = (*_rows_of_images(archive, expected), *_rows_of_trials(archive, expected))
    check = DatasetCheck(rows=rows, offenders=())
    if check.passed:
        return check
    return DatasetCheck(rows=rows, offenders=tuple(islice(_offenders(archive), MAX_OFFENDERS)))


def label_mismatches(lists: TrialLists) -> Iterator[str]:
    """Where label and folder do not correspond one to one inside a list of a trial."""
    for (split, modality), listed in lists.lists.items():
        for contradiction in label_contradictions((image.label, image.person) for image in listed):
            yield f"{list_name(lists.trial, split, modality)}: {contradiction}"


def people_trained_and_tested(lists: TrialLists) -> Iterator[str]:
    """Everybody who is in the training and in the test lists of a trial."""
    for person in sorted(lists.all_people("train") & lists.all_people("test")):
        yield f"trial {lists.trial}: person {person} is in train and in test"


def _rows_of_images(archive: RegdbArchive, expected: Mapping[str, SplitCounts]) -> Iterator[CheckRow]:
    advice = _FILES if archive.drawn is None else _DRAWN
    people = archive.images.map(lambda images: set(images.values()))
    num_people = sum(counts.people for counts in expected.values())
    yield CheckRow("people with images of both modalities", num_people, len(people.visible & people.infrared), advice)
    for modality, images in archive.images.items():
        num_images = sum(counts.images[modality] for counts in expected.values())
        yield CheckRow(f"{modality} images", num_images, len(images), advice)
    if archive.drawn is None:
        differing = len(list(_people_with_other_numbers(archive)))
        yield CheckRow(f"people and modalities without {IMAGES_A_PERSON} images", 0, differing, advice)


def _rows_of_trials(archive: RegdbArchive, expected: Mapping[str, SplitCounts]) -> Iterator[CheckRow]:
    lists_advice, files_advice = (_LISTS, _FILES) if archive.drawn is None else (_DRAWN, _DRAWN)
    for lists in archive.trials:
        for split, counts in expected.items():
            name = f"trial {lists.trial}, {split}"
            yield CheckRow(f"{name}, people", counts.people, len(lists.all_people(split)), lists_advice)
            for modality in Modality:
                found = len(lists.listed(split, modality))
                yield CheckRow(f"{name}, {modality} lines", counts.images[modality], found, lists_advice)
    yield CheckRow("listed images that do not exist", 0, sum(_missing_images(archive).map(len)), files_advice)
    for name, contradictions in _CONTRADICTIONS.items():
        yield CheckRow(name, 0, sum(len(list(contradictions(lists))) for lists in archive.trials), lists_advice)


def _offenders(archive: RegdbArchive) -> Iterator[str]:
    yield from (f"{name} is missing" for lists in archive.trials for name in lists.missing)
    for modality, missing in _missing_images(archive).items():
        yield from name_missing_images(missing, set(archive.images[modality].values()), modality)
    for contradictions in _CONTRADICTIONS.values():
        yield from chain.from_iterable(contradictions(lists) for lists in archive.trials)
    yield from chain.from_iterable(_unlisted(archive, lists) for lists in archive.trials)
    if archive.drawn is None:
        yield from _people_with_other_numbers(archive)


def _missing_images(archive: RegdbArchive) -> PerModality[dict[str, int]]:
    """The person of every listed path without a file, by person and path."""

    def missing(modality: Modality) -> dict[str, int]:
        listed = chain.from_iterable(lists.listed(split, modality) for lists in archive.trials for split in SPLITS)
        gone = {(image.person, image.path) for image in listed if image.path not in archive.images[modality]}
        return {path: person for person, path in sorted(gone)}

    return PerModality.build(missing)


def _people_of_one_modality(lists: TrialLists) -> Iterator[str]:
    for split in SPLITS:
        if any((split, modality) not in lists.lists for modality in Modality):
            continue  # the missing list is named already
        visible, infrared = (lists.people(split, modality) for modality in Modality)
        for person in sorted(visible ^ infrared):
            only = Modality.VISIBLE if person in visible else Modality.INFRARED
            yield f"trial {lists.trial}, {split}: person {person} is in the {only} list only"


def _repeated_images(lists: TrialLists) -> Iterator[str]:
    for (split, modality), images in lists.lists.items():
        for path in repetitions(image.path for image in images):
            yield f"{list_name(lists.trial, split, modality)} names {path} again"


def _unlisted(archive: RegdbArchive, lists: TrialLists) -> Iterator[str]:
    """Images of a trial that neither list names; a person without any listed image is one offender."""
    for modality, images in archive.images.items():
        if any((split, modality) not in lists.lists for split in SPLITS):
            continue  # the missing list is named already
        listed = {image.path for split in SPLITS for image in lists.listed(split, modality)}
        people = {person for split in SPLITS for person in lists.people(split, modality)}
        for person in sorted(set(images.values()) - people):
            yield f"person {person} is in no {modality} list of trial {lists.trial}"
        for path, person in images.items():
            if person in people and path not in listed:
                yield f"{path} is in no list of trial {lists.trial}"


def _people_with_other_numbers(archive: RegdbArchive) -> Iterator[str]:
    for modality, images in archive.images.items():
        for person, count in Counter(images.values()).items():
            if count != IMAGES_A_PERSON:
                folder = f"{IMAGE_FOLDERS[modality]}/{person}"
                yield f"{folder} holds {count} images, every person has {IMAGES_A_PERSON} of each modality"


_CONTRADICTIONS: Mapping[str, Callable[[TrialLists], Iterator[str]]] = {
    "people in train and in test of a trial": people_trained_and_tested,
    "labels and folders that do not match": label_mismatches,
    "people in the list of one modality only": _people_of_one_modality,
    "images that a list names again": _repeated_images,
}
