"""What a person reads in Prefect: tables that Markdown cannot break."""

from pathlib import Path

from tasks.artifacts import describe_stage, flatten, markdown_table
from tasks.caching import Stage


def test_nested_values_become_dotted_names():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == [("a.b", 1), ("a.c.d", 2), ("e", 3)]


def test_metric_names_may_be_joined_by_a_slash():
    assert flatten({"teacher": {"accuracy": 0.9}}, "/") == [("teacher/accuracy", 0.9)]


def test_pipes_and_newlines_in_values_do_not_break_the_table():
    lines = markdown_table([{"text": "a|b\nc"}])
    assert lines[2] == "| a\\|b c |"


def test_stage_shows_facts_inputs_and_inner_tables():
    facts = {"accuracy": 0.912345, "per_class": [{"label": "negative", "f1": 0.9}]}
    stage = Stage("evaluation", "k" * 64, Path("x"), facts, {"seed": 0}, 1.5, cached=True)
    text = describe_stage(stage)
    assert "was there already, 1.5 s to make" in text
    assert "| accuracy | 0.9123 |" in text
    assert "| negative | 0.9 |" in text
    assert "| seed | 0 |" in text
