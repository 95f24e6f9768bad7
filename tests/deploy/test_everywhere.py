"""Bundles of every task, asked for their golden examples in every place that the machine has."""

import pytest

from distill_core.verifiers import VERIFIERS, find_verifiers
from distill_core.verifiers.bundle_answers import golden_problems
from distill_core.verifiers.table import NATIVE
from tests.deploy.bundles import TASKS
from tests.deploy.conftest import Make

QUICK = "node-wasm"
PLACES = [
    pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow)
    for name in VERIFIERS
    if name != NATIVE
]


@pytest.mark.integration
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", PLACES)
def test_golden_examples_are_answered_as_on_this_machine(
    bundle_of: Make, task: str, name: str
) -> None:
    places, missing = find_verifiers([name])
    if missing:
        pytest.skip(f"this machine has no {name}: `make verifiers` brings what can be had here")
    lines, problems = golden_problems(bundle_of(task), places)
    assert len(lines) == 2
    assert not problems
