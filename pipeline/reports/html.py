"""Frame, style and writing of HTML pages that work offline."""

from collections.abc import Iterable
from html import escape
from importlib import resources
from pathlib import Path
from typing import BinaryIO

from pipeline.runtime.outputs import PAGE, write_output

_START = "<!DOCTYPE html>\n"
_STYLE = "page.css"


def page_start(title: str, style: str = "") -> str:
    """The page up to its headline; `style` is added to the common style sheet."""
    common = (resources.files("pipeline.reports") / _STYLE).read_text(encoding="utf-8")
    return (
        f'{_START}<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        # Browsers then refuse scripts and external resources.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">\n'
        f"<style>\n{common}{style}</style></head><body>\n<h1>{escape(title)}</h1>\n"
    )


def page_end() -> str:
    """The end of the page."""
    return "</body></html>\n"


def write_page(file: Path, parts: Iterable[str]) -> None:
    """Write a page; undecodable file names are escaped. Raises as `write_output`."""
    content = "".join(parts).encode(errors="backslashreplace")

    def write(open_file: BinaryIO) -> None:
        open_file.write(content)

    write_output(file, write, PAGE, "--html")
