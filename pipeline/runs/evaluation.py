"""Measuring what a run retrieves: features once, then every search; and which round is its result."""

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.encoder import DualStemEncoder
from models.modality import PerModality
from pipeline.config.rounds import Round
from pipeline.data.images import TestImages
from pipeline.evaluation.evaluate import SearchResult, evaluate_features
from pipeline.evaluation.protocol import sightings_of
from pipeline.evaluation.report import (
    DataRecord,
    EvaluationReport,
    FeatureRecord,
    LastRound,
    ModelRecord,
    Selection,
)
from pipeline.evaluation.search_report import suspicions
from pipeline.features import FeatureBank
from pipeline.runs.run import Run
from pipeline.runs.search_plan import plan_test, plan_validation
from pipeline.training.state import SelectedRound

logger = logging.getLogger(__name__)

CHOSEN_ON_TEST = (
    "the round was chosen by its test Rank-1, as public code does: these numbers are optimistic; "
    "those of the last round stand beside them"
)


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """A report, and what it was made from: the features of the test images, and each search with its queries."""

    report: EvaluationReport
    features: PerModality[FeatureBank] | None
    results: tuple[SearchResult, ...]


def measure(
    run: Run[Any, Any],
    round_: Round,
    *,
    final: bool,
    encoder: DualStemEncoder | None = None,
    selection: Selection = "last",
    keep_queries: bool = False,
) -> Measurement:
    """Encode the held-out images once and run every search of the protocol.

    Args:
        run: With test or validation images.
        round_: The round that the encoder has finished.
        final: Whether this is the run's result, which is also measured by the draw `official` and with re-ranking.
        encoder: The encoder; the run's present one when None.
        selection: How the round was chosen.
        keep_queries: Also keep what each query found.
    """
    config, dataset = run.config, run.dataset
    rerank: Literal["none", "k_reciprocal"] = config.evaluation.rerank if final else "none"
    results: tuple[SearchResult, ...] = ()
    validation: tuple[SearchResult, ...] = ()
    banks = None
    if dataset.test is not None and run.images.test is not None:
        banks = run.extract_held_out_features(run.images.test, encoder)
        plans = plan_test(dataset, config, final=final)
        results = evaluate_features(banks, sightings_of(dataset.test), plans, rerank=rerank, keep_queries=keep_queries)
    if dataset.validation is not None and run.images.validation is not None:
        held_out = run.extract_held_out_features(run.images.validation, encoder)
        validation = evaluate_features(held_out, sightings_of(dataset.validation), plan_validation(dataset, config))
        banks = banks or held_out
    assert banks is not None, "a run without held-out images is not measured"
    searches = tuple(result.report for result in results)
    report = EvaluationReport(
        data=_describe_data(run, run.images.test),
        model=ModelRecord(
            run=run.record.folder.path.name,
            round=round_.number,
            selection=selection,
            weights=run.clip.origin.kind,
            encoder=banks.visible.encoder_digest,
            seed=config.seed,
        ),
        features=FeatureRecord(
            name="+".join(config.evaluation.heads),
            dim=banks.visible.vectors.shape[1],
            flip=config.evaluation.flip,
            image_height=config.images.height,
            image_width=config.images.width,
        ),
        searches=searches,
        validation=tuple(result.report for result in validation),
        warnings=suspicions(searches) if final else (),
    )
    for warning in report.warnings:
        logger.warning("%s", warning)
    return Measurement(report, banks if dataset.test is not None else None, results)


def remember_if_best(run: Run[Any, Any], round_: Round, report: EvaluationReport) -> None:
    """Keep the encoder of the best round so far, where a score chooses the result; an equal later round is not better.

    Raises:
        AssertionError: There is nothing to choose by, which opening the run has refused.
    """
    selection = run.config.evaluation.selection
    if selection == "last":
        return
    score = report.validation[0].mean.map if selection == "val" else report.searches[0].mean.r1
    if run.state.selected is None or score > run.state.selected.score:
        weights = {name: tensor.detach().cpu().clone() for name, tensor in run.state.encoder.state_dict().items()}
        run.state.selected = SelectedRound(round_.number, score, weights)


def measure_result(
    run: Run[Any, Any], last: EvaluationReport | None = None, *, keep_queries: bool = False
) -> Measurement:
    """Measure the round that is the run's result; where a score chose it, the last round's numbers stand beside it.

    Args:
        run: With at least one finished round.
        last: What the last round retrieves, where that is known already.
        keep_queries: Also keep what each query found.
    """
    selected = run.state.selected
    if run.config.evaluation.selection == "last" or selected is None:
        return measure(run, run.last_round(), final=True, keep_queries=keep_queries)
    last = last or measure(run, run.last_round(), final=True).report
    encoder = run.new_encoder()
    encoder.load_state_dict(selected.encoder)
    selection = run.config.evaluation.selection
    chosen = measure(
        run,
        run.rounds[selected.round - 1],
        final=True,
        encoder=encoder,
        selection=selection,
        keep_queries=keep_queries,
    )
    warnings = chosen.report.warnings
    if selection == "test_best":
        logger.warning("%s", CHOSEN_ON_TEST)
        warnings = (CHOSEN_ON_TEST, *warnings)
    report = replace(chosen.report, last=LastRound(last.model.round, last.searches), warnings=warnings)
    return replace(chosen, report=report)


def _describe_data(run: Run[Any, Any], images: PerModality[TestImages] | None) -> DataRecord:
    dataset = run.dataset
    return DataRecord(
        name=dataset.name,
        kind=dataset.kind,
        split=run.config.data.split if run.config.data.name == "sysu" else "train",
        trial=dataset.trial,
        partial=dataset.partial,
        overlap=dataset.overlap,
        file_list=dataset.file_list,
        visible=0 if images is None else len(images.visible),
        infrared=0 if images is None else len(images.infrared),
    )
