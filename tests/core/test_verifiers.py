"""Verifiers: the table, answers by other processes, and real emulators, node and Chromium where they are."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from distill_core.errors import VerificationError
from distill_core.session import open_session, run_row
from distill_core.targets import TARGETS
from distill_core.teacher import load_tokenizer
from distill_core.verifiers import (
    VERIFIERS,
    Asked,
    Place,
    Question,
    ask,
    describe,
    find_verifiers,
    golden_problems,
    verify_answers,
)
from distill_core.verifiers.tools import PYTHON_SCRIPT, this_machine

NATIVE = VERIFIERS["native"]
TEXTS = [("The film was good",), ("a dull plot",), ("good " * 40,)]


@pytest.fixture
def questions(bundle: Path, head: Any) -> list[Question]:
    tokenizer = load_tokenizer(bundle)
    return [Question(head.read_texts(texts, tokenizer, 32), texts) for texts in TEXTS]


def test_every_target_names_verifiers_that_there_are_and_one_of_the_oldest() -> None:
    for target in TARGETS.values():
        assert set(target.verifiers) <= set(VERIFIERS), target.name
        assert any(name.startswith("oldest-") for name in target.verifiers), target.name


def test_oldest_runtime_is_what_make_verifiers_brings() -> None:
    folder = Path(__file__).parents[2] / "deploy" / "verifiers"
    for target in TARGETS.values():
        assert f"onnxruntime=={target.oldest_runtime} " in (folder / "set_up.sh").read_text()
        assert f"onnxruntime-web@{target.oldest_runtime}" in (folder / "package.json").read_text()


def test_lock_of_the_node_packages_names_no_address() -> None:
    folder = Path(__file__).parents[2] / "deploy" / "verifiers"
    assert "://" not in (folder / "package-lock.json").read_text()


def test_an_empty_folder_lacks_what_make_verifiers_brings(tmp_path: Path) -> None:
    lacking = ["arm64-no-dotprod", "node-wasm", "chromium-transformers.js", "oldest-onnxruntime"]
    places, missing = find_verifiers(["native", *lacking], tmp_path)
    assert list(places) == ["native"]
    assert missing == lacking


def test_another_process_answers_as_this_one(bundle: Path, questions: list[Question]) -> None:
    file = bundle / "onnx" / "model_quantized.onnx"
    answers = ask(NATIVE, this_machine(), Asked(file), questions)
    session = open_session(file, threads=1)
    for outputs, question in zip(answers.outputs, questions, strict=True):
        assert np.array_equal(outputs["logits"], run_row(session, question.row)["logits"])
    assert answers.runtime.startswith("onnxruntime ")
    assert answers.other_token_ids is None


def test_rows_that_come_too_late_are_not_asked(bundle: Path, questions: list[Question]) -> None:
    file = bundle / "onnx" / "model_quantized.onnx"
    assert len(ask(NATIVE, this_machine(), Asked(file), questions, seconds=0).outputs) == 1


def test_a_file_that_cannot_be_loaded_is_named_with_the_place(
    questions: list[Question], tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(VerificationError, match=r"native .*broken\.onnx is not answered there: "):
        ask(NATIVE, this_machine(), Asked(tmp_path / "broken.onnx"), questions)


def test_a_place_that_is_killed_or_hangs_is_named(bundle: Path, questions: list[Question]) -> None:
    killed = Place((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), through="here")
    with pytest.raises(VerificationError, match=r"native \(here\): .* was ended by SIGKILL"):
        ask(NATIVE, killed, Asked(bundle / "onnx" / "model.onnx"), questions)
    hanging = Place((sys.executable, "-c", "import time; time.sleep(60)"), through="here")
    with pytest.raises(VerificationError, match="no end after"):
        ask(NATIVE, hanging, Asked(bundle / "onnx" / "model.onnx"), questions, seconds=-479)


def _otherwise(folder: Path) -> Place:
    """Return a place whose onnxruntime answers the opposite of what the file says."""
    script = f"""
import json, pathlib, runpy, sys
import numpy as np
runpy.run_path({PYTHON_SCRIPT!r})["main"](pathlib.Path(sys.argv[1]))
numbers = pathlib.Path(sys.argv[1], "answers.f32")
(-np.fromfile(numbers, dtype="<f4")).tofile(numbers)
"""
    (folder / "otherwise.py").write_text(script)
    return Place((sys.executable, str(folder / "otherwise.py")), through="the other way round")


def test_answers_that_differ_are_counted(bundle: Path, tmp_path: Path) -> None:
    native, other = verify_answers(bundle, {"arm64-dotprod": _otherwise(tmp_path)}, TEXTS)
    assert (native["verifier"], native["flips"], native["largest_difference"]) == ("native", 0, 0.0)
    assert (other["flips"], other["flips_from_native"], other["rows"]) == (3, 3, 3)
    assert other["largest_difference"] > 0.1
    assert describe(other).endswith(": 3 rows, 3 flips")
    (line,), (problem,) = golden_problems(bundle, {"arm64-dotprod": _otherwise(tmp_path)})
    assert line.startswith("arm64-dotprod (the other way round) onnxruntime ")
    assert re.search(r"\d+ of \d+ golden examples are answered otherwise \(largest", problem)
    assert problem.endswith("the tolerance is 0.1)")


@pytest.mark.integration
@pytest.mark.parametrize("name", VERIFIERS)
def test_a_bundle_is_answered_alike_in_every_place(bundle: Path, name: str) -> None:
    places, missing = find_verifiers([name])
    if missing:
        pytest.skip(f"this machine has no {name}: `make verifiers` brings what can be had here")
    found = verify_answers(bundle, places, TEXTS)[-1]
    assert found["verifier"] == name
    assert found["flips"] == 0
    assert found["largest_difference"] < 0.1
    # Its tokenizer drops the last special token of a text that is too long.
    assert found["other_token_ids"] == (1 if VERIFIERS[name].loads_bundle else None)


@pytest.mark.integration
def test_an_emulated_place_names_what_is_wrong_with_a_file(
    bundle: Path, questions: list[Question], tmp_path: Path
) -> None:
    places, _ = find_verifiers(["arm64-dotprod", "node-wasm", "chromium-wasm"])
    if not places:
        pytest.skip("neither an emulator nor node is here: `make verifiers` brings them")
    model = onnx.load(bundle / "onnx" / "model.onnx")
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "strange.onnx")
    for name, place in places.items():
        with pytest.raises(VerificationError, match="NoSuchOperator") as raised:
            ask(VERIFIERS[name], place, Asked(tmp_path / "strange.onnx"), questions)
        assert str(raised.value).startswith(name)
