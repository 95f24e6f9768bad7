"""Bundles of every task, asked for their golden examples in every place that the machine has."""

import pytest

from distill_core.graph.shape import GraphShape
from distill_core.verifiers import VERIFIERS, find_verifiers
from distill_core.verifiers.bundle_answers import golden_problems
from distill_core.verifiers.table import NATIVE
from tests.deploy.bundles import PLAIN, SHAPED, TASKS
from tests.deploy.conftest import Make

QUICK = "node-wasm"
PLACES = [
    pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow)
    for name in VERIFIERS
    if name != NATIVE
]


AT_ONCE = ("sequence-classification", "question-answering")
BUNDLES = [
    *((task, PLAIN) for task in AT_ONCE),
    *(
        pytest.param(*bundle, marks=pytest.mark.slow)
        for bundle in [*((task, PLAIN) for task in TASKS if task not in AT_ONCE), *SHAPED]
    ),
]
"""Those that CI asks for, and all others. The script for node replays most of them there anyway."""


@pytest.mark.integration
@pytest.mark.parametrize(("task", "shape"), BUNDLES)
@pytest.mark.parametrize("name", PLACES)
def test_golden_examples_are_answered_as_published(
    bundle_of: Make, task: str, shape: GraphShape, name: str
) -> None:
    if VERIFIERS[name].loads_bundle and shape != PLAIN:
        pytest.skip("transformers.js reads plain files alone")
    places, missing = find_verifiers([name])
    if missing:
        pytest.skip(f"this machine has no {name}: `make verifiers` brings what can be had here")
    lines, problems = golden_problems(bundle_of(task, shape=shape), places)
    assert len(lines) == 1
    assert "14 golden examples, largest difference" in lines[0]
    assert not problems
