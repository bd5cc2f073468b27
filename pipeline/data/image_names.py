"""Which files are images by their extension, and which of these can be read here."""

import importlib
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import PurePath

_ALWAYS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".pgm", ".ppm", ".pbm", ".pnm", ".pfm", ".tga",
)  # fmt: skip
_WITH_CODEC = {
    "webp": (".webp",),
    "jpg_2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "avif": (".avif", ".avifs"),
}
_PACKAGES = {
    "HEIC": ("pillow-heif", (".heic", ".heics", ".heif", ".heifs", ".hif")),
    "AVIF": ("pillow-avif-plugin", (".avif", ".avifs")),
    "JPEG XL": ("pillow-jxl-plugin", (".jxl",)),
}
_WITH_PLUGIN = tuple(extension for _, extensions in _PACKAGES.values() for extension in extensions)
_PLUGINS = ("pillow_heif", "pillow_avif", "pillow_jxl")
_REGISTER = ("register_heif_opener", "register_avif_opener")
_NO_DATA = ("thumbs.db", "desktop.ini", "__macosx")
_SHOWN = 5


@cache
def register_plugins() -> None:
    """Let Pillow read the kinds of its installed plugins."""
    for name in _PLUGINS:
        try:
            plugin = importlib.import_module(name)
        except ImportError:
            continue
        for register in _REGISTER:
            getattr(plugin, register, lambda: None)()


@cache
def readable_extensions() -> frozenset[str]:
    """The extensions of images that Pillow and its installed plugins read here, in lower case."""
    from PIL import Image, features

    register_plugins()
    found = {*_ALWAYS, *(one for codec, some in _WITH_CODEC.items() if features.check(codec) for one in some)}
    return frozenset(found | (set(_WITH_PLUGIN) & {*Image.EXTENSION}))


def is_readable_name(name: str) -> bool:
    """Whether the extension is that of an image that can be read here.

    >>> is_readable_name("a.TIFF"), is_readable_name("b.jfif"), is_readable_name("notes.txt"), is_readable_name(".jpg")
    (True, True, False, False)
    """
    stem, dot, extension = name.rpartition(".")
    return bool(stem) and dot + extension.lower() in readable_extensions()


def image_kinds() -> str:
    """The extensions, for messages."""
    return ", ".join(sorted(readable_extensions()))


def needs_plugin(name: str) -> bool:
    """Whether the extension is that of an image that Pillow reads with a plugin that is not installed."""
    return PurePath(name).suffix.lower() in _WITH_PLUGIN and not is_readable_name(name)


def is_system_file(name: str) -> bool:
    """Whether a file or folder is one that systems leave behind, such as `Thumbs.db`."""
    return name.lower() in _NO_DATA


def skipped_by_extension(paths: Iterable[str]) -> str:
    """A phrase that counts and names files without an image's extension; empty if all are files of the system.

    The first file of each extension is named first, and the packages that read some of them last.

    >>> skipped_by_extension(["1.json", "2.json", "a.heic"])
    '3 files skipped by extension: 1.json, a.heic, 2.json; HEIC needs the package pillow-heif'
    """
    order: Counter[str] = Counter()
    ranked = []
    for path in sorted(path for path in paths if not is_system_file(PurePath(path).name)):
        extension = PurePath(path).suffix.lower()
        ranked.append((order[extension], path))
        order[extension] += 1
    if not ranked:
        return ""
    shown = ", ".join(path for _, path in sorted(ranked)[:_SHOWN]) + (", ..." if len(ranked) > _SHOWN else "")
    files = "1 file" if len(ranked) == 1 else f"{len(ranked):,} files"
    needed = [
        f"; {kind} needs the package {package}"
        for kind, (package, extensions) in _PACKAGES.items()
        if any(extension in order for extension in extensions)
    ]
    return f"{files} skipped by extension: {shown}{''.join(needed)}"
