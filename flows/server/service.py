"""A program as a child process: started, checked, and ended with all that it has started."""

import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from flows.server.guarded_server import LOOPBACK
from pipeline.errors import ConfigError
from pipeline.runtime.children import GroupWatch
from pipeline.runtime.processes import kill_group

logger = logging.getLogger(__name__)

GRACE_SECONDS = 20.0
"""Time from SIGTERM to SIGKILL."""

_MAX_STARTS = 5  # a minute; a service that ends more often is not restarted
_MINUTE = 60.0


@dataclass(slots=True)
class Service:
    """A program in its own session, so that Ctrl-C at the terminal does not reach it.

    `environment` is added to that of this process, `log` receives its output, and the address `health` answers once it
    is ready (None for a program without address). It inherits the socket `listener`. With a `watch` it is ended by
    `lost_signal` if this process is killed.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    health: str | None = None
    listener: socket.socket | None = None
    watch: GroupWatch | None = None
    lost_signal: signal.Signals = signal.SIGTERM
    _process: subprocess.Popen[bytes] | None = None
    _starts: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the program; `ConfigError` if it keeps ending by itself."""
        now = time.monotonic()
        self._starts = [start for start in self._starts if now - start < _MINUTE] + [now]
        if len(self._starts) > _MAX_STARTS:
            raise ConfigError(f"{self.name} ends again and again", hint=f"see its log, {self.log}")
        self.kill()  # child processes of one that has ended hold its port
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - programs of this environment
                self.command,
                env=os.environ | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=() if self.listener is None else (self.listener.fileno(),),
                start_new_session=True,
            )
        if self.watch is not None:
            self.watch.add(self._process.pid, self.lost_signal)

    def has_died(self) -> bool:
        """Whether it was started and has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def is_ready(self) -> bool:
        """Whether it answers at `health`, or runs if it has no address."""
        if self.health is None:
            return not self.has_died()
        try:
            return httpx.get(self.health, timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End it and its child processes; a second call does nothing."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("%s does not end: killing it", self.name)
        self._end()  # remaining child processes

    def kill(self) -> bool:
        """Kill it, but not the processes of its flow runs, which have their own sessions. Returns whether it ran."""
        if self._process is None:
            return False
        self._end()
        return True

    def _end(self) -> None:
        assert self._process is not None
        kill_group(self._process.pid)
        self._process.wait()
        if self.watch is not None:
            self.watch.remove(self._process.pid)
        self._process = None


def wait_until_ready(service: Service, stopped: Callable[[float], bool], seconds: float) -> None:
    """Wait at most `seconds` for a started service to answer; `stopped(s)` waits s seconds for a stop signal.

    Raises:
        ConfigError: The service ended or took too long.
    """
    limit = time.monotonic() + seconds
    while not service.is_ready():
        if service.has_died() or time.monotonic() > limit:
            raise ConfigError(f"{service.name} does not start", hint=f"see its log, {service.log}")
        if stopped(0.2):
            return


def refuse_used_port(port: int, option: str) -> None:
    """Raise `ConfigError` if a program listens on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} is in use", hint=f"stop what uses it, or choose another one with {option}"
            ) from error
