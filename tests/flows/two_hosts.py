"""Two hosts made on this machine: network namespaces that a cable joins, each with a loopback of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.runtime.processes import kill_group
from tests.flows.plain_runs import ROOT

ADDRESSES = ("10.77.0.1", "10.77.0.2")
_CABLE = "cable"
_ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


class TwoHosts:
    """Starts programs on either host, 0 or 1, and cuts the link between them."""

    def __init__(self, names: tuple[str, str], folder: Path) -> None:
        self.names = names
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, host: int, *command: str) -> subprocess.Popen[bytes]:
        """Start a program; its output is in `output` of the host. Prefect's files are the host's own."""
        environment = os.environ | _ENVIRONMENT | {"PREFECT_HOME": str(self._folder / f"prefect-{host}")}
        with self.output_file(host).open("ab") as out:
            program = subprocess.Popen(
                ["ip", "netns", "exec", self.names[host], *command],
                cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self._started.append(program)
        return program

    def torchrun(self, host: int, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the one rank of a host: the text of a Python program with arguments."""
        place = f"--nnodes=2 --node-rank={host} --nproc-per-node=1 --master-addr={ADDRESSES[0]} --master-port=29500"
        run = [sys.executable, "-m", "torch.distributed.run", *place.split(), "--no-python"]
        return self.start(host, *run, sys.executable, "-c", program, *arguments)

    def output_file(self, host: int) -> Path:
        return self._folder / f"host-{host}.txt"

    def output(self, host: int) -> str:
        return self.output_file(host).read_text()

    def cut(self) -> None:
        """Take the link between the hosts down."""
        subprocess.run(["ip", "-n", self.names[1], "link", "set", _CABLE, "down"], check=True)

    def end_all(self) -> None:
        for program in self._started:
            kill_group(program.pid)
            program.wait()


@contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Two hosts at `ADDRESSES` inside the `with` block; the test is skipped where they cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("needs the program `ip` of iproute2")
    names = (f"vireid-{os.getpid()}-0", f"vireid-{os.getpid()}-1")
    made: list[str] = []
    try:
        for name in names:
            _ip("netns", "add", name)
            made.append(name)
        _ip("link", "add", _CABLE, "netns", names[0], "type", "veth", "peer", "name", _CABLE, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", _CABLE)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", _CABLE, "up")
        hosts = TwoHosts(names, folder)
        try:
            yield hosts
        finally:
            hosts.end_all()
    finally:
        for name in made:
            _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no network namespaces here: ip {' '.join(arguments)}: {done.stderr.strip()}")
