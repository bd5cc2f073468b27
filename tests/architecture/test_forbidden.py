"""What the sources must not contain."""

import ast
import re

import pytest

from tests.architecture.source_tree import MODULES, PACKAGES, ROOT, dotted, nodes

FORBIDDEN_IMPORTS = {"argparse", "pickle", "cPickle", "dill", "cloudpickle", "joblib", "easydict", "optparse"}
# Folders of a machine. A lone slash, a URL or the path of a web page is none.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~\]}$-])/(?:home|root|mnt|media|opt|srv|scratch|work|farm|data|datasets|Users|tmp|var)/\w|\b[A-Z]:\\\\"
)


def test_no_forbidden_library_is_imported():
    found = []
    for module, node in nodes(ast.Import, ast.ImportFrom):
        names = {alias.name for alias in node.names}
        libraries = {node.module or ""} if isinstance(node, ast.ImportFrom) else names
        only_an_error = isinstance(node, ast.ImportFrom) and all(name.endswith("Error") for name in names)
        if {name.partition(".")[0] for name in libraries} & FORBIDDEN_IMPORTS and not only_an_error:
            found.append(module.at(node))
    assert found == []


def test_results_go_through_the_console_never_through_print():
    found = [module.at(node) for module, node in nodes(ast.Call) if dotted(node.func) in ("print", "pprint.pprint")]
    assert found == []


ENVIRONMENT = {"pipeline.runtime.user_environment", "flows.proxies"}
"""Modules that change variables of this process, for libraries and children; called by commands and workers."""


@pytest.mark.parametrize("target", ["sys.stdout", "sys.stderr", "sys.path", "os.environ", "torch.backends"])
def test_the_state_of_the_process_is_left_alone(target):
    found = []
    for module, node in nodes(ast.Assign, ast.AugAssign, ast.Delete, ast.Call):
        if isinstance(node, ast.Call):
            owner = dotted(node.func).rpartition(".")
            changed = owner[0] == target and owner[2] in {"append", "insert", "extend", "update", "setdefault", "pop"}
        else:
            written = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else [node.target]
            names = [dotted(one.value if isinstance(one, ast.Subscript) else one) for one in written]
            changed = any(name == target or name.startswith(target + ".") for name in names)
        if changed and not (target == "os.environ" and module.name in ENVIRONMENT):
            found.append(module.at(node))
    assert found == []


def test_only_named_errors_are_caught():
    broad = {"", "Exception", "BaseException"}
    found = []
    for module, node in nodes(ast.ExceptHandler):
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        is_broad = any(kind is None or dotted(kind) in broad for kind in kinds)
        # Cleaning up on the way out is fine: what ends in a bare `raise` swallows nothing.
        passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        if is_broad and not passes_on:
            found.append(module.at(node))
    assert found == []


@pytest.mark.parametrize(("argument", "value"), [("allow_pickle", True), ("weights_only", False)])
def test_nothing_is_read_that_can_run_code(argument, value):
    found = [
        module.at(node)
        for module, node in nodes(ast.keyword)
        if node.arg == argument and isinstance(node.value, ast.Constant) and node.value.value is value
    ]
    assert found == []


def test_torch_load_always_says_weights_only():
    found = [
        module.at(node)
        for module, node in nodes(ast.Call)
        if dotted(node.func) == "torch.load" and "weights_only" not in {keyword.arg for keyword in node.keywords}
    ]
    assert found == []


def test_files_that_hold_code_are_loaded_nowhere_but_after_their_digest_is_compared():
    """OpenAI's archives, after their digest; an export compares what it has just made with the network."""
    loaders = {"torch.jit.load", "torch.export.load", "torch.package.PackageImporter", "torch.hub.load"}
    found = {(dotted(node.func), module.name) for module, node in nodes(ast.Call) if dotted(node.func) in loaders}
    assert found == {("torch.jit.load", "models.clip_files"), ("torch.jit.load", "pipeline.inference.export")}


def test_public_signatures_take_no_unnamed_options():
    found = [
        f"{module.at(node)} {node.name}"
        for module, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        if node.args.kwarg is not None and not node.name.startswith("_")
    ]
    assert found == []


def test_forward_has_no_mode_flags():
    found = [
        f"{module.at(node)} {argument.arg}"
        for module, node in nodes(ast.FunctionDef)
        if node.name == "forward"
        for argument in (*node.args.args, *node.args.kwonlyargs)
        if argument.annotation is not None and dotted(argument.annotation) == "bool"
    ]
    assert found == []


def test_classes_of_ours_do_not_inherit_from_each_other():
    """But for the errors, which are one family so that the command line can catch them."""
    ours = {node.name for _, node in nodes(ast.ClassDef)}
    found = [
        f"{module.at(node)} {node.name}({dotted(base)})"
        for module, node in nodes(ast.ClassDef)
        for base in node.bases
        if dotted(base).rpartition(".")[2] in ours and module.name != "pipeline.errors"
    ]
    assert found == []


