"""What MLflow shows above the numbers of a run: a description, from the files of the run's folder alone."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.datasets import options_of
from pipeline.config.presets import changes_from_preset
from pipeline.errors import VireidError
from pipeline.runtime import atomic_files
from pipeline.storage.layout import ENVIRONMENT
from pipeline.storage.run_reader import RecordedRun, read_run
from pipeline.tracking.replay import headline_numbers

_MOST_SETTINGS = 20


def describe(path: Path) -> str | None:
    """Method, data, settings, result and further pages of a run, as Markdown; None if its files cannot be read."""
    try:
        run, made_with = read_run(path), atomic_files.read_json(path / ENVIRONMENT) or {}
    except VireidError:
        return None
    return "\n".join(f"- **{name}**: {text}" for name, text in _lines(run, made_with) if text)


def _lines(run: RecordedRun, made_with: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "method", f"{run.config.title}, {run.config.summary}"
    yield "data set", _data(run, made_with)
    yield "result", _result(run)
    yield "settings", _settings(run)
    weights, commit = made_with.get("weights"), made_with.get("commit")
    if isinstance(weights, dict):
        yield "initial weights", f"{weights.get('model')} ({weights.get('kind')})"
    if commit:
        yield "code", f"commit `{commit[:12]}`" + (", with changes" if made_with.get("modified") else "")
    folder = f"{run.path.resolve().parent.name}/{run.name}"
    yield "pairs, clusters and failures", f"`vireid look {shlex.quote(folder)}` in a terminal writes a page of them"
    if made_with.get("flow_run"):
        yield "stages", f"[the flow run in Prefect]({made_with['flow_run']})"


def _data(run: RecordedRun, made_with: dict[str, Any]) -> str:
    data = run.config.data
    options = options_of(data.name)
    text = options.title or data.name
    text = f"**synthetic** people in the layout of {text}, not photographs" if run.synthetic else text
    text += "" if data.split in (None, options.default_split) else f", split {data.split}"
    images = (made_with.get("data_set") or {}).get("images") or {}
    parts = [f"{part} {one['visible']:,} visible, {one['infrared']:,} infrared images" for part, one in images.items()]
    return "; ".join([text, *parts])


def _result(run: RecordedRun) -> str:
    done = f"{len(run.rounds)} of {run.planned} rounds"
    if not run.scores:
        return f"not measured; {done}"
    last = run.scores[-1]
    numbers = headline_numbers(run.rounds[last.round], run.headline)
    shown = f"Rank-1 {numbers['rank1']:.2f} %, mAP {numbers['mAP']:.2f} % after round {last.round}"
    kind = ", **synthetic**" if run.synthetic else ""
    return f"{shown} (`{run.headline}`{kind}); {done}"


def _settings(run: RecordedRun) -> str:
    changed = changes_from_preset(run.config)
    if changed is None:
        return f"of {run.config.name}, which is no built-in preset: see the parameters"
    shown = [f"`{name} = {json.dumps(value, ensure_ascii=False)}`" for name, value in changed.items()]
    more = [f"and {len(shown) - _MOST_SETTINGS} more"] if len(shown) > _MOST_SETTINGS else []
    others = ", ".join(shown[:_MOST_SETTINGS] + more)
    return f"preset `{run.config.name}`, seed {run.config.seed}" + (f", but {others}" if others else "")
