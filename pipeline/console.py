"""What a person sees at the terminal: one logger set-up and one progress bar, both on stderr."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
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

T = TypeVar("T")

_PACKAGES = ("pipeline", "flows", "models", "clustering")
_STDERR = Console(stderr=True)

Watcher = Callable[[str, int, int | None], None]
"""Told what is being done, how many are done, and of how many where that is known."""

_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def stderr_console() -> Console:
    """The console that everything but results is written to; colours follow the terminal and NO_COLOR."""
    return _STDERR


class _ConsoleHandler(logging.Handler):
    """Log lines above the progress bar, never wrapped: a row of a table stays a row."""

    def emit(self, record: logging.LogRecord) -> None:
        _STDERR.print(self.format(record), soft_wrap=True, markup=False, highlight=False)


def set_up_logging() -> None:
    """Send this package's log lines to stderr, once; called by the command line only."""
    handler = _ConsoleHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Let somebody follow every progress bar inside the `with` block, whether or not a terminal shows it."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


class _RateColumn(ProgressColumn):
    """How many a second, of late."""

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
    """Yield `items` behind a bar with count, time spent and time left; silent when stderr is no terminal.

    Args:
        items: What to go through.
        description: What is being done, as a verb phrase: `extract visible features`.
        total: How many there are to count; taken from `len(items)` when absent and possible.
        unit: What is counted, for instance `images`.
        count: How many an item stands for, for instance the images of a batch; one when absent.
        rate: Whether to show how many are done a second.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    columns = (
        TextColumn("{task.description}"),
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


def speak_up() -> None:
    """Let this package's log lines pass to handlers that somebody else has set up, such as Prefect's."""
    for name in _PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)


def fall_silent() -> None:
    """Show nothing: for a process that works beside another one, which does the talking; errors are raised."""
    _STDERR.quiet = True
    for name in _PACKAGES:
        logging.getLogger(name).setLevel(logging.ERROR)
