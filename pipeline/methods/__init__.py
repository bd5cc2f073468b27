"""One folder a method; what two methods share is beside the folders. Nothing here knows Prefect."""

from pipeline.config.experiment import AnyConfig
from pipeline.methods.cclnet.method import CCLNET
from pipeline.methods.csdn.method import CSDN
from pipeline.methods.eees.method import EEES
from pipeline.methods.spec import MethodSpec

__all__ = ["METHODS", "MethodSpec", "method_of"]

METHODS: tuple[MethodSpec, ...] = (CCLNET, CSDN, EEES)
"""Every method, in the order of `pipeline.config.experiment.CONFIGS`."""


def method_of(config: AnyConfig) -> MethodSpec:
    """The method of resolved settings."""
    return next(method for method in METHODS if isinstance(config, method.config))
