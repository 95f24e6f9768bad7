"""The iOS sample: parsed, and its names held against those of bundles. No Swift compiler is at hand."""

import re
import subprocess
import sys
from typing import get_args

import pytest

from distill_core.graph.shape import GraphShape
from distill_core.heads import HEADS
from distill_core.manifest import Golden, Manifest
from distill_core.session import MODEL_INPUTS
from tests.deploy.conftest import ROOT

SAMPLE = ROOT / "deploy" / "ios"
PARSERS = ROOT / ".verifiers" / "parsers" / "packages"
"""tree-sitter and its grammar of Swift."""

SOURCES = {path.name: path.read_text(encoding="utf-8") for path in SAMPLE.rglob("*.swift")}
WHOLE = "\n".join(SOURCES.values())

_PARSE = """
import sys, tree_sitter, tree_sitter_swift
parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
def wrong(node):
    if node.type == "ERROR" or node.is_missing:
        yield node.start_point
    for child in node.children:
        yield from wrong(child)
for path in sys.argv[1:]:
    for row, column in wrong(parser.parse(open(path, "rb").read()).root_node):
        print(f"{path}:{row + 1}:{column + 1} is no Swift")
"""


def camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def test_every_file_is_swift() -> None:
    if not PARSERS.is_dir():
        pytest.skip("tree-sitter's grammar of Swift is not here: make verifiers")
    files = sorted(map(str, SAMPLE.rglob("*.swift")))
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, *files],
        env={"PYTHONPATH": str(PARSERS)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


@pytest.mark.parametrize("model", [Manifest, Golden])
def test_the_fields_that_are_read_are_those_of_a_manifest(
    model: type[Manifest] | type[Golden],
) -> None:
    struct = {"Manifest": "Manifest", "Golden": "Example"}[model.__name__]
    body = re.search(
        rf"struct {struct}: Decodable {{(.*?)\n}}", SOURCES["Manifest.swift"], re.DOTALL
    )
    assert body is not None
    read = set(re.findall(r"^    public let (\w+):", body[1], re.MULTILINE))
    assert read <= {camel(name) for name in model.model_fields}
    optional = set(re.findall(r"public let (\w+): .+\?$", body[1], re.MULTILINE))
    nullable = {
        camel(name) for name, field in model.model_fields.items() if not field.is_required()
    }
    assert optional == read & nullable - {"schemaVersion"}


def test_inputs_are_named_and_typed_as_models_have_them() -> None:
    named = set(re.findall(r'"(\w+_ids|attention_mask)"', WHOLE))
    assert named == set(MODEL_INPUTS)
    types = set(re.findall(r"elementType: \.(\w+)", SOURCES["DeviceEngine.swift"]))
    assert types == set(get_args(GraphShape.model_fields["inputs"].annotation))


def test_outputs_of_two_are_named_as_models_have_them() -> None:
    assert {"start_logits", "end_logits"} == set(re.findall(r'"(\w+_logits)"', WHOLE))


def test_every_task_is_answered() -> None:
    cases = set(
        re.findall(r'case "([a-z-]+)":', SOURCES["ModelBundle.swift"] + SOURCES["Answers.swift"])
    )
    assert cases == set(HEADS)


def test_nothing_of_one_bundle_stands_in_the_code() -> None:
    assert not re.search(r"LABEL_\d|negative|positive|\b(128|384|512)\b|model_quantized", WHOLE)
