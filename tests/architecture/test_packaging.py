"""What is installed is what is there."""

import re

from tests.architecture.source_tree import MODULES, PACKAGES, ROOT, pyproject


def test_every_package_is_listed_and_nothing_else():
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert set(pyproject()["tool"]["setuptools"]["packages"]) == there


def test_every_folder_of_modules_is_a_package():
    folders = {module.path.parent for module in MODULES}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_every_file_that_is_no_module_is_installed_too():
    listed = pyproject()["tool"]["setuptools"]["package-data"]
    covered = {
        path
        for package, patterns in listed.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    there = {
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__"
    }
    assert there - covered == set()


def test_the_command_is_named_vireid():
    assert pyproject()["project"]["scripts"] == {"vireid": "flows.cli.app:main"}


def test_constraints_are_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []


def test_every_dependency_is_constrained():
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    project = pyproject()["project"]
    optional = [one for extra in project["optional-dependencies"].values() for one in extra]
    wanted = {normal(re.match(r"[\w.-]+", one).group()) for one in (*project["dependencies"], *optional)}
    pinned = {normal(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert wanted - pinned == set()


def test_shapes_are_checked_in_every_module_that_states_them():
    """A module with jaxtyping annotations is on the list in pyproject.toml, unless numba compiles it."""
    compiled = re.compile(r"^(import numba|from numba import|from clustering\.parallel import .*kernel)", re.MULTILINE)
    options = pyproject()["tool"]["pytest"]["ini_options"]["addopts"]
    (listed,) = [option.partition("=")[2] for option in options if option.startswith("--jaxtyping-packages=")]
    checked = tuple(listed.split(",")[:-1])
    missing = [
        module.name
        for module in MODULES
        if re.search(r"^from jaxtyping import", module.text, re.MULTILINE)
        and not compiled.search(module.text)
        and not any(module.name == name or module.name.startswith(name + ".") for name in checked)
    ]
    assert missing == []
    known = {module.name for module in MODULES}
    assert [name for name in checked if name not in known] == []
