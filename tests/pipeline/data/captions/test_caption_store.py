"""Captions are joined by path, and everything that is wrong with a file is said before anything is trained."""

import json
import logging
from pathlib import Path

import pytest

from models.modality import PerModality
from pipeline.data.captions.store import load_captions, read_captions
from pipeline.data.dataset import read_dataset
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.errors import DataError
from tests.pipeline.data.captions.caption_inputs import INFRARED, TEST, VISIBLE, rows, small_dataset, write_lines


def refused(path: Path, tmp_path: Path, **options: str) -> DataError:
    with pytest.raises(DataError) as caught:
        read_captions(path, small_dataset(tmp_path), **options)
    return caught.value


def test_captions_come_in_the_order_of_the_tables_whatever_the_order_of_the_file(tmp_path):
    texts = read_captions(write_lines(tmp_path / "c.jsonl", rows()), small_dataset(tmp_path))

    assert texts.visible == tuple(f"visible {path}" for path in VISIBLE)
    assert texts.infrared == tuple(f"infrared {path}" for path in INFRARED)


def test_both_forms_of_a_file_give_the_same_captions(tmp_path):
    lines = write_lines(tmp_path / "c.jsonl", rows())
    dictionary = tmp_path / "d.json"
    dictionary.write_text(
        json.dumps(
            {f"datasets/{row['path']}": {"description": row["caption"], "aug_description": "other"} for row in rows()}
        )
    )

    dataset = small_dataset(tmp_path)

    one = load_captions(dataset, lines)
    other = load_captions(dataset, dictionary, caption_field="description", path_prefix="datasets/")
    assert one == other


def test_a_dictionary_of_plain_texts_is_read_too(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({row["path"]: row["caption"] for row in rows()}))

    assert read_captions(path, small_dataset(tmp_path)).infrared[0] == "infrared cam3/1/1.jpg"


def test_a_caption_field_that_is_not_there_is_named_with_those_that_are(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({VISIBLE[0]: {"description": "a person"}}))

    assert "no 'caption'; there are: 'description', 'path'" in refused(path, tmp_path).message


def test_both_spellings_of_person_camera_and_modality_are_understood_and_other_names_let_pass(tmp_path):
    content = rows()
    content[0] |= {"modality": "r", "pid": 2, "cam": 3, "weather": "rain"}
    content[1] |= {"person": "0001", "camera": 3}

    assert read_captions(write_lines(tmp_path / "c.jsonl", content), small_dataset(tmp_path)).infrared


def test_whitespace_is_collapsed_and_a_byte_order_mark_is_no_text(tmp_path):
    content = rows()
    content[-1]["caption"] = "  a person\n in\tred "
    path = write_lines(tmp_path / "c.jsonl", content)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert read_captions(path, small_dataset(tmp_path)).visible[-1] == "a person in red"


def test_the_first_ten_images_without_a_caption_are_named_and_all_are_counted(tmp_path):
    message = refused(write_lines(tmp_path / "c.jsonl", rows()[:1]), tmp_path).message

    # One of seven is there: six are named.
    assert "training images without a caption: 6 (" in message
    assert message.count(".jpg") == 6


def test_of_more_than_ten_offenders_ten_are_named(tmp_path):
    content = [{"path": f"other/{number}.jpg", "caption": "a person"} for number in range(12)]

    error = refused(write_lines(tmp_path / "c.jsonl", content), tmp_path)

    assert "captions of images that small does not have: 12 (" in error.message
    assert error.message.count(".jpg") == 10
    assert "another data set" in error.hint


@pytest.mark.parametrize("caption", ["", "  \n", None])
def test_an_empty_caption_is_as_bad_as_none(tmp_path, caption):
    content = rows()
    content[0]["caption"] = caption

    assert (
        "training images with an empty caption: 1 (cam3/2/1.jpg)"
        in refused(write_lines(tmp_path / "c.jsonl", content), tmp_path).message
    )


def test_two_different_captions_of_one_image_are_refused_with_both_lines(tmp_path):
    content = [*rows(), {"path": "./" + VISIBLE[0], "caption": "somebody else"}]

    message = refused(write_lines(tmp_path / "c.jsonl", content), tmp_path).message

    assert f"images with two different captions: 1 ({VISIBLE[0]} (c.jsonl:4 and c.jsonl:8))" in message


