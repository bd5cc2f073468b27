"""`docs/settings.md`, made from the settings and the presets: `python -m pipeline.config.settings_page`."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from pipeline.config.experiment import CONFIGS, method_name
from pipeline.config.explain import Setting, comments, settings_of
from pipeline.config.presets import load_config, preset_names, preset_text

FILE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"

_HEAD = """\
# Settings

Written by `python -m pipeline.config.settings_page`; do not edit. A preset is a TOML file of these settings
(`vireid config list`); `--set section.key=value` changes one, and `vireid config explain labelling.visible.eps` shows
its value in every preset with the origin of that value. *Set by* names the presets whose own files set it; others take
the value of the preset that they extend, or the default.
"""


def settings_page() -> str:
    """The content of `docs/settings.md`."""
    of_methods = {config: settings_of(config) for config in CONFIGS}
    first, *others = of_methods.values()
    shared = {key: one for key, one in first.items() if all(other.get(key) == one for other in others)}
    setters = _setters()
    parts = [_HEAD, *_chapter("Every method", shared, setters)]
    for config, settings in of_methods.items():
        own = {key: one for key, one in settings.items() if key not in shared}
        parts += _chapter(f'{config.title} (`method = "{method_name(config)}"`)', own, setters, method_name(config))
    return "\n".join(parts)


def _setters() -> dict[str, list[tuple[str, str]]]:
    """For each dotted name the presets whose own files set it, with their methods."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in preset_names():
        method = load_config(name).method
        for key in comments(preset_text(name)):
            found.setdefault(key, []).append((name, method))
    return found


def _chapter(
    title: str,
    settings: Mapping[str, Setting],
    setters: Mapping[str, list[tuple[str, str]]],
    method: str | None = None,
) -> Iterator[str]:
    yield f"## {title}\n"
    for section, group in groupby(settings, key=lambda key: key.rpartition(".")[0]):
        if section:
            yield f"### `{section}`\n"
        yield "| setting | default | accepted | meaning | set by |\n|---|---|---|---|---|"
        for key in group:
            one = settings[key]
            names = ", ".join(name for name, of in setters.get(key, ()) if method in (None, of))
            cells = (f"`{key.rpartition('.')[2]}`", f"`{one.default}`", one.accepted, one.meaning, names)
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""


if __name__ == "__main__":
    FILE.write_text(settings_page(), encoding="utf-8")
