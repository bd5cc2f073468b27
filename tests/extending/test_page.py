"""docs/extending.md shows the files of the tests as they are."""

import re

from tests.architecture.source_tree import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks() -> list[tuple[str, str]]:
    """Each block of Python with the file that was named last; a line `...` divides parts of the file."""
    file, found = "", []
    for name, block in re.findall(r"^`(tests/\S+\.py)`$|^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        file = name or file
        found += [(file, part) for part in re.split(r"^\.\.\.\n", block, flags=re.MULTILINE) if block]
    return found


def test_every_block_of_the_page_is_part_of_a_tested_file() -> None:
    assert len(blocks()) > 10
    different = [part for file, part in blocks() if part not in (ROOT / file).read_text(encoding="utf-8")]
    assert different == []


def test_every_way_to_extend_is_on_the_page() -> None:
    headings = [
        "A way to match clusters",
        "A loss term",
        "A memory update",
        "A variant of CCLNet",
        "A method",
        "A data set",
    ]
    assert re.findall(r"^## (.*)$", PAGE, re.MULTILINE) == headings


def test_links_and_files_that_the_page_names_exist() -> None:
    linked = [ROOT / "docs" / link for link in re.findall(r"\]\(([^)#]+)\)", PAGE)]
    named = [ROOT / path for path in re.findall(r"`((?:pipeline|tests|examples)/\S+\.py)`", PAGE)]
    assert [path for path in (*linked, *named) if not path.exists()] == []
