"""Image files in a folder of a user, at any depth, and every other file there, by the reason to skip it."""

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.image_names import is_readable_name, is_system_file


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The images below a folder, sorted, and the skipped entries; paths are POSIX, relative to the folder.

    Attributes:
        images: Files with the extension of an image that can be read here; no file is opened.
        others: Files of other extensions.
        links: Links to folders, which end with `/`, and links to files outside of the folder, or to nothing.
        hidden: Files and folders whose names begin with a dot, and those that systems leave behind.
        closed: Folders that cannot be listed.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]
    links: tuple[str, ...]
    hidden: tuple[str, ...]
    closed: tuple[str, ...]


def list_folder(root: Path) -> FolderFiles:
    """List the files below a folder; links to files inside it count as files, links to folders are not followed.

    Cost: one listing a folder, and a file status of each link.
    """
    real = root.resolve()
    images, others, links, hidden, closed = (list[str]() for _ in range(5))

    def note_closed(error: OSError) -> None:
        closed.append(Path(os.fsdecode(error.filename)).relative_to(root).as_posix())

    for folder, folders, files in os.walk(root, onerror=note_closed):
        here = Path(folder)
        below = here.relative_to(root)
        links += [f"{(below / name).as_posix()}/" for name in folders if (here / name).is_symlink()]
        hidden += [(below / name).as_posix() for name in (*folders, *files) if _is_hidden(name)]
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in files:
            path = (below / name).as_posix()
            if _is_hidden(name):
                continue
            if not is_readable_name(name):
                others.append(path)
            elif (here / name).is_symlink() and not _leads_inside(here / name, real):
                links.append(path)
            else:
                images.append(path)
    return FolderFiles(*(tuple(sorted(some)) for some in (images, others, links, hidden, closed)))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_system_file(name)


def _leads_inside(link: Path, real: Path) -> bool:
    target = link.resolve()
    return target.is_relative_to(real) and target.exists()
