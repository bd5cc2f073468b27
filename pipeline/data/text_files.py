"""Text that users write: UTF-8, with or without a byte order mark."""

from pathlib import Path

from pipeline.errors import DataError


def read_text(path: Path, *, kind: str, origin: str) -> str:
    """The content with the line ends that it has, for file names may hold such signs.

    Args:
        path: The file.
        kind: What it is, such as `manifest`.
        origin: What makes one, as the hint where there is none.

    Raises:
        DataError: There is no such file, it cannot be read, or it is not UTF-8; the line is named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no {kind} {path}", hint=origin) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint="look after the file") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name}:{line}: not UTF-8: {error}", hint="save it again in that encoding") from error
