"""Each switch beyond CCLNet changes what a round trains on, and nothing else is needed to use it."""

from functools import cache

import numpy as np
import pytest
import torch

from clustering.joint import split_by_modality
from clustering.labelling import label_images
from models.modality import PerModality
from pipeline.config.cclnet import CclnetConfig
from pipeline.config.experiment import digest_of
from pipeline.config.labelling import JointClusteringConfig, MatchingConfig
from pipeline.config.presets import load_config
from pipeline.errors import ConfigError
from pipeline.methods.cclnet.clusters import Clusters, label_together, match_found, match_jointly
from pipeline.runs.open import run_path
from pipeline.storage.run_folder import RunFolder
from tests.flows.plain_runs import run_plainly

PEOPLE, IMAGES, WIDTH = 6, 8, 16
CPU = torch.device("cpu")


@cache
def vectors() -> PerModality[np.ndarray]:
    """Six people, eight images of each in either modality, with a shift between the modalities."""
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(PEOPLE, WIDTH))

    def draw(shift: np.ndarray, people: int) -> np.ndarray:
        rows = np.repeat(centres[:people], IMAGES, axis=0) + 0.15 * generator.normal(size=(people * IMAGES, WIDTH))
        return ((rows + shift) / np.linalg.norm(rows + shift, axis=1, keepdims=True)).astype(np.float32)

    return PerModality(draw(np.zeros(WIDTH), PEOPLE), draw(0.2 * generator.normal(size=WIDTH), PEOPLE - 2))


def found(settings: MatchingConfig) -> Clusters:
    rows = vectors()
    return match_found(rows, rows.map(lambda some: label_images(some, k1=8, k2=3, eps=0.6)), settings)


@pytest.mark.parametrize("cost", ["prototype", "whitened", "sub_prototypes"])
def test_progressive_matching_gives_every_cluster_a_partner(cost: str) -> None:
    clusters = found(MatchingConfig(method="progressive", cost=cost))  # type: ignore[arg-type]
    assert (clusters.partners.of_visible >= 0).all()
    assert len(clusters.matching.visible) == PEOPLE - 2
    assert np.array_equal(clusters.matching.visible, clusters.matching.infrared)  # people are in one order


@pytest.mark.parametrize("method", ["hungarian", "mutual", "transport"])
def test_other_methods_are_one_to_one(method: str) -> None:
    clusters = found(MatchingConfig(method=method))  # type: ignore[arg-type]
    assert np.array_equal(clusters.partners.agreed().visible, clusters.matching.visible)
    assert clusters.matching.visible.tolist() == clusters.matching.infrared.tolist() == [0, 1, 2, 3]