def test_global_randomness_stays_untouched():
    generators = {"default_rng", "Generator", "RandomState", "SeedSequence", "PCG64", "Random", "fork_rng"}
    found = [
        module.at(node)
        for module, node in nodes(ast.Call)
        for owner, _, name in [dotted(node.func).rpartition(".")]
        if owner in ("random", "np.random", "numpy.random") and name not in generators
    ]
    assert found == []


def test_torch_is_seeded_inside_a_fork_of_its_generator_only():
    seeding = {"torch.manual_seed", "torch.random.manual_seed", "torch.seed", "torch.cuda.manual_seed_all"}
    calls = {module.at(node) for module, node in nodes(ast.Call) if dotted(node.func) in seeding}
    forked = {
        module.at(node)
        for module, block in nodes(ast.With)
        if any(dotted(getattr(item.context_expr, "func", item)).endswith("fork_rng") for item in block.items)
        for node in ast.walk(block)
        if isinstance(node, ast.Call)
    }
    assert calls - forked == set()


def test_sources_hold_no_path_of_a_machine():
    found = [
        f"{module.at(node)} {node.value[:60]!r}"
        for module, node in nodes(ast.Constant)
        if isinstance(node.value, str) and MACHINE_PATH.search(node.value)
    ]
    assert found == []


def test_documents_and_settings_hold_no_path_of_a_machine_and_no_package_host():
    suffixes = {".md", ".toml", ".txt", ".yaml", ".yml", ".cff", ".json", ".ipynb", ""}
    skipped = {".venv", ".git", "runs", "data"}
    host = re.compile(r"(--(extra-)?index-url|--find-links|files\.pythonhosted|://[^\s/]*/simple\b)")
    files = [
        path
        for path in (*ROOT.iterdir(), *(ROOT / ".ci").iterdir(), *(ROOT / "docs").rglob("*"))
        if path.is_file() and path.suffix in suffixes
    ]
    for package in (*PACKAGES, "benchmarks", "examples"):
        files += [path for path in (ROOT / package).rglob("*") if path.is_file() and path.suffix in suffixes - {""}]
    files += (ROOT / "examples").glob("*.py")
    found = [
        f"{path.relative_to(ROOT)}:{number} {line[:80]}"
        for path in files
        if not skipped & set(path.relative_to(ROOT).parts) and path.name != "LICENSE"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line) or host.search(line)
    ]
    assert found == []


def test_a_path_of_a_machine_is_recognised():
    for text in ("/home/me/data", "root=/mnt/disk", '"/tmp/x"', "C:\\\\data"):
        assert MACHINE_PATH.search(text), text
    for text in (
        "/",
        "test/data/x",
        "http://a/tmp/b",
        "~/data/x",
        "./data/x",
        "${DATA}/data/x",
        "/folder/of/SYSU-MM01",
    ):
        assert not MACHINE_PATH.search(text), text


def test_every_module_explains_itself():
    found = [module.name for module in MODULES if ast.get_docstring(module.tree) is None]
    assert found == []


def test_warning_filters_are_changed_for_a_block_only():
    filters = {"warnings.simplefilter", "warnings.filterwarnings", "warnings.resetwarnings"}
    calls = {module.at(node) for module, node in nodes(ast.Call) if dotted(node.func) in filters}
    limited = {
        module.at(node)
        for module, block in nodes(ast.With)
        if any(dotted(getattr(item.context_expr, "func", item)) == "warnings.catch_warnings" for item in block.items)
        for node in ast.walk(block)
        if isinstance(node, ast.Call)
    }
    assert calls - limited == set()


def test_settings_of_the_process_are_put_back():
    """Where a function changes one, a `finally` in it does so again."""
    setters = {
        "torch.set_num_threads", "torch.set_default_dtype", "torch.set_float32_matmul_precision",
        "torch.use_deterministic_algorithms", "faiss.omp_set_num_threads", "numba.set_num_threads", "np.seterr",
        "signal.signal", "os.chdir", "locale.setlocale", "socket.setdefaulttimeout",
    }  # fmt: skip
    # A pull step of Prefect, which moves the worker's process, and the start of a process that only draws images.
    allowed = {"enter_checkout", "_open_studio"}

    def called(within: ast.AST) -> set[str]:
        return {dotted(node.func) for node in ast.walk(within) if isinstance(node, ast.Call)} & setters

    found = [
        f"{module.at(node)} {name}"
        for module, node in nodes(ast.FunctionDef)
        if node.name not in allowed
        for attempts in [[one for one in ast.walk(node) if isinstance(one, ast.Try)]]
        for name in called(node) - {name for one in attempts for last in one.finalbody for name in called(last)}
    ]
    assert found == []


def test_a_logger_is_named_after_its_own_module():
    imported = [
        module.at(node)
        for module, node in nodes(ast.ImportFrom)
        if any(alias.name in ("logger", "log") for alias in node.names)
    ]
    misnamed = [
        module.at(node)
        for module in MODULES
        for node in module.tree.body
        if isinstance(node, ast.Assign) and dotted(node.targets[0]) == "logger"
        if ast.unparse(node.value) != "logging.getLogger(__name__)"
    ]
    assert imported + misnamed == []
