"""On a GPU the supervised methods find what the CPU finds, and no step makes the host wait."""

import copy
from dataclasses import replace

import pytest
import torch

from tests.gpu.waiting import CUDA, no_gpu, waiting_refused
from tests.pipeline.methods import test_supervised as people
from tests.pipeline.methods.eees import test_objective as captions

pytestmark = no_gpu


def there(value):
    return copy.deepcopy(value).to(CUDA)


def person_objective():
    """CSDN's, with texts, here and on the GPU."""
    near = people.make_objective()
    return near, near.moved(there)


def caption_objective():
    """That of EEES, with every term, here and on the GPU."""
    near = captions.make_objective()
    far = replace(
        near,
        classifier=there(near.classifier),
        labels=there(near.labels),
        captions=captions.caption_features().map(lambda rows: captions.fixed_captions(there(rows))),
        positions=near.positions.map(there),
        fusion=there(near.fusion),
        fused_neck=there(near.fused_neck),
    )
    return near, far


def losses(source, objective, features, step):
    """Of a step; both sources take these two arguments in an order of their own."""
    return (
        source.terms_of(features, objective, step) if source is people else source.terms_of(objective, features, step)
    )


@pytest.mark.parametrize(("make", "source"), [(person_objective, people), (caption_objective, captions)])
class TestObjectives:
    def test_terms_and_gradients_are_those_of_the_cpu(self, make, source):
        near, far = make()
        here = {head: rows.requires_grad_() for head, rows in source.random_features().items()}
        away = {head: there(rows).detach().requires_grad_() for head, rows in here.items()}
        found = losses(source, far, away, 0)
        for name, value in losses(source, near, here, 0).items():
            torch.testing.assert_close(found[name].cpu(), value, rtol=1e-9, atol=1e-10)
            value.backward(retain_graph=True)
            found[name].backward(retain_graph=True)
        for head, rows in here.items():
            if rows.grad is not None:
                torch.testing.assert_close(away[head].grad.cpu(), rows.grad, rtol=1e-8, atol=1e-9)

    def test_a_step_does_not_wait(self, make, source):
        _, far = make()
        away = {head: there(rows).requires_grad_() for head, rows in source.random_features().items()}
        losses(source, far, away, 0)  # kernels are chosen the first time
        with waiting_refused():
            torch.stack([*losses(source, far, away, 1).values()]).sum().backward()
