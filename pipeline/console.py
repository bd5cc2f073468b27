"""Terminal output on stderr: one logger set-up and one progress bar."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipeline.errors import VireidError
from pipeline.secrets import MaskingFilter, mask_handlers

T = TypeVar("T")

_PACKAGES = ("pipeline", "flows", "models", "clustering")


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints names as they are: brackets are not markup, and `:x:` is no emoji."""
    return Console(stderr=stderr, width=width, markup=False, emoji=False)


_STDERR = plain_console(stderr=True)


def print_error(error: VireidError) -> None:
    """Print an error and its hint to stderr."""
    console = plain_console(stderr=True)
    for label, style, text in (("error:", "bold red", error.message), ("hint:", "bold", error.hint)):
        console.print(Text.assemble((label, style), f" {text}"), soft_wrap=True)


Watcher = Callable[[str, int, int | None], None]
"""Receives description, number done and, if known, total."""

_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


class _ConsoleHandler(logging.Handler):
    """Log lines above the progress bar, never wrapped, so that table rows stay whole."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a terminal that was closed under a program that ignores SIGHUP
            _STDERR.print(self.format(record), soft_wrap=True, highlight=False)


def set_up_logging() -> None:
    """Send this package's log lines to stderr; called by the command line only."""
    handler = _ConsoleHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    handler.addFilter(MaskingFilter())
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Call `watcher` at every step of every progress bar inside the `with` block, with or without a terminal."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


class _RateColumn(ProgressColumn):
    """Current items a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} {self._unit}/s")


def progress(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    unit: str = "",
    count: Callable[[T], int] | None = None,
    rate: bool = False,
) -> Iterator[T]:
    """Yield `items` behind a bar with count, elapsed and remaining time; silent if stderr is no terminal.

    `description` is a verb phrase (`extract visible features`), `unit` a plural (`images`); `count` gives the units of
    an item, one by default; `rate` shows units a second.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        *([_RateColumn(unit)] if rate else []),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    silent, watcher, done = _STDERR.quiet or not _STDERR.is_terminal, _WATCHER.get(), 0
    with Progress(*columns, console=_STDERR, transient=True, disable=silent) as bars:
        bar = bars.add_task(description, total=total)
        for item in items:
            yield item
            step = 1 if count is None else count(item)
            done += step
            bars.advance(bar, step)
            if watcher is not None:
                watcher(description, done, total)


def enable_logging() -> None:
    """Pass this package's log lines to existing handlers, such as Prefect's, with passwords masked."""
    for name in _PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)
    mask_handlers(*_PACKAGES)


def silence() -> None:
    """Disable output, for ranks above 0; errors are raised."""
    _STDERR.quiet = True
    for name in _PACKAGES:
        logging.getLogger(name).setLevel(logging.ERROR)
