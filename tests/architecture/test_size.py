"""A module fits in a few screens, a function in one."""

import ast

from tests.architecture.source_tree import MODULES, nodes

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50


def test_no_module_is_longer_than_400_lines():
    lengths = {module.name: len(module.text.splitlines()) for module in MODULES}
    assert {name: length for name, length in lengths.items() if length > MAX_MODULE_LINES} == {}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring: nobody shall be short with an explanation."""
    length = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        length -= function.body[0].end_lineno - function.body[0].lineno + 1
    return length


def test_the_docstring_is_not_counted():
    source = 'def f(\n    x,\n):\n    """One.\n\n    Two.\n    """\n    return x\n'
    assert code_lines(ast.parse(source).body[0]) == 4  # def f(, x, ):, return x


def test_no_function_has_more_than_50_lines_of_code():
    too_long = {
        f"{module.at(node)} {node.name}": code_lines(node)
        for module, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        if code_lines(node) > MAX_FUNCTION_LINES
    }
    assert too_long == {}
