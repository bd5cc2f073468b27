"""Which device a process gets, and in which numbers the network computes there; the GPUs here are pretended."""

from contextlib import contextmanager

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.runtime.device import device_name, recorded_precision, resolve_device, resolve_precision, using_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def gpus(monkeypatch):
    """Sets the number of GPUs that this machine seems to have."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    pretend(0)
    return pretend


class TestOneProcess:
    def test_auto_takes_a_gpu_where_there_is_one(self, gpus):
        assert resolve_device("auto") == CPU
        gpus(2)
        assert resolve_device("auto") == torch.device("cuda")

    def test_a_name_is_taken_at_its_word(self, gpus):
        gpus(2)
        assert resolve_device("cpu") == CPU
        assert resolve_device("cuda") == torch.device("cuda")
        assert resolve_device("cuda:1") == torch.device("cuda", 1)

    @pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:7", 2)])
    def test_a_gpu_that_does_not_exist_is_refused_with_the_number_of_those_that_do(self, gpus, name, count):
        gpus(count)
        with pytest.raises(ConfigError, match=f"there is no device '{name}'; GPUs here: {count}"):
            resolve_device(name)

    @pytest.mark.parametrize(("name", "message"), [("gpu", "is not a device"), ("", "is not"), ("meta", "not support")])
    def test_what_is_no_device_of_ours_is_refused(self, name, message):
        with pytest.raises(ConfigError, match=message) as caught:
            resolve_device(name)
        assert "auto, cpu, cuda" in caught.value.hint


class TestSeveralProcesses:
    @pytest.mark.parametrize("name", ["auto", "cuda"])
    def test_each_process_of_a_machine_gets_a_gpu_of_its_own(self, gpus, name):
        gpus(4)
        found = [resolve_device(name, rank, 3) for rank in range(3)]
        assert found == [torch.device("cuda", rank) for rank in range(3)]

    @pytest.mark.parametrize(("processes", "count", "said"), [(2, 1, "2 processes for 1 GPU:"), (5, 4, "for 4 GPUs:")])
    def test_more_processes_than_gpus_are_refused_and_the_hint_names_how_many_may_run(
        self, gpus, processes, count, said
    ):
        gpus(count)
        for rank in range(processes):
            with pytest.raises(ConfigError, match=said) as caught:
                resolve_device("auto", rank, processes)
            assert caught.value.hint == f"use --processes {count}"

    def test_as_many_processes_as_gpus_are_not_too_many(self, gpus):
        gpus(2)
        assert resolve_device("cuda", 1, 2) == torch.device("cuda", 1)

    @pytest.mark.parametrize("name", ["cuda:0", "cuda:1"])
    def test_processes_cannot_share_one_named_gpu(self, gpus, name):
        gpus(2)
        with pytest.raises(ConfigError, match=f"2 processes cannot share '{name}'"):
            resolve_device(name, 0, 2)

    @pytest.mark.usefixtures("gpus")
    @pytest.mark.parametrize("name", ["auto", "cpu"])
    def test_any_number_of_processes_shares_the_cores_of_a_cpu(self, name):
        assert resolve_device(name, 6, 7) == CPU


class TestPrecision:
    def test_auto_is_bfloat16_on_a_gpu_and_float32_on_a_cpu(self):
        assert resolve_precision("auto", CUDA) == "bfloat16"
        assert resolve_precision("auto", CPU) == "float32"

    @pytest.mark.parametrize("name", ["float32", "bfloat16"])
    def test_a_gpu_computes_in_what_is_asked_for(self, name):
        assert resolve_precision(name, CUDA) == name

    def test_bfloat16_on_a_cpu_is_refused(self):
        assert resolve_precision("float32", CPU) == "float32"
        with pytest.raises(ConfigError, match="bfloat16' is for GPUs") as caught:
            resolve_precision("bfloat16", CPU)
        assert caught.value.hint == "use auto or float32"

    def test_a_finished_run_keeps_its_precision_but_on_a_cpu(self):
        for name, on_gpu in (("auto", "bfloat16"), ("float32", "float32"), ("bfloat16", "bfloat16")):
            assert recorded_precision(name, CUDA) == on_gpu
            assert recorded_precision(name, CPU) == "float32"


def test_a_device_has_the_name_of_its_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(CUDA) == "GPU 0"
    assert device_name(CPU) == "cpu"


class TestUse:
    @pytest.fixture
    def calls(self, monkeypatch):
        """What torch is told: the GPU in use, or the number of threads, of which there seem to be 8."""
        told = []

        @contextmanager
        def current_gpu(device):
            told.append(device)
            yield
            told.append("left")

        monkeypatch.setattr(torch.cuda, "device", current_gpu)
        monkeypatch.setattr(torch, "set_num_threads", told.append)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
        return told

    @pytest.mark.parametrize(("processes", "threads"), [(1, 8), (2, 4), (3, 2), (16, 1)])
    def test_processes_share_the_cores_of_a_cpu_and_give_them_back(self, calls, processes, threads):
        with using_device(CPU, "float32", processes):
            assert calls == [threads]
        assert calls == [threads, 8]

    @pytest.mark.parametrize(("precision", "shorter"), [("float32", False), ("bfloat16", True)])
    def test_float32_on_a_gpu_means_no_shorter_numbers(self, calls, precision, shorter):
        before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
        with using_device(CUDA, precision, 2):
            assert calls == [CUDA]
            assert torch.backends.cudnn.allow_tf32 == shorter
            assert torch.backends.cudnn.benchmark
            assert not torch.backends.cuda.matmul.allow_tf32
        assert calls == [CUDA, "left"]
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before

    def test_an_error_inside_brings_back_what_was_there(self, calls):
        with pytest.raises(ValueError, match="stop"), using_device(CPU, "float32", 2):
            raise ValueError("stop")
        assert calls == [4, 8]
