"""Stages: made once for the same inputs, whole or not there, and pruned."""

import os

import pytest

from tasks import caching
from tasks.caching import STAGES, Code, prune, run_stage


@pytest.fixture
def made():
    """Count how often a stage is built."""
    return []


def _build(made, text="content"):
    def build(folder):
        made.append(text)
        (folder / "file.txt").write_text(text)
        return {"text": text}

    return build


def test_stage_is_made_once_for_the_same_inputs(tmp_path, made):
    first = run_stage(tmp_path, "start", {"layers": [0, 2]}, _build(made))
    second = run_stage(tmp_path, "start", {"layers": [0, 2]}, _build(made))
    assert made == ["content"]
    assert (first.cached, second.cached) == (False, True)
    assert (second.key, second.facts, second.seconds) == (first.key, first.facts, first.seconds)
    assert (second.folder / "file.txt").read_text() == "content"


@pytest.mark.parametrize(
    ("name", "inputs"), [("start", {"layers": [0, 1]}), ("student", {"layers": [0, 2]})]
)
def test_other_inputs_or_another_kind_make_another_stage(tmp_path, made, name, inputs):
    run_stage(tmp_path, "start", {"layers": [0, 2]}, _build(made))
    run_stage(tmp_path, name, inputs, _build(made))
    assert len(made) == 2


def test_order_of_inputs_does_not_matter(tmp_path, made):
    run_stage(tmp_path, "start", {"a": 1, "b": 2}, _build(made))
    assert run_stage(tmp_path, "start", {"b": 2, "a": 1}, _build(made)).cached


def test_stage_that_fails_leaves_nothing_and_is_made_again(tmp_path, made):
    def fail(folder):
        (folder / "half.bin").write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space left"):
        run_stage(tmp_path, "start", {}, fail)
    assert list((tmp_path / "stages").iterdir()) == []
    assert not run_stage(tmp_path, "start", {}, _build(made)).cached


def test_code_digest_follows_the_source_and_the_libraries():
    digests = [
        Code(("losses",)),
        Code(("layers",)),
        Code(("losses",), ("torch",)),
        Code(("losses",)),
    ]
    assert len({code.digest() for code in digests}) == 3


def test_a_package_is_made_anew_when_one_of_its_scripts_changes():
    names = {path.name for path in caching._sources("verifiers")}
    assert names >= {"table.py", "answer_rows.py", "answer_rows.mjs", "answer_in_page.mjs"}


@pytest.mark.parametrize(
    ("stage", "template"), [("report", "report.html.j2"), ("bundle", "README.md.j2")]
)
def test_what_people_read_is_made_anew_when_its_template_changes(stage, template):
    names = {path.name for module in STAGES[stage].modules for path in caching._sources(module)}
    assert template in names


def test_every_row_names_modules_and_libraries_that_there_are():
    for code in STAGES.values():
        assert code.digest()


def test_pruning_keeps_what_was_used_and_the_newest_few_of_each_kind(tmp_path, made):
    stages = [run_stage(tmp_path, "start", {"n": n}, _build(made)) for n in range(6)]
    for age, stage in enumerate(stages):
        os.utime(stage.folder, (age, age))
    other = run_stage(tmp_path, "student", {}, _build(made))
    prune.fn(tmp_path, [stages[0]], spare=2)
    left = {path.name for path in (tmp_path / "stages").iterdir()}
    assert left == {stage.folder.name for stage in (stages[0], stages[4], stages[5], other)}


def test_pruning_leaves_other_folders_alone(tmp_path, made):
    run_stage(tmp_path, "start", {}, _build(made))
    (tmp_path / "stages" / "mine").mkdir()
    prune.fn(tmp_path, [], spare=0)
    assert (tmp_path / "stages" / "mine").is_dir()
