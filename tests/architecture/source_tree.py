"""The project's own source files, read once."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("clustering", "models", "pipeline", "flows", "vireid")


@dataclass(frozen=True, slots=True)
class Module:
    """A source file under its dotted name."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    def at(self, node: ast.AST) -> str:
        """Where a node stands, as an editor understands it."""
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"


def _read(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    text = path.read_text(encoding="utf-8")
    return Module(".".join(parts).removesuffix(".__init__"), path, text, ast.parse(text))


MODULES = tuple(_read(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[Module, Any]]:
    """Every node of these kinds in the sources, with its module."""
    for module in MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, kinds):
                yield module, node


def dotted(node: ast.AST) -> str:
    """`a.b.c` for that expression; empty for one that is not a dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def pyproject() -> dict[str, Any]:
    """The project's declaration."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
