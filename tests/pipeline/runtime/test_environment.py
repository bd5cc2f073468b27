"""A run records what it was made with."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import pipeline.runtime.environment
from pipeline.runtime.environment import describe_environment, peak_resident_bytes


def test_versions_are_those_installed_and_absent_packages_are_null():
    environment = describe_environment("cpu")
    assert environment["versions"]["numpy"] == version("numpy")
    # One of the two faiss builds is installed, never both.
    assert [environment["versions"][name] is None for name in ("faiss-cpu", "faiss-gpu")].count(True) == 1


def test_the_commit_and_whether_files_differ_from_it_are_recorded(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    source = tmp_path / "pipeline" / "runtime" / "environment.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    monkeypatch.setattr(pipeline.runtime.environment, "__file__", str(source))
    assert describe_environment("cpu")["commit"] is None  # no checkout yet

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    found = describe_environment("cpu")
    assert (found["commit"], found["modified"]) == (git("rev-parse", "HEAD"), False)
    source.write_text("changed")
    assert describe_environment("cpu")["modified"] is True


def test_a_checkout_of_another_project_around_an_installed_copy_is_not_ours(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    installed = tmp_path / "site-packages" / "pipeline" / "runtime" / "environment.py"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(pipeline.runtime.environment, "__file__", str(installed))
    assert describe_environment("cpu")["commit"] is None


def test_a_machine_without_git_records_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", str(Path("nowhere")))
    assert describe_environment("cpu")["commit"] is None


def test_the_peak_of_memory_is_known_where_linux_does_not_say(monkeypatch):
    exact = peak_resident_bytes()
    monkeypatch.setattr(pipeline.runtime.environment, "_STATUS", Path("nowhere"))
    assert 0 < exact <= 2 * peak_resident_bytes()
