"""Workers on two hosts take runs from one server, which listens on its own host's loopback only."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from pipeline.config.cclnet import CclnetConfig
from tests.flows.command_line import vireid_command
from tests.flows.two_hosts import ADDRESSES, TwoHosts, two_hosts

PORT, FORWARDED = 4200, 4300
PASSWORD = "someone:a-password"

FORWARD = """
import asyncio, sys
host, port, to_host, to_port = sys.argv[1:]

async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()

async def connect(reader, writer):
    try:
        to_reader, to_writer = await asyncio.open_connection(to_host, int(to_port))
    except OSError:  # not there yet: end the connection that was accepted
        return writer.close()
    await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer), return_exceptions=True)

async def main():
    await (await asyncio.start_server(connect, host, int(port))).serve_forever()

asyncio.run(main())
"""
"""What `ssh -L` does, without its encryption."""

HEALTHY = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{PORT}/api/health', timeout=10)"


def finished(hosts: TwoHosts, host: int, *command: str) -> int:
    return hosts.start(host, *command).wait(timeout=300)


@pytest.mark.slow
def test_workers_on_two_hosts_take_runs_from_one_server(
    smoke_config: CclnetConfig, tmp_path: Path, prefect_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_API_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    shutil.copytree(prefect_home, tmp_path / "prefect-0")
    python, prefect = sys.executable, [sys.executable, "-m", "prefect"]
    with two_hosts(tmp_path) as hosts:
        monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", PASSWORD)
        server = hosts.start(0, python, "-m", "flows.server.guarded_server", str(PORT))
        monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING")
        hosts.start(0, python, "-c", FORWARD, ADDRESSES[0], str(FORWARDED), "127.0.0.1", str(PORT))
        hosts.start(1, python, "-c", FORWARD, "127.0.0.1", str(PORT), ADDRESSES[0], str(FORWARDED))
        while finished(hosts, 1, python, "-c", HEALTHY) != 0:  # through the forwarded port
            assert server.poll() is None, hosts.output(0)
            time.sleep(1)
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{PORT}/api")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", PASSWORD)
        assert finished(hosts, 0, *vireid_command("deploy", "unsupervised/demo")) == 0, hosts.output(0)
        changes = smoke_config.model_dump(mode="json", include={"data": {"root"}, "model": {"architecture", "weights"}})
        execution = {"runs_folder": str(tmp_path / "runs"), "device": "cpu", "tracking": False, "figures": False}
        changes |= {"stages": {"prepare_rounds": 1, "clip_rounds": 0}, "execution": execution}
        for seed in (1, 2):
            given = ["preset=" + json.dumps("smoke"), "config=" + json.dumps(changes | {"seed": seed})]
            options = [part for one in given for part in ("--param", one)]
            started = finished(hosts, 0, *prefect, "deployment", "run", "unsupervised/demo", *options)
            assert started == 0, hosts.output(0)
        for host in (0, 1):  # one after another, so that each takes one run
            worker = ["worker", "start", "--pool", "vireid", "--type", "process", "--name", f"host-{host}"]
            assert finished(hosts, host, *prefect, *worker, "--limit", "1", "--run-once") == 0, hosts.output(host)
            assert hosts.output(host).count("Flow run 'smoke' - Finished in state Completed()") == 1
    runs = sorted((tmp_path / "runs").glob("smoke-*"))
    assert [run.name[:8] for run in runs] == ["smoke-s1", "smoke-s2"]
    assert all((run / "evaluation.json").exists() for run in runs)
