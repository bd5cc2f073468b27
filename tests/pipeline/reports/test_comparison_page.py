"""The page of a comparison is whole in itself, and shows what the terminal shows."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.reports.comparison import Comparison, compare_runs, write_page
from pipeline.reports.curves import Curve, draw_curves
from pipeline.storage.run_reader import read_run
from tests.pipeline.reports.recorded_runs import make_run, row


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def comparison(tmp_path: Path, *changes: str) -> Comparison:
    make_run(tmp_path / "a", [row(1, 0.5, 0.25), row(2, 0.375, 0.125)])
    make_run(tmp_path / "b", [row(1, 0.0625, 0.75)], "seed=7", *changes)
    return compare_runs([read_run(tmp_path / "a"), read_run(tmp_path / "b")])


def written(tmp_path: Path, *changes: str) -> Page:
    file = tmp_path / "pages" / "page.html"
    write_page(comparison(tmp_path, *changes), file)
    return Page(file)


def save_figure(run: Path, name: str, content: bytes) -> None:
    (run / "figures").mkdir(exist_ok=True)
    (run / "figures" / name).write_bytes(content)


def a_png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2), shade).save(file, format="png")
    return file.getvalue()


def test_every_element_is_closed_and_the_numbers_are_there(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert page.open == []
    for number in ("50.00", "25.00", "37.50", "6.25", "75.00", "2.5"):
        assert number in page.text, number
    assert "50.00 in round 1" in page.text  # the best of A, marked as such
    assert "selected on the test set" in page.text
    assert "seed" in page.text


def test_the_page_asks_no_host_and_runs_no_script(tmp_path: Path) -> None:
    page = written(tmp_path)
    text = (tmp_path / "pages" / "page.html").read_text()
    assert "://" not in text and "url(" not in text and "@import" not in text
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "base", "form"}
    sources = [value for _, attributes in page.elements for name, value in attributes.items() if name == "src"]
    assert sources and all(value and value.startswith("data:image/png;base64,") for value in sources)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    policy = next(one["content"] for tag, one in page.elements if tag == "meta" and "http-equiv" in one)
    assert policy and policy.startswith("default-src 'none'")


def test_what_a_run_is_called_is_text_and_nothing_else(tmp_path: Path) -> None:
    make_run(tmp_path / "<script>alert(1)<b>&amp;$x", [row(1, 0.5, 0.25)], "model.weights=<img src=x>")
    make_run(tmp_path / "b", [row(1, 0.5, 0.25)])
    runs = [read_run(path) for path in sorted(tmp_path.iterdir())]
    write_page(compare_runs(runs), tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "<script>alert(1)<b>&amp;$x" in page.text
    assert "<img src=x>" in page.text
    assert "script" not in {tag for tag, _ in page.elements}


def test_there_is_a_curve_for_each_number_and_the_figures_of_a_round_are_beside_each_other(tmp_path: Path) -> None:
    both = comparison(tmp_path)
    for name, shade in (("eps-curve-001.png", 1), ("eps-curve-002.png", 2), ("other-010.png", 3)):
        save_figure(tmp_path / "a", name, a_png(shade))
    save_figure(tmp_path / "b", "eps-curve-001.png", a_png(5))
    save_figure(tmp_path / "b", "photograph-001.jpg", b"\xff\xd8\xff and so on")
    save_figure(tmp_path / "a", "damaged-003.png", b"no picture")
    save_figure(tmp_path / "a", "retrieval-004.jpg.tmp", b"half a picture")
    save_figure(tmp_path / "a", "notes.txt", b"no figure")
    write_page(both, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    images = [one for tag, one in page.elements if tag == "img"]
    assert len(images) == 4 + 5  # Rank-1, mAP, loss, seconds; then eps curve of A and B, photograph, eps curve, other
    assert [one["alt"] for one in images[4:]] == ["A, a", "B, b", "B, b", "A, a", "A, a"]
    contents = [base64.b64decode((one["src"] or "").partition(",")[2]) for one in images[4:]]
    assert contents == [a_png(1), a_png(5), b"\xff\xd8\xff and so on", a_png(2), a_png(3)]
    assert (images[6]["src"] or "").startswith("data:image/jpeg;base64,")
    assert "Clusters at other values of eps, round 2" in page.text


def test_a_picker_shows_one_round_and_the_last_one_first(tmp_path: Path) -> None:
    both = comparison(tmp_path)
    for number in range(1, 21):
        save_figure(tmp_path / "a", f"eps-curve-{number:03d}.png", a_png(number))
    write_page(both, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    # Of twenty rounds, those in which a run was evaluated.
    buttons = [one for tag, one in page.elements if tag == "input"]
    assert [(one["type"], one["id"], "checked" in one) for one in buttons] == [
        ("radio", "round-1", False),
        ("radio", "round-2", True),
    ]
    assert [one["class"] for tag, one in page.elements if tag == "section"] == ["round-1", "round-2"]
    style = (tmp_path / "page.html").read_text().partition("</style>")[0]
    assert ".picker section { display: none; }" in style
    assert "#round-1:checked ~ .round-1, #round-2:checked ~ .round-2 { display: block; }" in style


def test_runs_that_differ_in_their_seed_are_one_line_with_mean_and_deviation(tmp_path: Path) -> None:
    page = written(tmp_path)
    # Round 1 is the last that both measured: (50 + 6.25) / 2, and 43.75 / sqrt(2).
    assert "28.12 ± 30.94" in page.text and "seeds 1, 7" in page.text
    assert "differ in seed or split only" not in written(tmp_path / "other", "swap.mode=off").text


def test_runs_without_figures_and_without_a_difference_say_so(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_page(compare_runs([read_run(make_run(tmp_path / "a", [row(1)]))]), file)
    page = Page(file)
    assert "None." in page.text and "Only one run." in page.text


def test_a_page_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    both = comparison(tmp_path)
    file = tmp_path / "page.html"
    write_page(both, file)
    before = file.read_bytes()
    write_page(both, file)
    assert file.read_bytes() == before
    metrics = tmp_path / "a" / "metrics.jsonl"
    content = metrics.read_bytes()
    with pytest.raises(ConfigError, match="does not contain a page"):
        write_page(both, metrics)
    assert metrics.read_bytes() == content


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    both = comparison(tmp_path)
    (tmp_path / "file").write_text("")
    for place, words in [(tmp_path / "file" / "page.html", "is a file"), (tmp_path, "is a folder")]:
        with pytest.raises(ConfigError, match=words) as caught:
            write_page(both, place)
        assert "--html" in caught.value.hint


def test_the_page_can_be_read_in_the_dark() -> None:
    style = (Path(__file__).resolve().parents[3] / "pipeline" / "reports" / "page.css").read_text()
    colours = {
        scheme: dict(re.findall(r"--(\w+): (#\w+)", block))
        for scheme, block in zip(("light", "dark"), re.findall(r":root {(.*?)}", style, re.DOTALL), strict=True)
    }
    for scheme, names in colours.items():
        assert contrast(names["text"], names["back"]) > 7, scheme
        assert contrast(names["faint"], names["back"]) > 4.5, scheme
        assert contrast(names["text"], names["head"]) > 7, scheme


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2: (lighter + 0.05) / (darker + 0.05), black on white being 21."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = np.array([int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_black_on_white_has_the_largest_contrast() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)


def test_curves_are_drawn_in_the_colours_of_their_runs_and_equal_numbers_give_equal_bytes() -> None:
    curves = [Curve("A", (1, 2, 3), (1.0, 2.0, 3.0)), Curve("B", (1, 3), (3.0, 1.0)), Curve("C", (), ())]
    png = draw_curves(curves, "$unclosed")
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert np.any(np.abs(pixels - colour).sum(axis=2) < 30)
    assert draw_curves(curves, "$unclosed") == png
    assert draw_curves(curves[:1], "$unclosed") != png
