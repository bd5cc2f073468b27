"""Which rounds a run has, by its configuration alone: known without torch, and before anything is opened."""

from pipeline.any_config import AnyConfig
from pipeline.config import ExperimentConfig
from pipeline.csdn_config import CsdnConfig
from pipeline.eees_config import EeesConfig
from pipeline.training.rounds import Round, plan_rounds


def planned_rounds(config: AnyConfig) -> tuple[Round, ...]:
    """All rounds of a run in order, the finished ones among them."""
    match config:
        case CsdnConfig():
            prompts, fusion = int(config.with_texts), int(config.with_fusion)
            return plan_rounds(("prompts", prompts), ("fusion", fusion), ("image", config.stages.image_rounds))
        case EeesConfig():
            return plan_rounds(("image", config.stages.image_rounds))
        case ExperimentConfig():
            return plan_rounds(("prepare", config.stages.prepare_rounds), ("clip", config.stages.clip_rounds))
