"""What all ablations share: a run in this process, features of untrained encoders, cells of a table."""

from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from models.encoder import Head
from models.modality import PerModality
from pipeline.config.experiment import AnyConfig
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.searches import samples_of
from pipeline.features import FeatureBank, extract_features
from pipeline.methods import method_of
from pipeline.methods import train as train_plainly
from pipeline.runs.evaluator import IdentityEvaluator, plan_test
from pipeline.runs.open import open_run, run_path
from pipeline.storage.run_folder import RunFolder

HEADLINE = "sysu/all/1-shot/agw"

Banks = PerModality[FeatureBank]


def train(config: AnyConfig) -> None:
    """One run on one thread; a run that was interrupted goes on."""
    torch.set_num_threads(1)
    train_plainly(config)


def rounds_of(config: AnyConfig) -> tuple[list[dict[str, Any]], float]:
    """What was written down after each round of a run, and how many minutes all of them took."""
    with RunFolder.reopen(run_path(config)) as folder:
        rounds, timings = folder.read_metrics(), folder.read_timings()
    return rounds, sum(timing["seconds/total"] for timing in timings) / 60


def retrieval(row: Mapping[str, Any]) -> dict[str, Any]:
    """Rank-1 and mAP of the headline search after a round."""
    return {"r1": row[f"test/{HEADLINE}/r1"], "map": row[f"test/{HEADLINE}/map"]}


def frozen(
    config: AnyConfig, heads: Mapping[str, tuple[Head, ...]], change: Mapping[str, Callable[[Banks], Banks]]
) -> dict[str, dict[str, Any]]:
    """Rank-1 and mAP of features of the untrained encoder.

    Args:
        config: Of a run with test images; its folder gets a checkpoint of nothing.
        heads: Which features each row is measured by.
        change: What is done to the features of some rows before they are measured.
    """
    with open_run(config, method_of(config)) as run:
        encoder = run.new_encoder()
        extract = partial(
            extract_features,
            encoder,
            batch_size=64,
            device=run.device,
            normalisation=config.images.normalisation,
            flip=config.evaluation.flip,
        )
        evaluator = run.evaluator
        assert isinstance(evaluator, IdentityEvaluator)
        assert evaluator.test is not None and evaluator.dataset.test is not None
        images, samples = evaluator.test, samples_of(evaluator.dataset.test)
        plans = plan_test(evaluator.dataset, config, final=False)[:1]
        banks = {some: images.map(partial(extract, heads=some)) for some in set(heads.values())}
        rows = {}
        for name, some in heads.items():
            chosen = change[name](banks[some]) if name in change else banks[some]
            report = evaluate_features(chosen, samples, plans)[0].report
            rows[name] = {"r1": report.mean.r1, "map": report.mean.map}
    return rows


def centred(banks: Banks) -> Banks:
    """Unit rows after removing the mean of the modality."""

    def centre(bank: FeatureBank) -> FeatureBank:
        vectors = bank.vectors - bank.vectors.mean(axis=0)
        return FeatureBank(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), bank.modality)

    return banks.map(centre)


def percent(values: list[float]) -> str:
    """Mean and, of several, standard deviation."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"
