"""A variant of CCLNet in one file: another way to match, a further loss, another memory update."""

from dataclasses import replace

import numpy as np
import torch

from models.encoder import Head
from models.losses import prototype_contrast
from models.modality import PerModality
from models.rows import normalise_rows
from models.transfer import upload
from pipeline.methods.cclnet.contrast import unit_necks
from pipeline.methods.cclnet.method import CCLNET
from pipeline.methods.cclnet.schedule import clusters_to_describe, prompts_due
from pipeline.methods.cclnet.stages import begin_stage, cluster, learn_prompts, log_round, train
from pipeline.runs.stages import evaluate, extract, finish
from pipeline.training.objective import Term


def match_greedily(similarity):
    """Pair the most similar clusters, then the most similar of those that are left."""
    left, pairs = similarity.copy(), []
    for _ in range(min(left.shape)):
        row, column = np.unravel_index(left.argmax(), left.shape)
        pairs.append((row, column))
        left[row], left[:, column] = -np.inf, -np.inf
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return rows, columns


def partner_contrast(clusters, device, weight=0.5):
    """Contrast images with the prototypes of the other modality; their partner's is the right one."""
    matching, labels = clusters.matching, clusters.labels

    def partners(own, here, there):
        partner_of = np.full(own.max() + 2, -1)  # the last entry is that of outliers, label -1
        partner_of[here] = there
        return upload(partner_of[own], device)

    targets = PerModality(
        partners(labels.visible, matching.visible, matching.infrared),
        partners(labels.infrared, matching.infrared, matching.visible),
    )
    prototypes = clusters.prototypes.map(lambda rows: torch.from_numpy(rows).to(device))

    def loss(batch):
        features, right = batch.once(unit_necks), batch.values(targets)
        visible = prototype_contrast(features.visible @ prototypes.infrared.T / 0.05, right.visible)
        return visible + prototype_contrast(features.infrared @ prototypes.visible.T / 0.05, right.infrared)

    return Term("partner", weight, frozenset({Head.NECK}), loss)


def add_images(rows, visitors):
    """Add the images of a batch to their prototypes, and scale these to length 1."""
    rows = rows.clone()
    for visitor in visitors:
        rows[: len(visitor)] += visitor
    return normalise_rows(rows)


def run_rounds(run):
    """CCLNet's rounds with the three functions above."""
    for round_ in run.rounds_left():
        if round_.first_of_stage:
            begin_stage(run)
        features = extract(run)
        clusters = cluster(run, features, match_greedily)
        text = run.state.method.text
        if prompts_due(run.config, round_, clusters, text):
            text = learn_prompts(run, clusters_to_describe(run, clusters))
        terms = (partner_contrast(clusters, run.device),)
        losses = train(run, clusters, text, terms, add_images)
        report = evaluate(run) if run.evaluation_due() else None
        log_round(run, features, clusters, text, losses, report)
    return finish(run)


VARIANT = replace(CCLNET, rounds=run_rounds)
