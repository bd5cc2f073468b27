"""Nothing public is there for tests alone."""

import ast
import re
from collections import Counter

from tests.architecture.source_tree import MODULES, ROOT, dotted

KEEPS_ITS_NAME = {"staticmethod", "classmethod", "property", "cached_property", "dataclass", "contextmanager", "kernel"}
"""Decorators; any other one may register what it decorates: a command, a flow, a validator."""

CALLED_BY_LIBRARIES = {
    "emit", "render", "forward", "predict", "setup_context", "parse_args",
    "capture_signals", "connection_made", "connection_lost",
}  # fmt: skip
"""Methods of `logging.Handler`, rich, torch, MLflow, Typer and uvicorn that we override."""

USED_ELSEWHERE = {
    "GATE": "compared by a test of the demo weights and named in the module's docstring",
}


def names_in(tree: ast.AST) -> Counter[str]:
    """How often each name is read; imports do not count."""
    counts: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            counts[node.id] += 1
        elif isinstance(node, ast.Attribute):
            counts[node.attr] += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 60:
            counts.update(re.findall(r"\w+", node.value))  # a forward reference, or an attribute by its name
    return counts


def definitions(body: list[ast.stmt]) -> list[tuple[ast.stmt, str]]:
    """Public functions, classes and constants of a module or a class, but those that a decorator may register."""
    found = []
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            decorators = {dotted(getattr(one, "func", one)).rpartition(".")[2] for one in node.decorator_list}
            if decorators <= KEEPS_ITS_NAME and node.name not in CALLED_BY_LIBRARIES:
                found.append((node, node.name))
            if isinstance(node, ast.ClassDef):
                found += [one for one in definitions(node.body) if isinstance(one[0], ast.FunctionDef)]
        elif isinstance(node, ast.Assign):
            found += [(node, target.id) for target in node.targets if isinstance(target, ast.Name)]
    return [(node, name) for node, name in found if not name.startswith("_")]


def test_every_public_name_is_used_outside_of_tests():
    read = sum((names_in(module.tree) for module in MODULES), Counter())
    files = ["pyproject.toml", "prefect.yaml", "Makefile", *(ROOT / "benchmarks").rglob("*.py")]
    text = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    examples = "\n".join(
        block
        for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for block in re.findall(r"`[^`]+`", path.read_text(encoding="utf-8"))
    )
    unused = [
        f"{module.at(node)} {name}"
        for module in MODULES
        for node, name in definitions(module.tree.body)
        if read[name] <= names_in(node)[name]
        and name not in USED_ELSEWHERE
        and not re.search(rf"\b{name}\b", text)
        and not re.search(rf"\b{name}\(|\.{name}\b", examples)
    ]
    assert unused == []
