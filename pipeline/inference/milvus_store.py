"""A collection of Milvus: rows with a vector and the description of its image, and row 0, which describes them all.

Rows below 0 are further texts. The description is a row, because milvus-lite and the versions of Milvus differ in the
properties of collections that they keep. This is the only module that imports pymilvus.
"""

import contextlib
import importlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float32, Int64

from pipeline.data.values import moment
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.inference.filters import Filters
from pipeline.inference.index import IndexedFile
from pipeline.inference.milvus_address import MilvusAddress
from pipeline.runtime import atomic_files
from pipeline.secrets import masked

TOKEN = "MILVUS_TOKEN"  # noqa: S105 - the name of the environment variable
FLAT, IVF = "FLAT", "IVF_FLAT"
"""Types of an index: every vector is compared, or those of the nearest lists."""
MOST_FOUND = 16_384
"""The limit of Milvus for the rows of a search."""
SPARE = 32
"""Rows beyond k that are compared again, as for inverted lists."""
_RECORD = 0
_UNKNOWN = -(2**62)
_SECONDS = 10.0
_BYTES = 16_000_000
"""Of the vectors in one message; servers take 64 MB."""
_PAGE = 10_000
"""Descriptions in one answer, of at most 16,384: milvus-lite scans all rows for each answer."""
_SEARCH = {"metric_type": "IP", "params": {"nprobe": 64}}
_LOGGERS = ("pymilvus", "milvus_lite", "grpc")
_FIELDS = {"id", "vector", "file", "camera", "time", "person"}


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Rows that a query found, in no order, and what is stored of them."""

    rows: Int64[np.ndarray, " m"]
    vectors: Float32[np.ndarray, "m dim"]
    files: tuple[IndexedFile, ...]


@dataclass(frozen=True, slots=True, eq=False)
class MilvusStore:
    """An open connection, and the address of the collection, which need not exist."""

    client: Any
    address: MilvusAddress

    def exists(self) -> bool:
        """Whether there is the collection, which is then loaded: a restarted milvus-lite has released it.

        Raises:
            DataError: There is one of another program.
        """
        name = self.address.collection
        with failures(self.address):
            if not self.client.has_collection(name):
                return False
            fields = {field["name"] for field in self.client.describe_collection(name)["fields"]}
        if fields != _FIELDS:
            raise DataError(f"{self.address} is a collection of another program", hint="name another collection")
        with failures(self.address):
            if not self.client.list_indexes(name):  # a kill while it was built again
                self.client.create_index(name, self._index(FLAT, 0))
            self.client.load_collection(name)
        return True

    def create(self, dim: int) -> None:
        """Make the collection, for unit vectors of `dim` numbers."""
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        for name in ("file", "camera", "person"):
            schema.add_field(name, DataType.VARCHAR, max_length=65_535)
        schema.add_field("time", DataType.INT64)
        with failures(self.address):
            self.client.create_collection(
                self.address.collection,
                schema=schema,
                index_params=self._index(FLAT, 0),
                consistency_level="Strong",
            )

    def drop(self) -> None:
        """Remove the collection."""
        with failures(self.address):
            self.client.drop_collection(self.address.collection)

    def require_method(self, method: str, images: int) -> None:
        """Build the index again if it is of another type than `method`, FLAT or IVF_FLAT, for a number of images."""
        name = self.address.collection
        with failures(self.address):
            if self.method() == method:
                return
            self.client.release_collection(name)
            self.client.drop_index(name, "vector")
            self.client.create_index(name, self._index(method, images))
            self.client.load_collection(name)

    def method(self) -> str:
        """The type of the index."""
        with failures(self.address):
            return str(self.client.describe_index(self.address.collection, "vector")["index_type"])

    def dim(self) -> int:
        """Numbers of a vector."""
        with failures(self.address):
            fields = self.client.describe_collection(self.address.collection)["fields"]
        return next(int(field["params"]["dim"]) for field in fields if field["name"] == "vector")

    def record(self) -> Mapping[str, Any] | None:
        """The description of the collection; None if it was not written."""
        found = self.texts([_RECORD])
        return _json(found[0], self.address) if found else None

    def write_record(self, record: Mapping[str, Any], dim: int) -> None:
        """Write, or replace, the description of the collection; then all rows are made durable."""
        self.write_texts({_RECORD: json.dumps(record)}, dim)
        with failures(self.address):
            self.client.flush(self.address.collection)

    def texts(self, rows: Sequence[int]) -> list[str]:
        """The texts of these rows, in their order, without those that do not exist."""
        found: dict[int, str] = {}
        with failures(self.address):
            for some in _pages(rows, 100):
                stored = self.client.get(self.address.collection, ids=[*some], output_fields=["file"])
                found |= {int(row["id"]): row["file"] for row in stored}
        return [found[row] for row in rows if row in found]

    def write_texts(self, texts: Mapping[int, str], dim: int) -> None:
        """Write, or replace, rows that are texts of at most 65,535 bytes: row 0, or rows below 0."""
        plain = {"vector": np.zeros(dim, np.float32), "camera": "", "person": "", "time": _UNKNOWN}
        with failures(self.address):
            for some in _pages([*texts], 100):
                self.client.upsert(self.address.collection, [plain | {"id": row, "file": texts[row]} for row in some])

    def files(self) -> Iterator[tuple[int, IndexedFile]]:
        """Every row from 1 on, and its image.

        Raises:
            DataError: A description is damaged.
        """
        with failures(self.address):
            pages = self.client.query_iterator(
                self.address.collection, batch_size=_PAGE, filter=f"id > {_RECORD}", output_fields=["id", "file"]
            )
            try:
                while page := pages.next():
                    yield from ((int(row["id"]), _file(row["file"], self.address)) for row in page)
            finally:
                pages.close()

    def get(self, rows: Sequence[int]) -> Candidates:
        """The stored rows of these numbers, without those that do not exist."""
        fields = ["id", "vector", "file"]
        with failures(self.address):
            found = [
                row
                for some in _pages(rows, 256)
                for row in self.client.get(self.address.collection, ids=[*some], output_fields=fields)
            ]
        return self._candidates(found)

    def put(self, rows: Sequence[int], files: Sequence[IndexedFile], vectors: Float32[np.ndarray, "n dim"]) -> None:
        """Insert rows, or replace those of the same numbers."""
        at_once = max(1, _BYTES // (4 * vectors.shape[1]))
        with failures(self.address):
            for chosen in _pages(range(len(rows)), at_once):
                content = [{"id": int(rows[at]), "vector": vectors[at], **_described(files[at])} for at in chosen]
                self.client.upsert(self.address.collection, content)

    def remove(self, rows: Sequence[int]) -> None:
        """Delete rows."""
        with failures(self.address):
            for some in _pages(rows, 10_000):
                self.client.delete(self.address.collection, ids=[*some])

    def compact(self) -> None:
        """Make deletions durable, and request that deleted rows leave the files, which happens later.

        milvus-lite ignores the request: it compacts after later writes, if at all.
        """
        with failures(self.address):
            self.client.flush(self.address.collection)
            self.client.compact(self.address.collection)

    def search(self, queries: Float32[np.ndarray, "q dim"], k: int, filters: Filters) -> list[Candidates]:
        """The rows most similar to each query, and 32 more, of those that fulfil the conditions."""
        limit = min(k + SPARE, MOST_FOUND)
        at_once = max(1, _BYTES // (4 * queries.shape[1] * limit))
        with failures(self.address):
            return [
                self._candidates([{"id": hit["id"], **hit["entity"]} for hit in hits])
                for some in _pages(range(len(queries)), at_once)
                for hits in self.client.search(
                    self.address.collection,
                    data=[queries[at] for at in some],
                    anns_field="vector",
                    limit=limit,
                    filter=_condition(filters),
                    output_fields=["vector", "file"],
                    search_params=_SEARCH,
                )
            ]

    def best(self, queries: Float32[np.ndarray, "q dim"], without: str) -> Float32[np.ndarray, " q"]:
        """The highest inner product of each query with an image; minus infinity without any.

        Images of the person `without` are excluded, none if it is empty. Inverted lists may miss the best one.
        """
        best = np.full(len(queries), -np.inf, np.float32)
        with failures(self.address):
            for some in _pages(range(len(queries)), 100):
                found = self.client.search(
                    self.address.collection,
                    data=[queries[at] for at in some],
                    anns_field="vector",
                    limit=2,  # one of them may be row 0
                    filter=f'person != "{_literal(without)}"' if without else "",
                    output_fields=["id"],
                    search_params=_SEARCH,
                )
                for at, hits in zip(some, found, strict=True):
                    best[at] = max((hit["distance"] for hit in hits if hit["id"] != _RECORD), default=-np.inf)
        return best

    def has_person(self, name: str) -> bool:
        """Whether an image shows a person of this name."""
        with failures(self.address):
            condition = f'person == "{_literal(name)}"'
            return bool(self.client.query(self.address.collection, filter=condition, output_fields=["id"], limit=1))

    def _candidates(self, found: Sequence[Mapping[str, Any]]) -> Candidates:
        kept = [row for row in found if row["id"] != _RECORD]
        vectors = np.array([row["vector"] for row in kept], np.float32) if kept else np.empty((0, 0), np.float32)
        rows = np.array([row["id"] for row in kept], np.int64)
        return Candidates(rows, vectors, tuple(_file(row["file"], self.address) for row in kept))

    def _index(self, method: str, images: int) -> Any:
        index = self.client.prepare_index_params()
        params = {"nlist": max(128, round(4 * images**0.5))} if method == IVF else {}
        index.add_index("vector", index_type=method, metric_type="IP", params=params)
        return index


@contextlib.contextmanager
def connected(address: MilvusAddress) -> Iterator[MilvusStore]:
    """Connect; the connection is closed if what follows fails, and stays open otherwise.

    Raises:
        ConfigError: pymilvus or milvus-lite is missing; the server does not answer, or refuses the login; the file is
            none of milvus-lite.
        DataError: Another process has the file open.
    """
    _require(address)
    from pymilvus import MilvusClient, MilvusException

    for name in _LOGGERS:  # they print what is raised here anyway, with a stack trace and unmasked
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    token = os.environ.get(TOKEN, "") if address.file is None else ""
    try:
        client = MilvusClient(address.uri, token=token, db_name=address.database, timeout=_SECONDS)
    except MilvusException as error:
        raise _not_opened(address, _reason(error.__cause__ or error)) from None
    try:
        yield MilvusStore(client, address)
    except BaseException:
        client.close()
        raise


@contextlib.contextmanager
def failures(address: MilvusAddress) -> Iterator[None]:
    """CheckpointError, with the database's own reason, where the database fails or is lost."""
    import grpc
    from pymilvus import MilvusException

    try:
        yield
    except (MilvusException, grpc.RpcError) as error:
        raise CheckpointError(
            f"{address}: {_reason(error)}", hint="check that the database runs; the repeated command resumes"
        ) from None


