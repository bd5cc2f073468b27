"""Sections of the configuration that supervised methods share: network, batches, optimiser."""

from typing import Literal

from pydantic import BaseModel, Field

from pipeline.config.shared import STRICT


class PersonNetworkConfig(BaseModel):
    """What is made of CLIP's image tower."""

    model_config = STRICT

    stem_activation: Literal["clip", "last"] = "clip"
    """Whether a stem keeps CLIP's three ReLUs, or the last one only, as the released code does by a slip."""


class PersonStagesConfig(BaseModel):
    """How long the image stage is; texts come before it."""

    model_config = STRICT

    image_rounds: int = Field(120, ge=1, le=100_000)
    """Epochs of training on images."""


class PersonBatchesConfig(BaseModel):
    """The composition of a training batch: the same people in both modalities."""

    model_config = STRICT

    people_per_batch: int = Field(8, ge=2)
    """How many people a batch shows."""
    images_per_person: int = Field(4, ge=2)
    """How many images of each, of either modality; visible ones are shown in two views."""
    replacement: Literal["always", "when_short"] = "always"
    """Whether images of a person are drawn with repetition always, or only where there are too few."""
    batch_norm: Literal["synchronised", "local"] = "synchronised"
    """Batch-norm statistics of all ranks together, or of each rank: then the number of ranks changes the result."""


class PersonAugmentationConfig(BaseModel):
    """What is done at random to a training image."""

    model_config = STRICT

    recipe: Literal["channels", "plain"] = "channels"
    """Whether channels take each other's place in second views and infrared images, or all images keep them."""
    padding: int = Field(10, ge=0, le=64)
    """Pixels of black added on every side before the random crop."""


class PersonOptimisationConfig(BaseModel):
    """Optimiser and schedule of the image stage."""

    model_config = STRICT

    learning_rate: float = Field(3e-4, gt=0)
    """Reached after the warm-up."""
    weight_decay: float = Field(5e-4, ge=0)
    """L2 weight."""
    head_factor: float = Field(2.0, gt=0)
    """The learning rate of pooling, necks and classifiers relative to the rest."""
    warmup_rounds: int = Field(10, ge=0)
    """Rounds during which the learning rate climbs."""
    warmup_factor: float = Field(0.01, gt=0, le=1)
    """The share of the learning rate that the climb starts from."""
    milestones: tuple[int, ...] = (40, 70)
    """Rounds, counted from 0, from which on the learning rate is multiplied by `gamma`."""
    gamma: float = Field(0.1, gt=0, le=1)
    """Factor at a milestone."""
