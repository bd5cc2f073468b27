"""The one part of a run that contains true identities: it measures retrieval and diagnoses clusters."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from models.encoder import DualStemEncoder
from models.modality import PerModality
from pipeline.config.experiment import AnyConfig, Round, marks_of, record_of
from pipeline.data.dataset import Dataset
from pipeline.data.images import TestImages
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation import searches
from pipeline.evaluation.diagnostics import label_diagnostics, matching_diagnostics
from pipeline.evaluation.evaluate import SearchResult, evaluate_features
from pipeline.evaluation.feature_files import write_features, write_queries
from pipeline.evaluation.figures import draw_panel, look_up
from pipeline.evaluation.protocols import protocol_of
from pipeline.evaluation.protocols.spec import Plans
from pipeline.evaluation.report import (
    DataRecord,
    EvaluationReport,
    FeatureRecord,
    LastRound,
    ModelRecord,
    Selection,
    suspicions,
)
from pipeline.evaluation.searches import samples_of
from pipeline.evaluation.worst_queries import find_worst
from pipeline.features import FeatureBank, encoder_digest
from pipeline.runs.run import Run
from pipeline.runtime.seeds import numpy_generator

logger = logging.getLogger(__name__)

CHOSEN_ON_TEST = (
    "the round was chosen by its test Rank-1, as public code does: these numbers are optimistic; "
    "compare them with those of the last round"
)

QUERIES = 6
"""Queries of a retrieval panel."""


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """A report with the features of the test images and the results of each search."""

    report: EvaluationReport
    features: PerModality[FeatureBank] | None
    results: tuple[SearchResult, ...]


@dataclass(frozen=True, eq=False)
class IdentityEvaluator:
    """Measures a run by the identities of a data set. `pipeline.runs.run.Evaluator` is its interface for stages.

    `rows` are the training images in their shuffled order, as rows of the decoded store; `validation` images select a
    round.
    """

    config: AnyConfig
    dataset: Dataset
    rows: PerModality[Int64[np.ndarray, " _"]]
    validation: PerModality[TestImages] | None
    test: PerModality[TestImages] | None

    @cached_property
    def headline_search(self) -> str | None:
        """The search shown in the table of rounds; None without test images."""
        return None if self.test is None else plan_test(self.dataset, self.config, final=False)[0][0].search.name

    @property
    def can_evaluate(self) -> bool:
        """Whether the data set has images for evaluation."""
        return self.test is not None or self.validation is not None

    @property
    def training_paths(self) -> PerModality[tuple[str, ...]]:
        """The path of each training image in the shuffled order, relative to the data set's folder."""
        return self.dataset.images.map_with(lambda table, rows: tuple(table.paths[row] for row in rows), self.rows)

    def evaluate(self, run: Run[Any, Any]) -> EvaluationReport:
        """Run every search with the current encoder; plot some queries of the headline search, keep its worst ones."""
        measurement = self.measure(run, run.round, final=run.round == run.rounds[-1], keep_queries=True)
        if measurement.features is not None:
            self._keep_worst_queries(run, measurement.results[0], measurement.features)
            if run.config.execution.figures:
                self._draw_retrieval(run, measurement.features)
        return measurement.report

    def evaluate_result(self, run: Run[Any, Any], last: EvaluationReport) -> EvaluationReport:
        """The report of the round that is the run's result, with the numbers of the last round."""
        return self.measure_result(run, last).report

    def measure(
        self,
        run: Run[Any, Any],
        round_: Round,
        *,
        final: bool,
        encoder: DualStemEncoder | None = None,
        selection: Selection = "last",
        keep_queries: bool = False,
    ) -> Measurement:
        """Encode the held-out images once and run every search of the protocol with `encoder` (default: the run's).

        `final`: the run's result, which is also measured by the draw `official` and with re-ranking.
        """
        config, dataset = self.config, self.dataset
        rerank: Literal["none", "k_reciprocal"] = config.evaluation.rerank if final else "none"
        results: tuple[SearchResult, ...] = ()
        validation: tuple[SearchResult, ...] = ()
        banks = None
        if dataset.test is not None and self.test is not None:
            banks = run.extract_held_out_features(self.test, encoder)
            plans = plan_test(dataset, config, final=final)
            samples = samples_of(dataset.test)
            results = evaluate_features(banks, samples, plans, rerank=rerank, keep_queries=keep_queries)
        if dataset.validation is not None and self.validation is not None:
            held_out = run.extract_held_out_features(self.validation, encoder)
            validation = evaluate_features(held_out, samples_of(dataset.validation), plan_validation(dataset, config))
            banks = banks or held_out
        assert banks is not None, "a run without held-out images is not measured"
        searches = tuple(result.report for result in results)
        report = EvaluationReport(
            data=self._describe_data(),
            model=ModelRecord(
                run=run.record.folder.path.name,
                round=round_.number,
                selection=selection,
                weights=run.clip.origin.kind,
                encoder=encoder_digest(encoder or run.state.encoder),
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
            warnings=(*marks_of(record_of(config)), *(suspicions(searches) if final else ())),
        )
        for warning in report.warnings if final else ():
            logger.warning("%s", warning)
        return Measurement(report, banks if dataset.test is not None else None, results)

    def measure_result(
        self, run: Run[Any, Any], last: EvaluationReport | None = None, *, keep_queries: bool = False
    ) -> Measurement:
        """Measure the round that is the run's result; a selected one is reported with the last round's numbers."""
        selected, selection = run.state.selected, self.config.evaluation.selection
        last_round = run.rounds[run.state.completed - 1]
        if selection == "last" or selected is None:
            return self.measure(run, last_round, final=True, keep_queries=keep_queries)
        last = last or self.measure(run, last_round, final=True).report
        encoder = run.new_encoder()
        encoder.load_state_dict(selected.encoder)
        chosen = self.measure(
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

    def measure_to_files(
        self, run: Run[Any, Any], features_file: Path | None = None, queries_file: Path | None = None
    ) -> EvaluationReport:
        """Measure the run's result again, and write the features of the test images and the results of each query."""
        measurement = self.measure_result(run, keep_queries=queries_file is not None)
        test = self.dataset.test
        if (features_file or queries_file) and (test is None or measurement.features is None):
            raise DataError("the data set names no test images", hint="omit --features and --per-query")
        if features_file is not None and test is not None and measurement.features is not None:
            write_features(features_file, measurement.features, test)
        if queries_file is not None:
            write_queries(queries_file, measurement.results)
        return measurement.report

    def diagnose(
        self, labels: PerModality[Int64[np.ndarray, " _"]], pairs: PerModality[Int64[np.ndarray, " pairs"]]
    ) -> dict[str, float]:
        """Quality of pseudo-labels (in the shuffled order) and cluster pairs; empty if some people are unknown."""
        people = self.dataset.training_people(self.rows)
        if not all(people.map(lambda some: some.known)):
            return {}
        ids = people.map(lambda some: some.ids)
        numbers = {
            f"diagnostics/{modality}/{name}": value
            for modality, of_images in labels.items()
            for name, value in label_diagnostics(of_images, ids[modality]).items()
        }
        of_pairs = matching_diagnostics(pairs, labels, ids)
        return numbers | {f"diagnostics/matching/{name}": value for name, value in of_pairs.items()}

    def _describe_data(self) -> DataRecord:
        dataset = self.dataset
        return DataRecord(
            name=dataset.name,
            kind=dataset.kind,
            split=dataset.split if isinstance(dataset.split, str) else "train",
            trial=dataset.split if isinstance(dataset.split, int) else None,
            partial=dataset.partial,
            overlap=dataset.overlap,
            file_list=dataset.file_list,
            visible=0 if self.test is None else len(self.test.visible),
            infrared=0 if self.test is None else len(self.test.infrared),
        )

    def _keep_worst_queries(
        self, run: Run[Any, Any], headline: SearchResult, features: PerModality[FeatureBank]
    ) -> None:
        assert self.dataset.test is not None
        worst = find_worst(headline.report.name, headline.queries[0], features, samples_of(self.dataset.test))
        run.record.folder.save_queries(run.round.number, worst.to_dict())

    def _draw_retrieval(self, run: Run[Any, Any], features: PerModality[FeatureBank]) -> None:
        assert self.test is not None and self.dataset.test is not None
        trial = plan_test(self.dataset, self.config, final=False)[0][0]
        generator = numpy_generator(self.config.seed, "figures", "queries")
        chosen = np.sort(generator.choice(len(trial.query), size=min(QUERIES, len(trial.query)), replace=False))
        found = look_up(trial, trial.query[chosen], features, samples_of(self.dataset.test))
        run.record.folder.save_figure(run.round.number, "retrieval", partial(draw_panel, found, self.test))


def plan_test(dataset: Dataset, config: AnyConfig, *, final: bool) -> Plans:
    """The trials of every test search, the headline first; see `pipeline.evaluation.searches.plan_test`."""
    return searches.plan_test(protocol_of(config.data.name), dataset, config.evaluation, final=final)


def plan_validation(dataset: Dataset, config: AnyConfig) -> Plans:
    """The trials on validation images; the first one decides `selection = "val"`."""
    return searches.plan_validation(protocol_of(config.data.name), dataset, config.evaluation)


def refuse_unmeasurable(dataset: Dataset, config: AnyConfig) -> None:
    """Refuse, before training, a run that cannot be measured with its settings.

    Raises:
        ConfigError: `evaluation.selection` needs images that the data set does not have, or a search cannot be planned.
        DataError: The images do not allow a search.
    """
    needed = {"val": ("validation", dataset.validation), "test_best": ("test", dataset.test)}
    part, tables = needed.get(config.evaluation.selection, ("", dataset.training))
    if tables is None:
        raise ConfigError(
            f"evaluation.selection = '{config.evaluation.selection}' needs {part} images, and {dataset.root} has none",
            hint="add rows of that split to the manifest, or take the last round: evaluation.selection=last",
        )
    if dataset.test is not None:
        plan_test(dataset, config, final=True)
    if dataset.validation is not None:
        plan_validation(dataset, config)
