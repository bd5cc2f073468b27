"""Programs that run as long as this one: started, waited for, started again when they die, and ended together."""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

GRACE_SECONDS = 20.0
"""How long a program may take to end when it is asked to."""

_MAX_STARTS = 5
"""Deaths within a minute after which a program is given up."""

_MINUTE = 60.0


@dataclass(slots=True)
class Service:
    """One program and the processes that it starts, in a session of its own: Ctrl-C at the terminal reaches us alone.

    Attributes:
        name: What messages call it.
        command: The program and its arguments.
        environment: What it has besides our own environment.
        log: Where its output goes.
        health: The address that answers once it is ready; None for a program without one.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    health: str | None = None
    _process: subprocess.Popen[bytes] | None = None
    _starts: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start it.

        Raises:
            ConfigError: It has died again and again.
        """
        now = time.monotonic()
        self._starts = [start for start in self._starts if now - start < _MINUTE] + [now]
        if len(self._starts) > _MAX_STARTS:
            raise ConfigError(f"{self.name} ends again and again", hint=f"its own words are in {self.log}")
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - programs of this environment
                self.command,
                env=os.environ | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def has_died(self) -> bool:
        """Whether it was started and is gone."""
        return self._process is not None and self._process.poll() is not None

    def is_ready(self) -> bool:
        """Whether it answers; a program without an address does when it runs."""
        if self.health is None:
            return not self.has_died()
        try:
            return httpx.get(self.health, timeout=5).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it and all that it started; a second call does nothing."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("%s does not end: it is killed", self.name)
        self._signal(signal.SIGKILL)  # what the program itself may have left
        self._process.wait()
        self._process = None

    def kill(self) -> bool:
        """End it without asking; the processes of its runs have sessions of their own and stay.

        Returns:
            Whether there was anything to end.
        """
        if self._process is None:
            return False
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None
        return True

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def wait_until_ready(service: Service, stopped: Callable[[float], bool], seconds: float) -> None:
    """Wait for a service to answer, or for somebody to stop everything.

    Args:
        service: One that was started.
        stopped: Waits for so many seconds, and says whether everything is to stop.
        seconds: The longest wait.

    Raises:
        ConfigError: It died, or took too long.
    """
    limit = time.monotonic() + seconds
    while not service.is_ready():
        if service.has_died() or time.monotonic() > limit:
            raise ConfigError(f"{service.name} does not start", hint=f"its own words are in {service.log}")
        if stopped(0.2):
            return


def refuse_used_port(port: int, option: str) -> None:
    """See that nobody listens on a port of this machine.

    Raises:
        ConfigError: Somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} is in use", hint=f"stop what uses it, or choose another one with {option}"
            ) from error