def test_the_same_caption_twice_does_no_harm(tmp_path):
    content = rows()

    assert read_captions(write_lines(tmp_path / "c.jsonl", [*content, content[0]]), small_dataset(tmp_path)).visible


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("modality", "r", "modality is infrared, not visible"),
        ("pid", 7, "person is 7, not 1"),
        ("cam", 2, "camera is 2, not 1"),
    ],
)
def test_a_field_that_contradicts_the_data_set_is_named_with_its_line(tmp_path, field, value, said):
    content = rows()
    content[3] |= {field: value}

    assert (
        f"contradictions to the data set: 1 (c.jsonl:4: {said})"
        in refused(write_lines(tmp_path / "c.jsonl", content), tmp_path).message
    )


def test_captions_of_test_images_are_left_aside(tmp_path):
    content = [*rows(), {"path": TEST, "caption": "a stranger"}]

    assert len(read_captions(write_lines(tmp_path / "c.jsonl", content), small_dataset(tmp_path)).visible) == 4


def test_a_copy_that_is_not_complete_may_lack_images_that_have_captions(tmp_path, caplog):
    content = [*rows(), {"path": "cam1/3/1.jpg", "caption": "whose image is gone"}]

    with caplog.at_level(logging.WARNING):
        read_captions(write_lines(tmp_path / "c.jsonl", content), small_dataset(tmp_path, partial=True))

    assert "captions of images that small does not have: 1 (cam1/3/1.jpg)" in caplog.text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"path": "cam1/1/1.jpg", "caption": ', "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"caption": "a person"}', "no path"),
        ('{"path": "", "caption": "a person"}', "no path"),
        ('{"path": "../secret.jpg", "caption": "a person"}', "path must stay inside the data root: ../secret.jpg"),
        ('{"path": "cam1/../../x.jpg", "caption": "x"}', "path must stay inside the data root"),
        ('{"path": "/etc/x.jpg", "caption": "x"}', "path must stay inside the data root"),
        ('{"path": "C:\\\\x.jpg", "caption": "x"}', "path must stay inside the data root"),
        ('{"path": "a.jpg", "caption": 5}', "caption is 5, not a text"),
        ('{"path": "a.jpg", "caption": "x", "caption": "y"}', "'caption' occurs twice"),
        ('{"path": "a.jpg", "modality": "grey", "caption": "x"}', "modality 'grey'"),
    ],
)
def test_a_line_that_is_wrong_is_named_by_its_number(tmp_path, line, reason):
    path = write_lines(tmp_path / "c.jsonl", rows()[:2])
    path.write_text(path.read_text() + line + "\n")

    message = refused(path, tmp_path).message

    assert "lines that are wrong: 1 (c.jsonl:3: " in message
    assert reason in message


def test_another_encoding_is_named_by_its_line(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", rows()[:2])
    path.write_bytes(path.read_bytes() + '{"path": "a.jpg", "caption": "ein Mädchen"}\n'.encode("latin-1"))

    error = refused(path, tmp_path)

    assert "c.jsonl:3: not UTF-8" in error.message
    assert error.hint == "save it as UTF-8"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.jsonl", "", "no captions"),
        ("c.json", "{}", "no captions"),
        ("c.json", "[]", "not a JSON object"),
        ("c.json", '{"a":\n}', "c.json:2: not JSON"),
        ("c.json", '{"a.jpg": "x", "a.jpg": "y"}', "'a.jpg' occurs twice, with different values"),
        ("c.json", '{"a.jpg": 5}', "neither a caption nor a JSON object"),
        ("c.csv", "path,caption", "a caption file is a .jsonl or a .json file"),
        (None, "", "there is no caption file"),
    ],
)
def test_a_file_that_is_no_caption_file_is_refused(tmp_path, name, content, said):
    if name is not None:
        (tmp_path / name).write_text(content)

    assert said in refused(tmp_path / (name or "absent.jsonl"), tmp_path).message


