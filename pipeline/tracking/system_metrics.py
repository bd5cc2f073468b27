"""How busy the machine is while a run is recorded, as MLflow's own monitors measure it, in a thread of its own.

MLflow's own thread cannot be used: while a server is away it waits for minutes, and with it the end of the run.
"""

import threading
from collections.abc import Callable
from importlib.util import find_spec

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

from pipeline.errors import TrackingError
from pipeline.tracking.tracker import Numbers

_INTERVAL_SECONDS = 10.0
_PREFIX = "system/"

Monitors = list[BaseMetricsMonitor]


class SystemSampler:
    """Samples until it is stopped; a sample that nobody takes is lost.

    Args:
        tell: Records the numbers of a sample.
        monitors: What is measured.
        interval_seconds: Between samples.
    """

    def __init__(
        self, tell: Callable[[Numbers], None], monitors: Monitors, interval_seconds: float = _INTERVAL_SECONDS
    ) -> None:
        self._tell = tell
        self._monitors = monitors
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample_on, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that waits for MLflow ends when it has an answer, and nobody waits for that."""
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
                self._tell(numbers)
            except TrackingError:
                continue  # the run itself says so, and keeps what matters


def available_monitors() -> Monitors:
    """Processor and memory, disk, network, and GPUs where a library can ask them; none where psutil is missing."""
    if find_spec("psutil") is None:
        return []
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: Monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except (ImportError, RuntimeError):
        return monitors  # no GPU of NVIDIA's, or nothing to ask it with
    return monitors
