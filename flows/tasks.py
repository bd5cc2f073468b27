"""Every stage as a Prefect task: named after its round, never cached, nothing persisted; GPU stages tagged `gpu`."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from flows.artifacts import show_rounds
from pipeline.methods.cclnet import stages
from pipeline.methods.csdn import stages as person_stages
from pipeline.methods.eees import stages as caption_stages
from pipeline.runs.run import Run

P = ParamSpec("P")
R = TypeVar("R")


def _stage(function: Callable[P, R], run_name: str, tags: tuple[str, ...] = ()) -> Task[P, R]:
    # Inputs are gigabytes of features, outputs are tensors: hashing or storing either would cost more than the stage.
    return task(
        name=run_name.partition("-{")[0], task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False, tags=tags
    )(function)


def _shown(function: Callable[..., None]) -> Callable[..., None]:
    """A stage that ends a round, after which the table of rounds is shown anew."""

    @wraps(function)
    def logged(run: Run[Any, Any], *stage: Any) -> None:
        function(run, *stage)
        show_rounds(run)

    return logged


extract = _stage(stages.extract, "extract-{round_.name}", tags=("gpu",))
pseudo_label = _stage(stages.pseudo_label, "pseudo-label-{round_.name}")
match = _stage(stages.match, "match-{round_.name}")
learn_prompts = _stage(stages.learn_prompts, "learn-prompts-{round_.name}", tags=("gpu",))
train = _stage(stages.train, "train-{round_.name}", tags=("gpu",))
evaluate = _stage(stages.evaluate, "evaluate-{round_.name}", tags=("gpu",))
measure_again = _stage(stages.measure_again, "measure-again-{run.record.folder.path.name}", tags=("gpu",))
finish = _stage(stages.finish, "finish-{run.record.folder.path.name}", tags=("gpu",))
log_round = _stage(_shown(stages.log_round), "log-{round_.name}")
learn_person_texts = _stage(person_stages.learn_person_texts, "learn-prompts-{round_.name}", tags=("gpu",))
fuse_texts = _stage(person_stages.fuse_texts, "fuse-texts-{round_.name}", tags=("gpu",))
train_on_people = _stage(person_stages.train_on_people, "train-{round_.name}", tags=("gpu",))
encode_captions = _stage(caption_stages.encode_captions, "encode-captions", tags=("gpu",))
train_with_captions = _stage(caption_stages.train_with_captions, "train-{round_.name}", tags=("gpu",))
draw = _stage(stages.draw, "draw-{round_.name}")
log_image_round = _stage(_shown(person_stages.log_image_round), "log-{round_.name}")
