"""Import torchvision beside a torch that its binary part was not built for.

The packaged torchvision is built for CUDA. Beside a CPU-only torch its extension cannot be loaded, its operators do not
exist, and `import torchvision` (so `import open_clip`) fails with `RuntimeError: operator torchvision::nms does not
exist`. Known: pytorch/vision#9077, pytorch/vision#9085, pytorch/pytorch#122494. The Python part needs two names.
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
    """Declare the operators that torchvision's import needs, if its own extension cannot be loaded; return whether.

    Must be called before the first import of torchvision or open_clip; it is idempotent. The operators have no kernel:
    calling `torchvision.ops.nms` still fails, transforms work.
    """
    return _declared_operators() is not None


@functools.cache
def _declared_operators() -> torch.library.Library | None:
    """The library of the declarations, cached because they are removed when it is collected."""
    if hasattr(torch.ops.torchvision, "nms") or _extension_loads():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    return library


def _extension_loads() -> bool:
    """Load torchvision's extension, as its import would; loading it twice is harmless."""
    package = importlib.util.find_spec("torchvision")  # does not import it
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
