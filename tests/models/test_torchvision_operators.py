import pytest
import torch

from models import torchvision_operators
from models.torchvision_operators import define_missing_operators
from tests.fresh_process import run_fresh

FRESH = """
import sys
import models.encoder, models.prompts
assert "open_clip" not in sys.modules and "torchvision" not in sys.modules, "imported before it is needed"
from models.clip import open_clip_module
assert open_clip_module().__name__ == "open_clip"
from torchvision.transforms import v2
import torch
assert v2.functional.hflip(torch.tensor([[[1, 2]]])).tolist() == [[[2, 1]]]
"""


@pytest.mark.slow
def test_open_clip_and_transforms_can_be_imported_in_a_fresh_interpreter() -> None:
    run_fresh(FRESH)


def test_declaring_twice_changes_nothing() -> None:
    first = define_missing_operators()
    assert define_missing_operators() is first
    assert hasattr(torch.ops.torchvision, "nms")


def test_nothing_is_declared_where_torchvision_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoOperators:
        """Stands for `torch.ops` before anything was declared."""

        torchvision = object()

    monkeypatch.setattr(torchvision_operators.torch, "ops", NoOperators)
    monkeypatch.setattr(torchvision_operators, "_extension_loads", lambda: True)
    assert torchvision_operators._declared_operators.__wrapped__() is None


def test_an_installation_without_torchvision_gets_the_declarations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_operators.importlib.util, "find_spec", lambda _: None)
    assert not torchvision_operators._extension_loads()
