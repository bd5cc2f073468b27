"""Presets: TOML files with the values of a method on a data set, each with its origin; overrides; validation."""

import difflib
import logging
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipeline.config.datasets import MANIFEST, SYSU, is_table, site_name
from pipeline.config.experiment import CONFIGS, AnyConfig, changed_settings, method_name, record_of
from pipeline.errors import ConfigError
from pipeline.runtime.names import did_you_mean, is_there
from pipeline.runtime.text_files import read_text

logger = logging.getLogger(__name__)

_FOLDER = resources.files("pipeline.config") / "presets"
_MODELS = {method_name(config): config for config in CONFIGS}
_EVERY_KEY = "`vireid config show PRESET` lists every key with its value, `vireid config explain KEY` its meaning"
_RENAMED = {"swap.min_similarity": "matching.floor"}
_MAX_DEPTH = 8  # of nested sections; no configuration has more than three
_LONGEST = 200  # characters of a name that a message shows
_LONGEST_NAME = 64  # of an experiment
_LARGEST = 2**63  # TOML integers have 64 bits


BUNDLES: Mapping[str, tuple[str, ...]] = {"cclnet": ("plus",)}
"""By method, sets of switches with presets of their own: `plus` has `plus-demo`, `plus-sysu` and so on."""


def preset_names() -> list[str]:
    """Names of the built-in presets, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """The file of a built-in preset."""
    return (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def load_config(preset: str, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> AnyConfig:
    """Read a preset (a name or the path of a TOML file), then apply `values`, then `overrides`.

    Args:
        preset: As above.
        overrides: Strings of the form `section.key=value`; the value is TOML, a bare word is a string.
        values: Nested values from program code or JSON; None is a value.

    Raises:
        ConfigError: The preset or a key does not exist, a file is not TOML, or a value is out of range.
    """
    tree = _read_preset(preset)
    _merge(tree, values or {}, preset)
    for override in overrides:
        _override(tree, override)
    return validate_config(tree)


def values_for_data(preset: str, root: Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Values for a data set that is named beside a preset, as `--data`; None names none.

    A manifest takes the place of the preset's published data set, and the experiment the name of the manifest's site:
    `plus-sysu` on `gate.csv` is `plus-gate`. An override of `data.name` decides in its place.
    """
    if root is None:
        return {}
    tree = _read_preset(preset)
    section = tree.get("data", {})
    before = section.get("name", SYSU.name) if isinstance(section, dict) else None
    chosen = any(override.partition("=")[0].strip() == "data.name" for override in overrides)
    if before in (MANIFEST.name, None) or chosen or not is_table(root):
        return {"data": {"root": root}}
    name = f"{str(tree.get('name', 'run')).removesuffix(f'-{before}')}-{site_name(root)}"[:_LONGEST_NAME]
    logger.info("%s is a manifest: data.name = manifest in place of %s, and the run is called %s", root, before, name)
    return {"name": name, "data": {"root": root, "name": MANIFEST.name, "split": None}}


def is_demonstration(preset: str | None, config: AnyConfig) -> bool:
    """Whether a preset is one of those for the synthetic people of the demonstration."""
    return preset in (config.demo_preset, *(f"{bundle}-demo" for bundle in BUNDLES.get(config.method, ())))


def refuse_other(preset: str, config: AnyConfig, *, method: str | None = None, dataset: str | None = None) -> None:
    """Raise `ConfigError` unless a preset has the method and the data set that are named; None names any."""
    for wanted, found, what in ((method, config.method, "method"), (dataset, config.data.name, "data set")):
        if wanted not in (None, found):
            raise ConfigError(
                f"preset {_short(preset)} is of {what} {found}, not {wanted}",
                hint=f"choose a preset of {wanted}; `vireid train {preset}` trains this one",
            )


def changes_from_preset(config: AnyConfig) -> dict[str, Any] | None:
    """Settings that differ from the preset of the experiment's name, by dotted name; None if that is no preset.

    Seed, RegDB's split, `execution` and paths are omitted.
    """
    preset = _record_of_preset(config.name)
    if preset is None or preset["method"] != config.method:
        return None
    return changed_settings(preset, record_of(config))


@cache
def _record_of_preset(name: str) -> Mapping[str, Any] | None:
    """The values of a built-in preset, read once: a list of runs compares each run with them."""
    return record_of(load_config(name)) if name in preset_names() else None


def validate_config(tree: Mapping[str, Any]) -> AnyConfig:
    """Turn nested values into a config; the `ConfigError` lists every invalid key."""
    model = _model_of(tree)
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        problems = "; ".join(_describe(problem) for problem in error.errors())
        unknown = [_key(problem) for problem in error.errors() if problem["type"] == "extra_forbidden"]
        similar = dict.fromkeys(did_you_mean_key(key, [*_keys(model)]) for key in unknown if key not in _RENAMED)
        raise ConfigError(f"the configuration is not valid: {problems}", hint="".join(similar) + _EVERY_KEY) from error


def did_you_mean_key(key: str, known: Sequence[str]) -> str:
    """The beginning of a hint for an unknown dotted key: a very similar one, those of its last part, or a similar one.

    >>> did_you_mean_key("labelling.eps", ["labelling.visible.eps", "labelling.joint.eps", "seed"])
    'did you mean labelling.joint.eps, or labelling.visible.eps? '
    """
    same = [one for one in known if one.rpartition(".")[2] == key.rpartition(".")[2]]
    similar = (
        difflib.get_close_matches(key, known, n=1, cutoff=0.9)
        or difflib.get_close_matches(key, same, n=3, cutoff=0)
        or difflib.get_close_matches(key, known, n=1)
    )
    return f"did you mean {', or '.join(similar)}? " if similar else ""


