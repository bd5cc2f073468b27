"""The search protocol of each data set, one module each."""

from collections.abc import Sequence

from pipeline.errors import ConfigError
from pipeline.evaluation.protocols.llcm import LLCM
from pipeline.evaluation.protocols.manifest import MANIFEST, PAIRS
from pipeline.evaluation.protocols.regdb import REGDB
from pipeline.evaluation.protocols.spec import SearchProtocol
from pipeline.evaluation.protocols.sysu import SYSU

PROTOCOLS: tuple[SearchProtocol, ...] = (SYSU, REGDB, LLCM, MANIFEST, PAIRS)


def protocol_of(name: str, protocols: Sequence[SearchProtocol] = PROTOCOLS) -> SearchProtocol:
    """The protocol of a data set, by the value of `data.name`.

    Raises:
        ConfigError: There is none.
    """
    for protocol in protocols:
        if protocol.name == name:
            return protocol
    known = ", ".join(protocol.name for protocol in protocols)
    raise ConfigError(f"there is no search protocol '{name}'", hint=f"choose from: {known}")


def search_protocol(search: str, protocols: Sequence[SearchProtocol] = PROTOCOLS) -> SearchProtocol:
    """The protocol that a search belongs to, by the search's name.

    Raises:
        ConfigError: There is no such search.
    """
    for protocol in protocols:
        if search in protocol.searches:
            return protocol
    known = ", ".join(search for protocol in protocols for search in protocol.options.searches)
    raise ConfigError(f"there is no search '{search}'", hint=f"choose from: {known}")
