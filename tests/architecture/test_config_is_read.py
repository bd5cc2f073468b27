"""Every setting has a function that takes it, under the same name, and a place that reads it."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from clustering.labelling import label_images
from clustering.matching import match_clusters
from models.clip import load_clip
from models.fusion import build_fusion, build_view_fusion
from models.memory import memory_update
from models.person_heads import prepare_for_people
from models.swap import CrossModalSwap
from pipeline.config import cclnet as method_config
from pipeline.config import csdn as csdn_config
from pipeline.config import eees as eees_config
from pipeline.config import labelling as labelling_config
from pipeline.config import shared as config
from pipeline.data.captions.store import load_captions, truncation_report
from pipeline.data.dataset import read_dataset, reading_of
from pipeline.data.samplers.sampling import cross_modal_batches, paired_identity_batches
from pipeline.data.store import open_store
from pipeline.data.transforms.augmentation import augment
from pipeline.data.transforms.channel_augmentation import channel_views
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.protocols.spec import GalleryDraws, GalleryRules
from pipeline.features import extract_features
from pipeline.methods.cclnet.contrast import HardPrototypes
from pipeline.methods.cclnet.objective import TextLoss, cluster_objective
from pipeline.methods.cclnet.prompts import learn_prompts
from pipeline.methods.csdn.prompts import learn_fusion, learn_person_prompts
from pipeline.methods.supervised import person_terms, text_terms
from pipeline.training.optimiser import (
    build_image_optimiser,
    build_person_optimiser,
    image_learning_rate,
    person_learning_rate,
)

ROOT = Path(__file__).resolve().parents[2]

# Section: the functions it feeds, and the fields that decide when or whether they are called.
FEEDS: dict[type[BaseModel], tuple[list[Callable[..., Any]], set[str]]] = {
    config.DataConfig: ([read_dataset, reading_of, open_store], set()),
    config.GalleryRulesConfig: ([GalleryRules.__init__], set()),
    config.ImagesConfig: ([open_store, extract_features], set()),
    config.ModelConfig: ([load_clip], set()),
    config.EvaluationConfig: (
        [evaluate_features, extract_features, GalleryDraws.__init__],
        {"every", "searches", "rules", "selection"},
    ),
    labelling_config.ClusteringConfig: ([label_images], set()),
    labelling_config.MatchingConfig: ([match_clusters], {"cost", "local_scaling"}),
    method_config.MemoryConfig: (
        [cluster_objective, memory_update, HardPrototypes.__init__],
        {"hard_margin", "camera_weight", "camera_negatives"},
    ),
    method_config.SwapConfig: ([CrossModalSwap.__init__], {"start"}),
    method_config.BatchesConfig: ([cross_modal_batches], {"batch_norm"}),
    method_config.AugmentationConfig: ([augment], {"channel"}),
    method_config.OptimisationConfig: ([image_learning_rate, build_image_optimiser], set()),
    csdn_config.PersonPromptsConfig: ([learn_person_prompts], set()),
    config.PersonNetworkConfig: ([prepare_for_people], set()),
    csdn_config.FusionConfig: ([build_fusion, learn_fusion], {"batch_statistics"}),
    csdn_config.PersonLossConfig: ([person_terms, text_terms], set()),
    config.PersonBatchesConfig: ([paired_identity_batches], {"batch_norm"}),
    config.PersonAugmentationConfig: ([channel_views], set()),
    config.PersonOptimisationConfig: ([person_learning_rate, build_person_optimiser], set()),
    eees_config.CaptionsConfig: ([load_captions, truncation_report], set()),
    eees_config.CaptionEncoderConfig: ([build_person_optimiser], {"tower"}),
    eees_config.ViewFusionConfig: ([build_view_fusion], set()),
    eees_config.PersonTermsConfig: ([person_terms], set()),
    method_config.PromptsConfig: (
        [learn_prompts, TextLoss.__init__],
        {"text_weight", "logits", "refresh_every", "refresh_agreement", "refresh_epochs", "init", "feature_source"},
    ),
}


@pytest.mark.parametrize("section", FEEDS, ids=lambda section: section.__name__)
def test_a_section_has_the_parameter_names_of_what_it_feeds(section: type[BaseModel]) -> None:
    functions, scheduling = FEEDS[section]
    parameters = {name for function in functions for name in inspect.signature(function).parameters}
    assert set(section.model_fields) - parameters == scheduling


def test_every_setting_is_read_somewhere() -> None:
    sources = [path for folder in ("pipeline", "flows") for path in (ROOT / folder).rglob("*.py")]
    read = {
        node.attr
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    sections = [*FEEDS, config.ExecutionConfig, method_config.StagesConfig, labelling_config.LabellingConfig]
    sections += [config.PersonStagesConfig, eees_config.CaptionTermsConfig]
    unread = {f"{section.__name__}.{name}" for section in sections for name in section.model_fields if name not in read}
    assert not unread


def test_every_setting_has_a_sentence() -> None:
    sections = [
        method_config.CclnetConfig,
        *FEEDS,
        config.ExecutionConfig,
        method_config.StagesConfig,
        labelling_config.LabellingConfig,
        csdn_config.CsdnConfig,
        eees_config.EeesConfig,
        eees_config.CaptionTermsConfig,
        config.PersonStagesConfig,
    ]
    for section in sections:
        for name, field in section.model_fields.items():
            described = field.description
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                described = described or field.annotation.__doc__  # a section's sentence is its docstring
            assert described, f"{section.__name__}.{name}"