def test_a_path_without_the_prefix_is_refused(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", rows()[:1])

    assert "does not begin with datasets/" in refused(path, tmp_path, path_prefix="datasets/").message


def test_a_file_without_its_description_is_read_with_a_warning(tmp_path, caplog):
    path = write_lines(tmp_path / "c.jsonl", rows())
    with caplog.at_level(logging.WARNING):
        read_captions(path, small_dataset(tmp_path))
    assert "no c.meta.json beside it" in caplog.text

    caplog.clear()
    (tmp_path / "c.meta.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        read_captions(path, small_dataset(tmp_path))
    assert caplog.text == ""


def test_a_lead_in_is_taken_off_once_and_nothing_else(tmp_path):
    content = rows()
    for row, caption in zip(
        content,
        [
            "The image shows a man",
            "In the picture, the image shows a man",
            "This photo features",
            "a man in the image shows",
            "in this image there is a man",
            "THE PHOTO DEPICTS Anna",
            "a man",
        ],
        strict=True,
    ):
        row["caption"] = caption

    texts = load_captions(small_dataset(tmp_path), write_lines(tmp_path / "c.jsonl", content), strip_lead_in=True).texts

    # The infrared rows come in reverse. Where nothing would be left, everything is.
    assert texts.infrared == ("This photo features", "the image shows a man", "a man")
    assert texts.visible == ("a man in the image shows", "there is a man", "Anna", "a man")


def test_the_digest_follows_the_texts_and_not_the_file(tmp_path):
    dataset, path = small_dataset(tmp_path), write_lines(tmp_path / "c.jsonl", rows())
    shuffled = write_lines(tmp_path / "s.jsonl", list(reversed(rows())))
    other = rows()
    other[0]["caption"] += "!"

    assert load_captions(dataset, path).digest == load_captions(dataset, shuffled).digest
    assert (
        load_captions(dataset, path).digest != load_captions(dataset, write_lines(tmp_path / "o.jsonl", other)).digest
    )
    assert load_captions(dataset, path).digest != load_captions(dataset, path, control="constant").digest


def test_texts_that_change_modality_have_another_digest(tmp_path):
    """Two people with one image each, captions exchanged between the modalities."""
    people = PerModality([1, 1, 2, 2], [1, 1, 2])
    content = [{"path": path, "caption": "same"} for path in (*VISIBLE, *INFRARED)]
    one, other = ([dict(row) for row in content] for _ in range(2))
    one[3]["caption"] = "different"  # the last visible image
    other[4]["caption"] = "different"  # the first infrared one
    dataset = small_dataset(tmp_path, people=people)

    digests = {
        load_captions(dataset, write_lines(tmp_path / f"{name}.jsonl", rows_)).digest
        for name, rows_ in (("one", one), ("other", other))
    }

    assert len(digests) == 2


@pytest.mark.parametrize(("layout", "split"), [("sysu", None), ("regdb", 3), ("llcm", None)])
def test_the_captions_that_come_with_drawn_people_fit_them(tmp_path, layout, split):
    folder = tmp_path / layout
    generate_dataset(folder, size="smoke", layout=layout, height=32, width=16, workers=1)
    dataset = read_dataset(layout, folder, split=split)

    texts = load_captions(dataset, folder / "captions.jsonl").texts

    said = {
        row["path"]: row["caption"]
        for row in map(json.loads, (folder / "truth" / "images.jsonl").read_text().splitlines())
    }
    for modality, some in texts.items():
        assert list(some) == [said[path] for path in dataset.training.images[modality].paths]
        assert some


def test_paths_are_found_by_another_spelling_and_modalities_by_their_usual_names(tmp_path, caplog):
    content = [row | {"path": row["path"].upper().replace("/", "\\")} for row in rows()]
    content[0] |= {"modality": "IR", "pid": "2.0", "camera": 3.0}
    content[1] = {name.title(): value for name, value in content[1].items()}
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-16")

    with caplog.at_level(logging.INFO):
        texts = read_captions(path, small_dataset(tmp_path))

    assert texts.infrared[-1].startswith("infrared cam3/2/1.jpg")
    assert "7 paths are found in upper or lower case, first 'CAM3/2/1.JPG' as 'cam3/2/1.jpg'" in caplog.text


def test_files_that_were_joined_keep_a_mark_inside_that_is_ignored(tmp_path):
    parts = [json.dumps(row) + "\n" for row in rows()]
    path = tmp_path / "c.jsonl"
    path.write_text("\ufeff".join(["", *parts]), encoding="utf-8")

    assert read_captions(path, small_dataset(tmp_path)).visible[0] == "visible cam1/1/1.jpg"
