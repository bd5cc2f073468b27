"""`prefect.yaml`, made from the methods and their presets: `python -m flows.server.prefect_file`."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.config.datasets import OPTIONS
from pipeline.config.experiment import CONFIGS, AnyConfig, method_name
from pipeline.config.presets import BUNDLES, preset_names

_PEOPLE = "synthetic people"
FILE = Path(__file__).resolve().parents[2] / "prefect.yaml"

_HEAD = """\
# Deployments for a Prefect server: `make deploy`. Written by `python -m flows.server.prefect_file`; do not edit.
# docs/operations.md explains how to run them, and what to change for other work pools. Parameters are read from the
# presets when they are deployed, so this file repeats no values.

name: vireid
prefect-version: 3.8.8

build: null
push: null
pull:
  - flows.server.deploy.enter_checkout: {}

definitions:
  pool: &pool
    name: "{{ $VIREID_POOL }}"
    job_variables:
      env:
        # The user interface shows the log lines of these packages with the run.
        PREFECT_LOGGING_EXTRA_LOGGERS: flows,pipeline,models,clustering
        PREFECT_SERVER_ANALYTICS_ENABLED: "false"
        DO_NOT_TRACK: "1"
        MLFLOW_DISABLE_TELEMETRY: "true"

  # Inactive until activated in the user interface; a finished run costs seconds.
  nightly: &nightly
    - cron: "0 1 * * *"
      timezone: UTC
      active: false

deployments:
"""

_ENTRY = """\
  - name: {data}
    description: "{title}, {summary}, on {images}."
    entrypoint: flows.deployments.{flow}
    tags: [{flow}, {data}]
    build:
      - flows.server.deploy.preset_values:
          id: values
          preset: {preset}
    parameters:
      preset: {preset}
      config: "{{{{ values.of_preset }}}}"
    schedules: *nightly
    work_pool: *pool

"""

_TAIL = """\
  - name: run
    description: "Evaluates a run again."
    entrypoint: flows.deployments.evaluate
    tags: [evaluate]
    work_pool: *pool

  - name: images
    description: "Encodes images with a run, in shards."
    entrypoint: flows.deployments.embed
    tags: [embed, images]
    work_pool: *pool
"""


def prefect_file() -> str:
    """The content of `prefect.yaml`."""
    entries = [
        _ENTRY.format(flow=config.flow, title=title, summary=config.summary, data=name, images=images, preset=preset)
        for config in CONFIGS
        for name, title, images, preset in _deployed(config)
    ]
    return _HEAD + "".join(entries) + _TAIL


def _deployed(config: type[AnyConfig]) -> Iterator[tuple[str, str, str, str]]:
    """Name, title, images and preset of each deployment of a method: its own presets, then those of its bundles."""
    yield "demo", config.title, _PEOPLE, config.demo_preset
    for data, images, preset in _of_data_sets(method_name(config)):
        yield data, config.title, images, preset
    for bundle in BUNDLES.get(method_name(config), ()):
        title = f"{config.title} with the switches of bundle {bundle}"
        yield f"{bundle}-demo", title, _PEOPLE, f"{bundle}-demo"
        for _, images, preset in _of_data_sets(bundle):
            yield preset, title, images, preset


def _of_data_sets(prefix: str) -> Iterator[tuple[str, str, str]]:
    for options in OPTIONS:
        preset = f"{prefix}-{options.name}"
        if preset in preset_names():
            one_split = "one split of " if options.model_per_split else ""
            note = ", data.split" if options.model_per_split else ""
            yield options.name, f"{one_split}{options.title}{note}", preset


if __name__ == "__main__":
    FILE.write_text(prefect_file(), encoding="utf-8")
