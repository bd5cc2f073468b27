"""The data sets: a module or folder each, with a `DatasetSpec`. Searches: `pipeline.evaluation.protocols`."""

from pipeline.data.datasets.llcm import SPEC as LLCM
from pipeline.data.datasets.manifest.adapter import SPEC as MANIFEST
from pipeline.data.datasets.regdb import SPEC as REGDB
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.datasets.sysu import SPEC as SYSU

DATASETS: tuple[DatasetSpec, ...] = (SYSU, REGDB, LLCM, MANIFEST)
