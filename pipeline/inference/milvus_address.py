"""Addresses of galleries in Milvus: a milvus-lite database on this machine, or a server."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from pipeline.errors import ConfigError

SCHEME = "milvus:"
_FORMS = "write milvus:///FOLDER/NAME.db?collection=NAME, or milvus://HOST:PORT/DATABASE?collection=NAME"
_SERVER = re.compile(r"(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})(?:/(?P<database>\w*))?/?")
LONGEST_NAME = 255
"""Characters of a collection's name, the limit of Milvus."""
_COLLECTION = re.compile(rf"[A-Za-z_]\w{{0,{LONGEST_NAME - 1}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class MilvusAddress:
    """Where a gallery is: `uri` is that of pymilvus, a path that ends in `.db`, or `http://` or `https://` of a server.

    `database` is empty for the default one, and for a file.
    """

    uri: str
    collection: str = "gallery"
    database: str = ""

    @property
    def file(self) -> Path | None:
        """The database of milvus-lite; None for a server."""
        return None if "://" in self.uri else Path(self.uri)

    def __str__(self) -> str:
        place = self.uri.partition("://")[2] or self.uri
        database = f"/{self.database}" if self.database else ""
        tls = "&tls=yes" if self.uri.startswith("https:") else ""
        return f"milvus://{place}{database}?collection={self.collection}{tls}"


def is_database(folder: Path) -> bool:
    """Whether a folder is a database of milvus-lite."""
    return folder.suffix == ".db" and (folder / "LOCK").is_file()


def address_of(path: Path) -> MilvusAddress | None:
    """The address that an option or argument names; None for a path. A `Path` drops one of two slashes.

    Raises:
        ConfigError: It is no address of Milvus, or has a user, a password or a token, which the message does not show.

    >>> str(address_of(Path("milvus://host:19530/site?collection=day")))
    'milvus://host:19530/site?collection=day'
    >>> str(address_of(Path("milvus:///data/site.db")))
    'milvus:///data/site.db?collection=gallery'
    >>> address_of(Path("data/site.db"))
    """
    text = str(path)
    if not text.startswith(SCHEME):
        return None
    place, _, query = text.removeprefix(SCHEME).partition("?")
    if "@" in place:
        raise ConfigError(
            "an address of Milvus has no user and no password",
            hint="put the token, or user:password, into the environment variable MILVUS_TOKEN",
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(options.keys() - {"collection", "tls"}):
        raise ConfigError(
            f"an address of Milvus has no option {unknown[0]!r}",
            hint="its options are collection and tls; the token is the environment variable MILVUS_TOKEN",
        )
    collection = options.get("collection", "gallery")
    if not _COLLECTION.fullmatch(collection):
        raise ConfigError(f"{collection!r} is no name of a collection", hint="use letters, digits and _")
    if options.get("tls", "no") not in ("yes", "no"):
        raise ConfigError("tls of an address of Milvus is yes or no", hint=_FORMS)
    server = _SERVER.fullmatch(place.lstrip("/"))
    if server is not None:
        scheme = "https" if options.get("tls") == "yes" else "http"
        uri = f"{scheme}://{server['host']}:{server['port']}"
        return MilvusAddress(uri, collection, server["database"] or "")
    if not place.endswith(".db") or "tls" in options:
        raise ConfigError(f"{SCHEME}{place} is neither a server with its port nor a file NAME.db", hint=_FORMS)
    return MilvusAddress(str(Path(place).absolute()), collection)
