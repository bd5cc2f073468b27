"""CCLNet on one page: extract, cluster, match, train one epoch against memories that swap prototypes, rank.

    python examples/cclnet_in_100_lines.py [--data FOLDER] [--rounds 3]

FOLDER has the layout of SYSU-MM01; the default is a small synthetic data set. Stage `prepare` only: no text prototypes.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import typer

from clustering.labelling import label_images
from clustering.matching import match_clusters
from clustering.prototypes import cluster_prototypes
from models.clip import load_clip
from models.encoder import DualStemEncoder, Head
from models.memory import PrototypeMemory, memory_update
from models.modality import PerModality
from models.swap import CrossModalSwap
from pipeline.data.dataset import held_out_images, read_dataset, training_images
from pipeline.data.pixel_supply import StreamedPixels
from pipeline.data.samplers.sampling import cross_modal_batches
from pipeline.data.store import open_store
from pipeline.data.synthetic.writer import generate_dataset
from pipeline.data.transforms.augmentation import training_views
from pipeline.evaluation.evaluate import evaluate_features
from pipeline.evaluation.searches import plan_search, samples_of
from pipeline.features import extract_features
from pipeline.methods.cclnet.objective import cluster_objective
from pipeline.runtime.seeds import numpy_generator, torch_generator
from pipeline.training.loop import Compute, EpochSteps, run_epoch
from pipeline.training.optimiser import build_image_optimiser

HEIGHT, WIDTH, SEED = 96, 48, 1
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def extract(encoder, images):
    """One feature of length 1 an image, in each modality."""
    options = {"heads": (Head.NECK,), "batch_size": 64, "device": DEVICE, "normalisation": "imagenet"}
    return images.map(lambda some: extract_features(encoder, some, **options))


def rank(encoder, dataset, images, when):
    """Print how well infrared test images find visible ones; the only function that knows people."""
    samples = samples_of(dataset.test)
    (result,) = evaluate_features(extract(encoder, images), samples, plan_search("sysu/all", samples))
    print(f"{when}: Rank-1 {result.report.mean.r1:.1%}, mAP {result.report.mean.map:.1%}")


def train_round(encoder, optimiser, images, number):
    """Cluster the training images, then train one epoch on the clusters."""
    vectors = extract(encoder, images).map(lambda bank: bank.vectors)
    labels = vectors.map(lambda rows: label_images(rows, k1=10, k2=3, min_samples=3).clustering.labels)
    prototypes = vectors.map_with(cluster_prototypes, labels)
    matching = match_clusters(*prototypes, floor=0.0)
    objective = cluster_objective(
        labels,
        prototypes.map(lambda rows: PrototypeMemory(torch.from_numpy(rows).to(DEVICE))),
        temperature=0.05,
        update=memory_update("momentum", 0.1),
        swap=CrossModalSwap(mode="exchange", pairs=PerModality(matching.visible, matching.infrared)),
    )
    draws, changes = numpy_generator(SEED, "batches", number), torch_generator(SEED, "augment", number)
    batches = cross_modal_batches(labels, clusters_per_batch=4, images_per_cluster=8, generator=draws)
    steps = EpochSteps(
        pixels=images.map(lambda some: StreamedPixels(some, DEVICE)),
        positions=batches.positions,
        views=training_views(recipe="cclnet_sysu", padding=4, normalisation="imagenet", generator=changes),
        groups=batches.clusters_per_batch,
        setting="images_per_cluster",
    )
    losses = run_epoch(encoder, optimiser, objective, steps, Compute(DEVICE))
    clusters, pairs = " + ".join(str(len(rows)) for rows in prototypes), len(matching.visible)
    print(f"round {number}: {clusters} clusters, {pairs} pairs, loss {losses['total']:.2f}")


def main(data: Path | None = None, rounds: int = 3) -> None:
    """Train some rounds without identities; rank before and after."""
    with TemporaryDirectory() as scratch:
        if data is None:
            data = generate_dataset(Path(scratch) / "smoke", size="smoke", difficulty="easy").folder
        dataset = read_dataset("sysu", data)
        store = open_store(dataset.images, height=HEIGHT, width=WIDTH, cache_folder=Path(scratch) / "images")
        images, test = training_images(dataset, store, SEED), held_out_images(dataset, dataset.test, store)
        clip = load_clip("RN50-quickgelu", "demo")
        encoder = DualStemEncoder.from_clip(clip, image_height=HEIGHT, image_width=WIDTH).to(DEVICE)
        roles = frozenset({"stem", "trunk", "neck"})
        optimiser = build_image_optimiser(encoder, roles=roles, learning_rate=3e-4, weight_decay=5e-4, bias_factor=2.0)
        rank(encoder, dataset, test, "before")
        for number in range(1, rounds + 1):
            train_round(encoder, optimiser, images, number)
        rank(encoder, dataset, test, "after")


if __name__ == "__main__":
    typer.run(main)
