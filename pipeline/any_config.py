"""The experiment of any method, for everything that methods share."""

from pipeline.config import ExperimentConfig
from pipeline.csdn_config import CsdnConfig

AnyConfig = ExperimentConfig | CsdnConfig
"""Which one it is, its field `method` says."""