def test_a_joint_clustering_gives_the_pairs() -> None:
    rows, settings = vectors(), JointClusteringConfig(k1=12, k2=3)
    joint = label_together(rows, settings, CPU)
    parts = split_by_modality(joint.clustering, *rows)
    clusters = match_jointly(rows, joint, parts, MatchingConfig())
    assert clusters.two_modality_share is not None and clusters.two_modality_share > 0.5
    for visible, infrared in zip(clusters.matching.visible, clusters.matching.infrared, strict=True):
        shown = np.flatnonzero(clusters.labels.visible == visible)[0] // IMAGES
        assert np.flatnonzero(clusters.labels.infrared == infrared)[0] // IMAGES == shown
    strict = match_jointly(rows, joint, parts, MatchingConfig(floor=0.999))
    assert len(strict.matching.visible) < len(clusters.matching.visible)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("matching.method=transport",), "matches moving prototypes again"),
        (("matching.cost=sub_prototypes",), "matches moving prototypes again"),
        (("matching.cost=whitened",), "matches moving prototypes again"),
        (("matching.local_scaling=3",), "matches moving prototypes again"),
        (("labelling.space=joint_balanced",), "gives the pairs"),
        (("labelling.space=joint_balanced", "labelling.relabel=density", "swap.mode=off"), "choose one"),
        (("labelling.joint.k1=9",), "multiple of 2"),
        (("labelling.joint.k2=20",), "more than half of k1"),
    ],
)
def test_switches_that_exclude_each_other_are_refused(changes: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config("smoke", changes)


ALWAYS_JOINT = ("labelling.space=joint_balanced", "labelling.min_two_modality_share=0", "swap.mode=off")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("labelling.visible.k1=20", r"labelling\.visible"),
        ("labelling.infrared.eps=0.5", r"labelling\.infrared"),
        ("matching.method=mutual", r"matching\.method"),
        ("matching.cost=sub_prototypes", r"matching\.cost"),
    ],
)
def test_settings_of_each_modality_are_refused_where_every_round_clusters_jointly(change: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'joint_balanced' from round 1 .* leaves {name} to rounds without joint"):
        load_config("cclnet-sysu", (*ALWAYS_JOINT, change))
    load_config("cclnet-sysu", (*ALWAYS_JOINT, "matching.floor=0.2", "labelling.joint.k1=20"))  # these are used
    for used in ("labelling.start=2", "labelling.min_two_modality_share=0.01"):
        load_config("cclnet-sysu", (*ALWAYS_JOINT, change, used))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("loss.min_mutual_share=0.5",), "postpones terms and prompts across modalities, and these settings have none"),
        (("prompts.text_weight=0", "prompts.logits=cosine"), "so that prompts.logits = 'cosine' would change nothing"),
        (("prompts.text_weight=0", "prompts.refresh_agreement=0.9"), "prompts.refresh_agreement would change nothing"),
    ],
)
def test_settings_of_a_switch_that_is_off_are_refused(changes: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config("smoke", changes)


@pytest.mark.parametrize("used", ["prompts.shared=true", "prompts.cross_weight=0.5", "loss.contrast=cross"])
def test_a_least_share_of_mutual_pairs_goes_with_all_that_waits_for_it(used: str) -> None:
    load_config("smoke", ("loss.min_mutual_share=0.5", used))


def test_the_text_weight_alone_switches_prompts_off() -> None:
    # Presets may set how prompts are refreshed: to train without text it is enough to set the weight.
    load_config("smoke", ("prompts.text_weight=0",))


def test_defaults_leave_the_digest_and_a_switch_changes_it() -> None:
    base = load_config("demo")
    for change in ("loss.start=2", "memory.hard=true", "labelling.relabel=density", "prompts.logits=cosine"):
        assert digest_of(load_config("demo", (change,))) != digest_of(base)
    assert digest_of(load_config("demo", ("loss.start=1", "labelling.joint.k1=30"))) == digest_of(base)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        (
            "augmentation.channel=exchange",
            "swap.mode=off",
            "matching.method=mutual",
            "loss.contrast=unified",
            "loss.distillation=1",
            "prompts.logits=cosine",
        ),
        (
            "memory.cameras=proxies",
            "swap.mode=off",
            "matching.method=progressive",
            "loss.contrast=cross",
            "loss.confidence=true",
        ),
        (
            "memory.hard=true",
            "labelling.relabel=density",
            "prompts.shared=true",
            "prompts.cross_weight=0.5",
            "labelling.outliers=assign",
            "labelling.soft=neighbours",
            "labelling.soft_neighbours=6",
        ),
    ],
    ids=lambda changes: changes[0] if isinstance(changes, tuple) else str(changes),
)
def test_a_run_with_switches_ends_and_has_other_losses(finished_run: CclnetConfig, changes: tuple[str, ...]) -> None:
    config = load_config("smoke", (*changes, "name=switched"), finished_run.model_dump(mode="json"))
    assert isinstance(config, CclnetConfig)
    run_plainly(config)
    with RunFolder.reopen(run_path(config)) as folder:
        rows = folder.read_metrics()
        evaluation = folder.read_evaluation()
    assert evaluation is not None
    assert ("cameras used" in evaluation["warnings"]) == (config.memory.cameras == "proxies")
    with RunFolder.reopen(run_path(finished_run)) as folder:
        plain = folder.read_metrics()
    assert len(rows) == len(plain)
    assert all(np.isfinite(row["train/loss/total"]) for row in rows)
    assert rows[-1]["train/loss/total"] != plain[-1]["train/loss/total"]
