"""One word for a thing, and plain technical English around it."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests.architecture.source_tree import MODULES, ROOT, Module

# Parts of names, where an underscore or a capital letter divides them. RegDB and SYSU-MM01 are names of data sets.
FORBIDDEN = {"rgb", "ir", "thermal"}
FORBIDDEN_MODULES = {"utils", "util", "helpers", "helper", "misc", "common", "base", "legacy"}


PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "*.cff", "*.yaml", "docs/*.md", "models/**/*.md", "pipeline/config/presets/**/*.toml")
    for path in ROOT.glob(pattern)
)
# Rooms, modules and documents whose prose is plain; others are added once theirs is. Of "Makefile": its help lines.
PLAIN_ROOMS = (
    *PAGES,
    "Makefile",
    "examples/cclnet_in_100_lines.py",
    "examples/notebook.ipynb",
    "examples/search_two_folders.py",
    "clustering",
    "models",
    "pipeline.captioning",
    "pipeline.console",
    "pipeline.data",
    "pipeline.demo_clip",
    "pipeline.evaluation",
    "pipeline.features",
    "pipeline.inference",
    "pipeline.methods",
    "pipeline.privacy",
    "pipeline.runs",
    "pipeline.runtime",
    "pipeline.training",
    "flows",
    "vireid",
    "pipeline.config",
    "pipeline.errors",
    "pipeline.reports",
    "pipeline.storage",
    "pipeline.tracking",
)
# Words and phrases of everyday speech for which the field, or plain English, has a better one.
BANNED = {
    r"(?:is|are|was|were|be|been|gets?) told|told (?:of|apart|to|by|that)|tells?": "sends, distinguishes",
    r"hears?|heard": "receives",
    r"(?:is|are|was|were|be|been) asked|asked (?:for|of|to|about)|asks?": "requested, called, queried",
    r"(?:says?|said|saying) (?:so|that|where|what|which|who|whom|whose|whether|how|why|nothing|of|about|it|they|no)": (
        "states, names, contains"
    ),
    r"speaks?": "logs, communicates",
    r"what there is|that there (?:is|are)|there (?:is|are) to": "existing, available",
    r"whoever|whomever": "the caller, the user",
    r"nobody|somebody|everybody": "no image, a user, all",
    r"stand-ins?|stands? in for": "demo CLIP",
    r"first process": "rank 0",
    r"drawn (?:people|persons?|data|sets?|figures?|photographs?)|draws? (?:people|persons|a data set)": "synthetic",
    r"drawn towards": "pulled towards",
    r"hidden (?:rows|images|gallery|pairs)": "excluded",
    r"sightings?|likeness(?:es)?": "samples, similarity",
    r"(?:lies?|lay|lying|stands?|stood) (?:beside|below|under|above|in|on|at|where|there|behind|as|before)": "is, are",
    r"what (?:stands|lies|is left|was done|was said)": "the noun",
    r"go(?:es|ing)? on|went on": "continues, resumes",
    r"passed over|left aside|left out|leaves? out|leave it out": "skipped, excluded, omitted",
    r"looks? after": "check",
}
BANNED_PATTERN = re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in BANNED), re.IGNORECASE)


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


def is_plain_room(name: str) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in PLAIN_ROOMS)


def prose_of(module: Module) -> Iterator[tuple[int, str]]:
    """Comments, and strings of several words: docstrings, messages, hints. Line breaks become spaces."""
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, " ".join(node.value.split())


def plain_documents() -> Iterator[tuple[str, str]]:
    """Lines of the documents in `PLAIN_ROOMS`, outside of code blocks; of the Makefile, its help."""
    for name in PLAIN_ROOMS:
        if not (ROOT / name).is_file():
            continue
        code = False
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            code ^= line.startswith("```")
            shown = line.partition("## ")[2] if name == "Makefile" else line
            if not code:
                yield f"{name}:{number}", shown


def test_prose_uses_the_terms_of_the_field():
    found = [
        f"{module.path.relative_to(ROOT)}:{line} {match.group()!r} in {text[max(0, match.start() - 30) :][:70]!r}"
        for module in MODULES
        if is_plain_room(module.name)
        for line, text in prose_of(module)
        for match in BANNED_PATTERN.finditer(text)
    ]
    found += [
        f"{place} {match.group()!r}" for place, line in plain_documents() for match in BANNED_PATTERN.finditer(line)
    ]
    assert found == []


def test_every_plain_room_exists():
    names = {module.name for module in MODULES}
    assert [room for room in PLAIN_ROOMS if room not in names and not (ROOT / room).is_file()] == []


@pytest.mark.parametrize(
    "text",
    [
        "texts that the others are told",
        "what is asked for",
        "Whoever calls decides",
        "the file lies beside it",
        "drawn people",
        "stand-in weights",
        "on the first process",
        "a row that says nothing",
        "nothing that there is to draw",
        "the run goes on",
    ],
)
def test_everyday_speech_is_found(text):
    assert BANNED_PATTERN.search(text)


@pytest.mark.parametrize(
    "text", ["images drawn with replacement", "a task", "an hidden layer", "a stand", "basket", "the lie"]
)
def test_other_words_are_not_found(text):
    assert not BANNED_PATTERN.search(text)
