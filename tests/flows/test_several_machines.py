"""Ranks of torchrun on two hosts train as one process does; a lost host ends the run, which resumes."""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.cclnet import CclnetConfig
from pipeline.runs.open import run_path
from pipeline.runtime.connections import LEAVE_SECONDS, LOST_SECONDS
from tests.flows import several_processes
from tests.flows.command_line import small, vireid_command
from tests.flows.test_several_processes import short, with_runs
from tests.flows.two_hosts import ADDRESSES, TwoHosts, two_hosts

pytestmark = pytest.mark.slow

BUSY_SECONDS = 60
"""What a machine that does other things may add: torchrun looks after its ranks in turns, and Python has to end."""

FLOAT64 = "import sys; from tests.flows.several_processes import train_on_a_host as run; run(*sys.argv[1:])"
COMMAND = "import sys; from tests.flows.several_processes import command_that_waits as run; run(*sys.argv[1:])"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[TwoHosts]:
    with two_hosts(tmp_path) as made:
        yield made


def train_on(hosts: TwoHosts, config: CclnetConfig, folder: Path, lost_at: str = "") -> list[int]:
    """Train in float64 on both hosts; gives their exit codes."""
    memories = folder / "memories"
    memories.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json())
    arguments = (str(folder / "config.json"), str(memories), lost_at)
    ranks = [hosts.torchrun(host, FLOAT64, *arguments) for host in (0, 1)]
    return [rank.wait() for rank in ranks]


def test_two_hosts_train_what_one_process_trains_even_if_one_was_lost(
    smoke_config: CclnetConfig, tmp_path: Path, hosts: TwoHosts
) -> None:
    configs = {}
    for name in ("alone", "calm", "lost"):
        (tmp_path / name / "memories").mkdir(parents=True)
        configs[name] = with_runs(short(smoke_config), tmp_path / name / "runs")
    several_processes.train_in_float64(configs["alone"], tmp_path / "alone" / "memories")
    assert train_on(hosts, configs["calm"], tmp_path / "calm") == [0, 0], hosts.output(0) + hosts.output(1)
    # 10 steps a round, two calls a step: call 23 is in the second round.
    assert train_on(hosts, configs["lost"], tmp_path / "lost", lost_at="23") == [1, -signal.SIGKILL]
    assert f"error: the connection to a rank on {ADDRESSES[1]} is lost; this rank ends" in hosts.output(0)
    assert len(lines_of(configs["lost"])) == 1
    assert train_on(hosts, configs["lost"], tmp_path / "lost") == [0, 0], hosts.output(0) + hosts.output(1)

    assert lines_of(configs["lost"]) == lines_of(configs["calm"])
    for number in (1, 2):
        alone, both = (labels_of(configs[name], number) for name in ("alone", "calm"))
        assert all(np.array_equal(alone[key], both[key]) for key in alone)
        memories = [np.load(tmp_path / name / "memories" / f"{number}-0.npz") for name in ("alone", "calm")]
        for key in memories[0]:
            np.testing.assert_allclose(memories[1][key], memories[0][key], atol=1e-5)
    losses = [[row["train/loss/total"] for row in rows_of(configs[name])] for name in ("alone", "calm")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


def test_a_cut_link_ends_both_hosts_in_time_and_one_host_resumes(
    smoke_data: Path, tmp_path: Path, hosts: TwoHosts, prefect_home: Path
) -> None:
    commands = []
    for host in (0, 1):  # data and runs are where each host finds them
        data = tmp_path / f"data-{host}"
        data.symlink_to(smoke_data)
        changes = ["--set", "stages.prepare_rounds=2", "--set", "evaluation.every=100"]
        commands.append(["train", "smoke", *small(tmp_path / f"runs-{host}", data), *changes])
        shutil.copytree(prefect_home, tmp_path / f"prefect-{host}")
    ranks = [hosts.torchrun(host, COMMAND, str(tmp_path), "23", *commands[host]) for host in (0, 1)]
    while not (tmp_path / "waiting").exists():
        assert all(rank.poll() is None for rank in ranks), hosts.output(0) + hosts.output(1)
        time.sleep(0.1)
    hosts.cut()
    (tmp_path / "go").touch()
    codes = [rank.wait(LOST_SECONDS + LEAVE_SECONDS + BUSY_SECONDS) for rank in ranks]
    assert codes == [1, 1]
    for host in (0, 1):
        output = " ".join(hosts.output(host).split())
        assert f"error: the connection to a rank on {ADDRESSES[1 - host]} is lost; this rank ends" in output
        assert f"did not answer for {LOST_SECONDS} s; repeat the command to resume" in output
        assert output.index("error:") < output.index("Traceback"), "the only stack trace is torchrun's own"

    (run,) = (tmp_path / "runs-0").glob("smoke-*")
    assert not list((tmp_path / "runs-1").glob("smoke-*")), "rank 0 alone keeps the run"
    kept = {path: path.read_bytes() for path in (run / "metrics.jsonl", run / "labels" / "round-001.npz")}
    shutil.copytree(tmp_path / "runs-0", tmp_path / "runs-2")
    again = [part.replace("runs-0", "runs-2") for part in commands[0]]
    for command in (commands[0], again):  # what one host computes from there depends on the checkpoint alone
        assert hosts.start(0, *vireid_command(*command)).wait() == 0, hosts.output(0)
    for path, content in kept.items():
        assert path.read_bytes().startswith(content), "finished rounds stay as they are"
        assert (tmp_path / "runs-2" / path.relative_to(tmp_path / "runs-0")).read_bytes() == path.read_bytes()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def lines_of(config: CclnetConfig) -> list[str]:
    return (run_path(config) / "metrics.jsonl").read_text().splitlines()


def rows_of(config: CclnetConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in lines_of(config)]


def labels_of(config: CclnetConfig, number: int) -> dict[str, np.ndarray]:
    return dict(np.load(run_path(config) / "labels" / f"round-{number:03d}.npz"))
