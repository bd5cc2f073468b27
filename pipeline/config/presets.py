"""Presets: TOML files with the values of a method on a data set, each with its origin, and the ways to change them."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipeline.config.experiment import CONFIGS, AnyConfig, method_name
from pipeline.errors import ConfigError

_FOLDER = resources.files("pipeline.config") / "presets"


def preset_names() -> list[str]:
    """The presets that come with the project, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))


def load_config(preset: str, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> AnyConfig:
    """Read a preset, then apply changes in order: `values`, then `overrides`.

    Args:
        preset: A name from `preset_names`, or the path of a TOML file.
        overrides: Texts of the form `section.key=value`; the value is TOML, a bare word is a text.
        values: Nested values from program code; `None` values are left out.

    Raises:
        ConfigError: The preset or a key does not exist, or a value is out of range.
    """
    tree = _read_preset(preset)
    _merge(tree, dict(values or {}))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(
                f"--set {override!r} has no '='", hint="write it as section.key=value, for instance swap.mode=off"
            )
        _set(tree, key.strip(), _parse_value(text.strip(), word=_knows_none(_model_of(tree), key.strip())), override)
    return validate_config(tree)


def load_changed(preset: str, changes: Mapping[str, Any]) -> AnyConfig:
    """Read a preset and change it, like `load_config`, but for changes of which a None is a value and not an absence.

    Args:
        preset: A name from `preset_names`, or the path of a TOML file.
        changes: Nested values, as plain JSON types.

    Raises:
        ConfigError: The preset or a key does not exist, or a value is out of range.
    """
    tree = _read_preset(preset)
    _merge(tree, changes, none_counts=True)
    return validate_config(tree)


def _model_of(tree: Mapping[str, Any]) -> type[AnyConfig]:
    """Which method's settings these are; CCLNet's where no method is named."""
    models: dict[object, type[AnyConfig]] = {method_name(config): config for config in CONFIGS}
    return models.get(tree.get("method"), CONFIGS[0])


def validate_config(tree: Mapping[str, Any]) -> AnyConfig:
    """Turn nested values into a config.

    Raises:
        ConfigError: Naming every wrong key with what would be right.
    """
    try:
        return _model_of(tree).model_validate(dict(tree))
    except ValidationError as error:
        problems = "; ".join(_describe(problem) for problem in error.errors())
        raise ConfigError(
            f"the configuration is not valid: {problems}",
            hint="`vireid config show PRESET` lists every key with its value",
        ) from error


def _read_preset(preset: str) -> dict[str, Any]:
    own_file = preset.endswith(".toml")
    source = Path(preset) if own_file else _FOLDER / f"{preset}.toml"
    if not source.is_file():
        raise ConfigError(
            f"there is no preset {preset!r}",
            hint=f"choose one of {', '.join(preset_names())}, or the path of a .toml file",
        )
    try:
        tree = tomllib.loads(source.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{preset} is not valid TOML: {error}", hint="texts need quotation marks, and every key stands once"
        ) from error
    parent = tree.pop("extends", None)
    if parent is not None:
        base = _read_preset(parent)
        _merge(base, tree)
        tree = base
    if not own_file:
        tree["name"] = preset
    return tree


def _merge(tree: dict[str, Any], changes: Mapping[str, Any], *, none_counts: bool = False) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping):
            branch = tree.setdefault(key, {})
            _merge(branch, value, none_counts=none_counts)
        elif value is not None or none_counts:
            tree[key] = value


def _set(tree: dict[str, Any], dotted: str, value: object, override: str) -> None:
    *sections, last = dotted.split(".")
    branch = tree
    for section in sections:
        branch = branch.setdefault(section, {})
        if not isinstance(branch, dict):
            raise ConfigError(
                f"--set {override!r}: {section!r} is a value, not a section",
                hint="`vireid config show PRESET` lists every key",
            )
    branch[last] = value


def _parse_value(text: str, *, word: bool) -> object:
    """A TOML value; a bare word or path is taken as a text, `none` as no value unless it is a `word` of the setting."""
    if text == "none" and not word:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _knows_none(model: type[BaseModel], dotted: str) -> bool:
    """Whether the word `none` is one of a setting's choices."""
    name, _, rest = dotted.partition(".")
    field = model.model_fields.get(name)
    if field is None:
        return False
    if rest:
        section = field.annotation
        return isinstance(section, type) and issubclass(section, BaseModel) and _knows_none(section, rest)
    choices = [field.annotation, *get_args(field.annotation)]
    return "none" in {value for choice in choices for value in get_args(choice)}


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "configuration"
    if problem["type"] == "extra_forbidden":
        return f"{key} does not exist"
    return f"{key}: {problem['msg']}"