def _require(address: MilvusAddress) -> None:
    hint = "pip install 'usl-vireid[milvus]'"
    for module in ["pymilvus", *["milvus_lite"] * (address.file is not None)]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"a gallery in Milvus needs {module}, which is not installed", hint=hint) from error
    file = address.file
    if file is None:
        return
    if file.exists() and not (file.is_dir() and ((file / "LOCK").is_file() or not any(file.iterdir()))):
        raise ConfigError(f"{file} exists and is no database of milvus-lite 3", hint="name another file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{file} cannot be made: {error.strerror}", hint="name another file") from error


def _not_opened(address: MilvusAddress, reason: str) -> ConfigError | DataError:
    if address.file is not None:
        return DataError(
            f"{address.file} cannot be opened",
            hint="milvus-lite serves one process: end the other one, or start a Milvus server for both",
        )
    if any(word in reason.lower() for word in ("auth", "permission", "denied")):
        return ConfigError(f"{address} refuses the login", hint=f"set {TOKEN} to its token or user:password")
    return ConfigError(
        f"{address} does not answer: {reason}", hint="check that Milvus runs there, and its host and port"
    )


def _reason(error: BaseException) -> str:
    details = getattr(error, "details", None)  # of an error of gRPC
    text = details() if callable(details) else getattr(error, "message", "")
    return masked(str(text or error)).splitlines()[0][:300]


