"""A network that torch.compile has translated: the same features, the same names of weights."""

import copy
import shutil

import pytest
import torch

from models.clip import LoadedClip
from models.encoder import DualStemEncoder, Head
from models.modality import Modality

ALL = frozenset(Head)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_a_compiled_network_computes_the_same_features_and_keeps_its_names(
    tiny_clip: LoadedClip, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(torch.compiler.reset)
    encoder = DualStemEncoder.from_clip(tiny_clip, image_height=48, image_width=32).double()
    compiled = copy.deepcopy(encoder)
    compiled.compile_network()
    torch._dynamo.utils.counters.clear()
    # In float64: in float32 the order of sums, which is the compiler's, would show.
    images = torch.randn(4, 3, 48, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        for modality in Modality:
            expected, found = (net.encode(images, modality, heads=ALL) for net in (encoder, compiled))
            for head in Head:
                one, other = getattr(found, head.value), getattr(expected, head.value)
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # something was translated
    assert list(compiled.state_dict()) == list(encoder.state_dict())
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in encoder.named_parameters()]
    encoder.load_state_dict(compiled.state_dict())
