"""The data sets: a folder each, with a `DatasetSpec` in its `adapter`. Searches: `pipeline.evaluation.protocols`."""

from pipeline.data.datasets.llcm.adapter import SPEC as LLCM
from pipeline.data.datasets.manifest.adapter import SPEC as MANIFEST
from pipeline.data.datasets.regdb.adapter import SPEC as REGDB
from pipeline.data.datasets.spec import DatasetSpec
from pipeline.data.datasets.sysu.adapter import SPEC as SYSU

DATASETS: tuple[DatasetSpec, ...] = (SYSU, REGDB, LLCM, MANIFEST)
