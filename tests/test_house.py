"""The house: lock file, README, arrows' order, public docstrings, example pipelines."""

import ast
import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from distill_core.config import Pipeline
from tests.bench.tables import fill_marks, render_all

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("flows", "tasks", "distill_core")
OF_A_GPU = ("nvidia-", "cuda-", "triton")
"""Packages that PyTorch's build for a GPU needs, at versions that it names; the lock leaves them to it."""

with_the_locks_python = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11),
    reason="the lock is made with Python 3.11; with newer ones some packages need others",
)


def _locked() -> dict[str, Version]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def _needed(name: str, extras: set[str]) -> list[Requirement]:
    found = [Requirement(line) for line in requires(name) or []]
    environments = [{"extra": extra} for extra in extras or {""}]
    return [
        need
        for need in found
        if (need.marker is None or any(need.marker.evaluate(extra) for extra in environments))
        and not need.name.startswith(OF_A_GPU)
    ]


def _reachable() -> dict[str, list[Requirement]]:
    """Return every package that distill-deploy[dev] needs, with all that is asked of it."""
    asked: dict[str, list[Requirement]] = {}
    queue = [("distill-deploy", frozenset({"", "dev"}))]
    seen = set(queue)
    while queue:
        name, extras = queue.pop()
        for need in _needed(name, set(extras)):
            key = canonicalize_name(need.name)
            asked.setdefault(key, []).append(need)
            step = (key, frozenset({"", *need.extras}))
            if step not in seen:
                seen.add(step)
                queue.append(step)
    return asked


@with_the_locks_python
def test_lock_pins_every_package_that_is_needed_at_a_version_that_fits():
    locked = _locked()
    for name, needs in _reachable().items():
        assert name in locked, (
            f"{name} is needed by pyproject.toml and not in requirements.lock: make lock"
        )
        for need in needs:
            assert need.specifier.contains(locked[name], prereleases=True), (need, locked[name])


@with_the_locks_python
def test_lock_pins_no_package_that_nothing_needs():
    build_tools = {"setuptools", "wheel"}  # pyproject.toml's build-system
    assert set(_locked()) - set(_reachable()) - build_tools == set()


def test_installed_packages_are_the_locked_ones():
    from importlib.metadata import version

    for name, pinned in _locked().items():
        try:
            installed = Version(version(name))
        except PackageNotFoundError:
            continue  # needed on another system only
        assert installed.public == pinned.public, name


def test_readme_tree_names_every_module_and_no_other():
    tree = re.search(r"```\n(flows/ .*?)```", README, re.DOTALL)[1]
    for package in PACKAGES:
        section = re.search(rf"^{package}/.*?(?=^\S|\Z)", tree, re.DOTALL | re.MULTILINE)[0]
        named = set(re.findall(r"\b(\w+\.py)\b", section))
        there = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
        assert named == there, package


def test_readme_pipeline_file_is_the_defaults_in_full():
    document = yaml.safe_load(re.search(r"```yaml\n(name: .*?)```", README, re.DOTALL)[1])
    shown = Pipeline.model_validate(document)
    assert set(document) == set(Pipeline.model_fields)
    for section in (
        "losses",
        "training",
        "gate",
        "student",
        "graph",
        "bundle",
        "tracking",
        "schedule",
    ):
        model = type(getattr(shown, section))
        assert getattr(shown, section) == model(), section
        assert set(document[section]) == set(model.model_fields), section


def test_readme_names_the_commands_that_there_are():
    from flows.cli import app

    table = README.split("## Commands")[1].split("## The house")[0]
    named = re.findall(r"^\| `([a-z]+)", table, re.MULTILINE)
    assert sorted(named) == sorted(command.callback.__name__ for command in app.registered_commands)


def test_figures_in_documents_are_those_of_the_records():
    assert fill_marks(README) == README, "make bench renders README.md"
    tables = (ROOT / "tests" / "bench" / "TABLES.md").read_text(encoding="utf-8")
    assert tables == render_all(), "make bench renders TABLES.md"


def _public_parts(tree: ast.AST) -> list[ast.FunctionDef | ast.ClassDef]:
    parts = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    public = [node for node in parts if not node.name.startswith("_")]
    inner = [p for node in public if isinstance(node, ast.ClassDef) for p in _public_parts(node)]
    return public + inner


def test_every_public_function_says_what_it_does():
    files = [path for package in PACKAGES for path in (ROOT / package).glob("*.py")]
    silent = [
        f"{path.name}:{node.lineno} {node.name}"
        for path in files
        for node in _public_parts(ast.parse(path.read_text(encoding="utf-8")))
        if not ast.get_docstring(node)
    ]
    assert silent == []


def test_documents_name_no_path_of_one_machine():
    copied = {"node_modules", "vendor", "bundle"}  # what the samples' users put there
    samples = [
        path
        for path in ROOT.glob("deploy/**/*.*")
        if path.is_file() and path.suffix != ".png" and not copied & set(path.parts)
    ]
    for path in (*ROOT.glob("*.md"), *samples, *ROOT.glob("*.lock"), ROOT / "Makefile"):
        assert not re.search(r"/(work|home|root|Users)/", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "pipelines").glob("*.yaml")), ids=str)
def test_example_pipelines_open_with_the_command_that_runs_them(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# distill-deploy run {path.relative_to(ROOT)}"
    Pipeline.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
