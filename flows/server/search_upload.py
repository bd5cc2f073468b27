"""Images in the body of a request: one as it is, or several as multipart/form-data; and what reading them changes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser

from pipeline.data.image_files import Adjustment, log_adjustments
from pipeline.errors import DataError
from pipeline.inference.served_gallery import Upload

FORM = "multipart/form-data"
_HINT = "send an image as the body, or several as files of multipart/form-data"


def read_uploads(content_type: str, body: bytes, name: str, most: int) -> list[Upload]:
    """The images of a body of at least one byte; `name` is that of a body without one, `most` the largest number.

    Raises:
        DataError: The form is damaged, holds no file, an empty one, or too many.

    Cost: one copy of the body.
    """
    header = Message()
    header["content-type"] = content_type
    uploads = [Upload(name, body)] if header.get_content_type() != FORM else _files(body, header.get_boundary())
    if not uploads:
        raise DataError("the request has no image", hint=_HINT)
    if len(uploads) > most:
        raise DataError(f"{len(uploads)} images, more than {most}", hint="send fewer images of this person")
    for upload in uploads:
        if not upload.content:
            raise DataError(f"{upload.name}: an empty file", hint="choose image files")
    return uploads


def _files(body: bytes, boundary: str | None) -> list[Upload]:
    delimiter = b"--" + (boundary or "").encode("ascii", "replace")
    first, *parts = body.split(b"\r\n" + delimiter)
    if not boundary or not first.startswith(delimiter) or not parts or not parts[-1].startswith(b"--"):
        raise DataError("the body is no complete form", hint=_HINT)
    found = []
    for part in (first.removeprefix(delimiter), *parts[:-1]):
        head, _, content = part.partition(b"\r\n\r\n")
        fields = HeaderParser().parsestr(head.decode("utf-8", "replace").lstrip("\r\n"))
        if (name := fields.get_filename()) is not None:
            found.append(Upload(name or "image", content))
    return found


@dataclass(slots=True)
class Conversions:
    """How many images of queries needed which conversion, since the start."""

    images: int = 0
    seen: Counter[Adjustment] = field(default_factory=Counter)

    def add(self, query: Sequence[frozenset[Adjustment]]) -> None:
        """Count those of the images of a query; logs all counts when one is seen for the first time."""
        known = len(self.seen)
        self.images += len(query)
        for adjustments in query:
            self.seen.update(adjustments)
        if len(self.seen) > known:
            self.log()

    def log(self) -> None:
        """Log one line for each conversion."""
        log_adjustments(self.seen, self.images)
