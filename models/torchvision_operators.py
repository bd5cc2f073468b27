"""Lets torchvision be imported beside a torch that its binary part was not built for.

The packaged torchvision is built for CUDA. Beside a CPU-only torch its extension cannot be loaded, the operators that
it would have defined do not exist, and `import torchvision` (so `import open_clip`) ends in `RuntimeError: operator
torchvision::nms does not exist`. Known: pytorch/vision#9077, pytorch/vision#9085, pytorch/pytorch#122494. The Python
part needs no more than two names.
"""

import functools
import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def define_missing_operators() -> bool:
    """Declare the operators that torchvision's import asks for, if its own extension cannot.

    Must be called before the first import of torchvision or open_clip; calling it again changes nothing. The operators
    are declared without a kernel: calling `torchvision.ops.nms` still fails, transforms work.

    Returns:
        Whether the operators had to be declared; false where torchvision is whole.
    """
    return _stand_in() is not None


@functools.cache
def _stand_in() -> torch.library.Library | None:
    """The library that holds the declarations: they vanish when it is collected, so the cache keeps it."""
    if hasattr(torch.ops.torchvision, "nms") or _extension_loads():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    return library


def _extension_loads() -> bool:
    """Load torchvision's extension, as its import would; loading it twice is harmless."""
    package = importlib.util.find_spec("torchvision")  # looks for the package without importing it
    if package is None or package.submodule_search_locations is None:
        return False
    for folder in package.submodule_search_locations:
        for extension in sorted(Path(folder).glob("_C*.so")) + sorted(Path(folder).glob("_C*.pyd")):
            try:
                torch.ops.load_library(str(extension))
            except OSError:  # built for another torch
                continue
            return True
    return False
