"""What a setting means: its sentence, default and range, and its value in every preset with its origin."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.experiment import CONFIGS, AnyConfig, flat, method_name, record_of
from pipeline.config.presets import did_you_mean_key, load_config, preset_names, preset_text
from pipeline.errors import ConfigError

_SECTION = re.compile(r"\[([\w.]+)\]")
_VALUE = re.compile(r"""([\w-]+)\s*=\s*(?:"[^"]*"|\[[^\]]*\]|[^#"\[]*?)\s*(?:#\s*(.*))?""")
_BOUNDS = {
    "minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}  # fmt: skip
_TYPES = {
    "boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "a text", "null": "none",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a method: `default` is a TOML value, `none`, or `required`; `accepted` describes its range."""

    key: str
    meaning: str
    default: str
    accepted: str


@dataclass(frozen=True, slots=True)
class PresetValue:
    """A value of a preset: the preset whose file has it (none for the default), and the comment on its origin."""

    preset: str
    value: str
    source: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A setting as each of the methods has it that have it, and its values in the presets of these methods."""

    settings: Mapping[str, Setting]
    presets: tuple[PresetValue, ...]


@dataclass(frozen=True, slots=True)
class PresetSummary:
    """A preset, its method, its data set, the preset that it extends, and its purpose."""

    preset: str
    method: str
    data: str
    extends: str | None
    purpose: str


def explain(key: str) -> Explanation:
    """Describe a setting.

    Raises:
        ConfigError: No method has it.
    """
    known = {method_name(config): settings_of(config) for config in CONFIGS}
    found = {method: settings[key] for method, settings in known.items() if key in settings}
    if not found:
        every = sorted({one for settings in known.values() for one in settings})
        hint = f"{did_you_mean_key(key, every)}`vireid config explain` lists all settings"
        raise ConfigError(f"there is no setting {key!r}", hint=hint)
    presets = []
    for name in preset_names():
        config = load_config(name)
        if config.method in found:
            value = dict(flat(record_of(config)))[key]
            source, origin = origins(name).get(key, (None, "default"))
            presets.append(PresetValue(name, as_toml(value), source, origin))
    return Explanation(found, tuple(presets))


def settings_below(section: str) -> dict[str, Setting]:
    """The settings of all methods in a section, by their names; all settings for an empty section."""
    found: dict[str, Setting] = {}
    for config in CONFIGS:
        for key, setting in settings_of(config).items():
            if not section or key.startswith(f"{section}."):
                found.setdefault(key, setting)
    return found


def summaries() -> list[PresetSummary]:
    """Every built-in preset, sorted by its name."""
    found = []
    for name in preset_names():
        config, text = load_config(name), preset_text(name)
        purpose = re.split(r"(?<=\.)\s", _head(text), maxsplit=1)[0]
        found.append(PresetSummary(name, config.method, config.data.name, tomllib.loads(text).get("extends"), purpose))
    return found


def settings_of(config: type[AnyConfig]) -> dict[str, Setting]:
    """Every setting of a method by its dotted name, in the order of the sections."""
    model: Any = config
    schema = model.model_json_schema()
    return {one.key: one for one in _settings(schema, schema.get("$defs", {}), None, "")}


def _settings(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], defaults: Mapping[str, Any] | None, prefix: str
) -> Iterator[Setting]:
    for name, entry in schema["properties"].items():
        values = entry if defaults is None else {"default": defaults[name]}
        section = definitions.get(entry.get("$ref", "").rpartition("/")[2])
        if section is not None:
            yield from _settings(section, definitions, values.get("default"), f"{prefix}{name}.")
        else:
            default = as_toml(values["default"]) if "default" in values else "required"
            meaning = " ".join(entry.get("description", "").split())
            yield Setting(f"{prefix}{name}", meaning, default, _accepted(entry))


def _accepted(entry: Mapping[str, Any]) -> str:
    """The range of a value in words.

    >>> _accepted({"type": "integer", "minimum": 1}), _accepted({"enum": ["last", "all"]})
    ('a whole number, at least 1', '"last" or "all"')
    >>> _accepted({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"type": "null"}]})
    'a number, above 0, at most 1, or none'
    """
    if "anyOf" in entry:
        return ", or ".join(dict.fromkeys(_accepted(one) for one in entry["anyOf"]))
    if "const" in entry:
        return as_toml(entry["const"])
    if "enum" in entry:
        *others, last = map(as_toml, entry["enum"])
        return f"{', '.join(others)} or {last}" if others else last
    if "prefixItems" in entry:
        return f"[{', '.join(_accepted(one) for one in entry['prefixItems'])}]"
    if entry["type"] == "array":
        return f"a list of: {_accepted(entry['items'])}"
    kind = "a path" if entry.get("format") == "path" else _TYPES[entry["type"]]
    bounds = [f"{word} {entry[bound]:g}" for bound, word in _BOUNDS.items() if bound in entry]
    return ", ".join([kind, *bounds, *([f"of the form {entry['pattern']}"] if "pattern" in entry else [])])


def as_toml(value: object) -> str:
    """A value as presets and `--set` have it; `none` for None."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def origins(preset: str) -> dict[str, tuple[str, str]]:
    """Each dotted name that a preset or one that it extends sets: the last of them that sets it, and its comment there.

    A value without a comment has the comment at the head of its file.
    """
    chain = [preset]
    while parent := tomllib.loads(preset_text(chain[-1])).get("extends"):
        chain.append(parent)
    found: dict[str, tuple[str, str]] = {}
    for name in reversed(chain):
        found |= {key: (name, comment) for key, comment in comments(preset_text(name)).items()}
    return found


def comments(text: str) -> dict[str, str]:
    """The comment beside each value of a preset's file, or the one at its head, by dotted names."""
    found: dict[str, str] = {}
    section, head = "", _head(text)
    for line in text.splitlines():
        if match := _SECTION.match(line):
            section = f"{match[1]}."
        elif match := _VALUE.fullmatch(line.strip()):
            found[f"{section}{match[1]}"] = match[2] or head
    return {key: comment for key, comment in found.items() if key != "extends"}


def _head(text: str) -> str:
    """The comment at the beginning of a file, as one line."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)
