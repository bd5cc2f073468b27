"""Only the data sets' own modules know their names: everything else looks a spec, a protocol or options up."""

import ast

from pipeline.config.datasets import OPTIONS
from pipeline.data.datasets import DATASETS
from pipeline.evaluation.protocols import PROTOCOLS
from tests.architecture.source_tree import MODULES

NAMES = tuple(options.name for options in OPTIONS)
OWNERS = (
    "pipeline.config.datasets",
    "pipeline.data.datasets",
    "pipeline.evaluation.protocols",
    "pipeline.data.synthetic",
)


def is_a_name(node: ast.AST) -> bool:
    """Whether a node is a data set's name or one of its searches: `"sysu"`, `"sysu/all"`."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.partition("/")[0] in NAMES


def decides(node: ast.AST) -> list[ast.AST]:
    """The literals that a node compares with, matches, looks up or tests the beginning of a text against."""
    match node:
        case ast.Compare():
            sides = [node.left, *node.comparators]
            return [
                part
                for side in sides
                for part in (side.elts if isinstance(side, ast.Tuple | ast.Set | ast.List) else [side])
            ]
        case ast.MatchValue():
            return [node.value]
        case ast.Dict():
            return [key for key in node.keys if key is not None]
        case ast.Subscript():
            return [node.slice]
        case ast.Call(func=ast.Attribute(attr="startswith" | "removeprefix" | "get")):
            return node.args
    return []


def test_no_other_module_compares_or_matches_the_name_of_a_data_set():
    found = [
        module.at(literal)
        for module in MODULES
        if not module.name.startswith(OWNERS)
        for node in ast.walk(module.tree)
        for literal in decides(node)
        if is_a_name(literal)
    ]
    assert found == []


def test_settings_data_sets_and_protocols_name_the_same_ones_in_one_order():
    assert tuple(spec.name for spec in DATASETS) == NAMES
    assert tuple(protocol.name for protocol in PROTOCOLS if protocol.options in OPTIONS) == NAMES
    assert all(spec.options is options for spec, options in zip(DATASETS, OPTIONS, strict=True))


def test_every_search_begins_with_the_name_of_its_data_set():
    for protocol in PROTOCOLS:
        assert {search.partition("/")[0] for search in protocol.searches} == {protocol.name}