def _described(file: IndexedFile) -> dict[str, Any]:
    return {
        "file": json.dumps(asdict(file)),
        "camera": _literal(file.camera),
        "person": _literal(file.person),
        "time": _microseconds(moment(file.time)) if file.time else _UNKNOWN,
    }


def _file(text: str, address: MilvusAddress) -> IndexedFile:
    try:
        return atomic_files.checked(IndexedFile, _json(text, address), Path(str(address)))
    except CheckpointError as error:
        raise DataError(error.message, hint="name another collection") from error


def _json(text: str, address: MilvusAddress) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{address} is damaged: {error}", hint="name another collection") from error
    return content if isinstance(content, dict) else {}


def _condition(filters: Filters) -> str:
    parts = []
    if filters.cameras:
        parts.append(f"camera in {json.dumps([_literal(name) for name in filters.cameras])}")
    if filters.since is not None or filters.until is not None:
        parts.append(f"time > {_UNKNOWN}")
    if filters.since is not None:
        parts.append(f"time >= {_microseconds(filters.since)}")
    if filters.until is not None:
        parts.append(f"time <= {_microseconds(filters.until)}")
    return " and ".join(parts)


def _literal(name: str) -> str:
    """A name without quotes, backslashes and undecodable signs, as it is stored and looked for."""
    return quote(name, safe=" ", errors="surrogateescape")


def _microseconds(time: datetime) -> int:
    """Since 1970, exactly."""
    since = time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _pages(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
