"""Connections to other ranks: a lost one is an error, or ends the process; ranks that do not meet are an error."""

import socket
import threading
from collections.abc import Iterator

import pytest

from pipeline.runtime import connections
from pipeline.runtime.connections import open_descriptors, watched_connections
from tests.fresh_process import run_fresh


@pytest.fixture
def connected() -> Iterator[tuple[frozenset[int], socket.socket, socket.socket]]:
    """What was open before, and the two ends of a TCP connection within this machine."""
    before = open_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as own:
        other, _ = server.accept()
        with other:
            yield before, own, other


def exchange_and_fail(own: socket.socket, other: socket.socket) -> None:
    own.sendall(b"data")
    assert other.recv(4) == b"data"
    assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    raise RuntimeError("a mistake of ours")


Connected = tuple[frozenset[int], socket.socket, socket.socket]


def test_other_errors_and_data_stay_what_they_are(connected: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_ERROR_SECONDS", 0.1)
    before, own, other = connected
    with pytest.raises(RuntimeError, match="a mistake of ours"), watched_connections(before):
        exchange_and_fail(own, other)
    own.sendall(b"more")
    assert other.recv(4) == b"more"
    assert all(thread.name != "connections" for thread in threading.enumerate())


def test_a_connection_that_closes_as_the_work_ends_is_no_loss(connected: Connected) -> None:
    before, _, other = connected
    with watched_connections(before):
        other.shutdown(socket.SHUT_RDWR)
    assert len(open_descriptors() - before) == 3, "the server and the two ends, and nothing of the watch"


LOSING = """
import socket, sys, time
from pipeline.errors import RankError
from pipeline.runtime import connections
connections.LEAVE_SECONDS = 1
sys.stderr = sys.stdout
before = connections.open_descriptors()
server = socket.create_server(("127.0.0.1", 0))
own = socket.create_connection(server.getsockname())
other, _ = server.accept()
try:
    with connections.watched_connections(before):
        other.shutdown(socket.SHUT_RDWR)
        if sys.argv[1] == "noticed":
            raise RuntimeError("Connection closed by peer")
        time.sleep(60)
except RankError as error:
    print("raised:", error.message)
    if sys.argv[2] == "leaves":
        sys.exit()
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["noticed leaves", "noticed hangs", "computes on"])
def test_a_process_that_has_lost_a_connection_ends_with_an_error(how: str) -> None:
    told = run_fresh(LOSING, *how.split(), exit_code=0 if how == "noticed leaves" else 1)
    assert ("raised: the connection to a rank on 127.0.0.1 is lost;" in told) == how.startswith("noticed")
    if how != "noticed leaves":
        assert "error: the connection to a rank on 127.0.0.1 is lost; this rank ends" in told
        assert "repeat the command to resume" in told


@pytest.mark.slow
def test_ranks_that_do_not_meet_are_an_error_and_those_that_meet_wait_for_days() -> None:
    program = """
import os, sys, time
from datetime import timedelta
from pipeline.errors import RankError
from pipeline.runtime import distributed
port, count = sys.argv[1:]
distributed.MEETING = timedelta(seconds=2)
os.environ |= {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
               "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "RANK": "0", "LOCAL_RANK": "0"}
def rank(number):
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number)}
    with distributed.joined_if_torchrun("cpu") as processes:
        print(processes.from_rank_zero(lambda: [time.sleep(4), "clustered"])[1], flush=True)
try:
    if count == "2" and os.fork() == 0:
        rank(1)
    else:
        rank(0)
        if count == "2":
            os.wait()
except RankError as error:
    print(error.message, error.hint)
"""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    assert run_fresh(program, port, "2").split() == ["clustered", "clustered"]
    told = run_fresh(program.replace('count == "2"', "False"), port, "2")
    assert told.startswith("rank 0 of 2 cannot connect to the others by interface lo: ")
    assert "set GLOO_SOCKET_IFNAME" in told
