"""What the processes of the GPU check have imported when they begin; a part whose imports fail says so itself."""

from contextlib import suppress
from importlib import import_module

MODULES = (
    "benchmarks.gpu_check_machine",
    "benchmarks.gpu_check_rounds",
    "benchmarks.gpu_check_speed",
)

for name in MODULES:
    with suppress(Exception):
        import_module(name)
