"""One word for a thing."""

import ast
import re
from collections.abc import Iterator

from tests.architecture.source_tree import MODULES, Module

# Parts of names, where an underscore or a capital letter divides them. RegDB and SYSU-MM01 are names of data sets.
FORBIDDEN = {"rgb", "ir", "thermal"}
FORBIDDEN_MODULES = {"utils", "util", "helpers", "helper", "misc", "common", "base", "legacy"}


def parts(name: str) -> set[str]:
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)}


def defined_names(module: Module) -> Iterator[tuple[ast.AST, str]]:
    """What the module itself names; names of other libraries' functions are theirs."""
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node, node.name
        elif isinstance(node, ast.arg):
            yield node, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node, node.attr


def test_names_fall_into_the_parts_that_a_reader_sees():
    assert parts("load_rgb_2") == {"load", "rgb", "2"}
    assert parts("IRImages") == {"ir", "images"}
    assert parts("first_directory") == {"first", "directory"}
    assert parts("RegDB") == {"reg", "db"}


def test_modalities_are_called_visible_and_infrared():
    found = [
        f"{module.at(node)} {name}"
        for module in MODULES
        for node, name in defined_names(module)
        if parts(name) & FORBIDDEN
    ]
    assert found == []


def test_modules_say_what_they_hold():
    found = [
        module.name
        for module in MODULES
        if set(module.name.split(".")) & FORBIDDEN_MODULES or re.search(r"_v\d+$", module.name)
    ]
    assert found == []


def test_nothing_is_left_to_be_done_later():
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [
        f"{module.path.name}:{number}"
        for module in MODULES
        for number, line in enumerate(module.text.splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []
