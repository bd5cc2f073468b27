"""Whether torchrun has started this process; variables that are left over from another start are refused."""

import os
import socket
import time

from pipeline.errors import ConfigError

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
_HINT = "start the ranks with torchrun, or unset TORCHELASTIC_RUN_ID"
_CONNECT_SECONDS = 15.0


def ranks_of_torchrun() -> int | None:
    """The number of ranks that torchrun has started; None for a process that it has not started.

    RANK and WORLD_SIZE alone do not count: other launchers and old shells leave them set.

    Raises:
        ConfigError: A variable of torchrun is missing or not a number, or the store of its rendezvous does not answer.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    for name in _NUMBERS:
        if not os.environ.get(name, "").isdecimal():
            value = os.environ.get(name)
            raise ConfigError(f"TORCHELASTIC_RUN_ID is set, but {name} is {value or 'missing'}", hint=_HINT)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        _expect_store(os.environ.get("MASTER_ADDR", ""), int(os.environ["MASTER_PORT"]))
    return int(os.environ["WORLD_SIZE"])


def _expect_store(host: str, port: int) -> None:
    """The store of torchrun's own process answers before it starts ranks, which would wait for two days."""
    limit = time.monotonic() + _CONNECT_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            if time.monotonic() > limit:
                raise ConfigError(f"torchrun does not answer at {host}:{port}", hint=_HINT) from error
            time.sleep(0.5)
        else:
            return