def _keys(model: type[Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all sections and settings."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def _model_of(tree: Mapping[str, Any]) -> type[AnyConfig]:
    """The settings class of the named method; CCLNet by default."""
    method = tree.get("method", method_name(CONFIGS[0]))
    if not isinstance(method, str) or method not in _MODELS:
        similar = did_you_mean(method, _MODELS) if isinstance(method, str) else ""
        raise ConfigError(f"there is no method {method!r}", hint=f"{similar}choose from: {', '.join(_MODELS)}")
    return _MODELS[method]


def _read_preset(preset: str) -> dict[str, Any]:
    """The values of a preset merged over those of the presets that it extends."""
    trees: list[tuple[str, dict[str, Any]]] = []
    name, beside = preset, Path()
    while True:
        is_file = _is_file(name)
        place = _full_path(beside / os.path.expanduser(name)) if is_file else name  # noqa: PTH111
        if place in dict(trees):
            raise ConfigError(
                f"{place} extends itself, directly or through others",
                hint="remove `extends` from one of them",
            )
        tree = _read_toml(place, name)
        if not is_file:
            tree["name"] = name
        trees.append((place, tree))
        parent = tree.pop("extends", None)
        if parent is None:
            break
        if not isinstance(parent, str):
            raise ConfigError(
                f"{place}: extends is {parent!r}, not a string", hint="name one preset, or the path of one .toml file"
            )
        name, beside = parent, Path(place).parent if is_file else beside
    merged: dict[str, Any] = {}
    for place, tree in reversed(trees):
        _merge(merged, tree, place)
    return merged


def _full_path(path: Path) -> str:
    try:
        return str(path.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, a symlink loop
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ConfigError(f"{_short(str(path))} cannot be read: {reason}", hint="name a .toml file") from error


def _read_toml(place: str, name: str) -> dict[str, Any]:
    """Read one file; `place` is its full path or a preset's name, `name` is the user's input for messages."""
    known = f"choose one of {', '.join(preset_names())}, or the path of a .toml file"
    if not _is_file(name):
        if name not in preset_names():
            file = Path(f"{name}.toml")
            hint = did_you_mean(name[:_LONGEST], preset_names()) + known
            hint = f"{file} is a file: name it with its ending" if name and is_there(file) else hint
            raise ConfigError(f"there is no preset {_short(name)}", hint=hint)
        return tomllib.loads(preset_text(name))
    text = read_text(Path(place), kind="preset", origin=known, error=ConfigError)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, hint = str(error), "strings need quotation marks, and keys must be unique"
    except ValueError:  # an integer of more digits than Python reads
        reason, hint = "a number has more than 4,300 digits", "choose a smaller number"
    except RecursionError:
        reason, hint = "brackets are nested too deeply", "remove some of them"
    raise ConfigError(f"{_short(name, quoted=False)} is not valid TOML: {reason}", hint=hint)


def _is_file(name: str) -> bool:
    return name.lower().endswith(".toml")


def _short(name: str, *, quoted: bool = True) -> str:
    """A name for messages: its end is cut off where it is long."""
    shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return repr(shown) if quoted else shown


def _merge(tree: dict[str, Any], changes: Mapping[str, Any], source: str, at: tuple[str, ...] = ()) -> None:
    """Put values into a tree, section by section; `source` names their origin in errors."""
    for key, value in changes.items():
        here = (*at, key)
        if isinstance(value, Mapping):
            branch = tree.setdefault(key, {}) if len(here) <= _MAX_DEPTH else None
            if not isinstance(branch, dict):
                raise ConfigError(f"{source}: {'.'.join(here)} is a value, not a section", hint=_EVERY_KEY)
            _merge(branch, value, source, here)
            continue
        if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise ConfigError(f"{source}: {'.'.join(here)} has more than 64 bits", hint="choose a smaller number")
        tree[key] = value


def _override(tree: dict[str, Any], override: str) -> None:
    dotted, separator, text = (part.strip() for part in override.partition("="))
    *sections, last = dotted.split(".")
    if not separator or not all((*sections, last)):
        raise ConfigError(
            f"--set {override!r} is not of the form section.key=value", hint="for instance --set swap.mode=off"
        )
    change: dict[str, Any] = {last: _parse_value(text, word=_knows_none(_model_of(tree), dotted))}
    for section in reversed(sections):
        change = {section: change}
    _merge(tree, change, f"--set {override!r}")


def _parse_value(text: str, *, word: bool) -> object:
    """A TOML value; a bare word or path is a string, `none` is None unless it is a `word` of the setting."""
    if text == "none" and not word:
        return None
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def _knows_none(model: type[Any], dotted: str) -> bool:
    """Whether the string `none` is one of a setting's choices."""
    name, _, rest = dotted.partition(".")
    field = model.model_fields.get(name)
    if field is None:
        return False
    if rest:
        section = field.annotation
        return isinstance(section, type) and issubclass(section, BaseModel) and _knows_none(section, rest)
    choices = [field.annotation, *get_args(field.annotation)]
    return "none" in {value for choice in choices for value in get_args(choice)}


def _key(problem: Any) -> str:
    return ".".join(str(part) for part in problem["loc"])


def _describe(problem: Any) -> str:
    key = _key(problem)
    match problem["type"]:
        case "extra_forbidden":
            return f"{key} is called {_RENAMED[key]} now" if key in _RENAMED else f"{key} does not exist"
        case "model_type":
            return f"{key} is a section, not a value"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
            return f"{key}: {message}" if key else message
