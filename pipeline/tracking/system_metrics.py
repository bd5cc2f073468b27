"""Use of processor, memory, disk, network and GPUs, measured by MLflow's monitors in a thread.

MLflow's own thread is not used: while a server is away it blocks the end of the run for minutes.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

from pipeline.errors import TrackingError
from pipeline.tracking.tracker import Numbers

_INTERVAL_SECONDS = 10.0
_PREFIX = "system/"

Monitors = list[BaseMetricsMonitor]


class SystemSampler:
    """Measures every `interval_seconds` until `stop`, and calls `log`; measurements that MLflow refuses are lost."""

    def __init__(
        self, log: Callable[[Numbers], None], monitors: Monitors, interval_seconds: float = _INTERVAL_SECONDS
    ) -> None:
        self._log = log
        self._monitors = monitors
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample_on, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; while it waits for MLflow it ends later by itself."""
        self._stopped.set()
        self._thread.join(timeout=_INTERVAL_SECONDS)

    def _sample_on(self) -> None:
        while not self._stopped.wait(self._interval):
            numbers: dict[str, float] = {}
            for monitor in self._monitors:
                monitor.collect_metrics()
                numbers |= {_PREFIX + name: value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            try:
                self._log(numbers)
            except TrackingError:
                continue  # the run itself reports the outage


def available_monitors() -> Monitors:
    """Monitors of processor, memory, disk, network, and NVIDIA GPUs; empty if psutil is not installed."""
    if find_spec("psutil") is None:
        return []
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: Monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):  # no NVIDIA GPU, or no library to query it
        monitors.append(GPUMonitor())
    return monitors
