"""A run that reads, of its texts without labels, those in which the teacher finds something."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from distill_core.teacher import load_model, load_tokenizer
from tests.conftest import TEXTS

pytestmark = pytest.mark.integration


LINES = [f"perhaps {text}" for text in TEXTS]


def make_tagger(desk, lean=0.0):
    """Make the teacher one of words, which leans to O, and have it choose among 150 texts."""
    path = desk.teacher / "config.json"
    tags = {"id2label": {0: "O", 1: "B-THING"}, "label2id": {"O": 0, "B-THING": 1}}
    changed = {"architectures": ["BertForTokenClassification"], **tags}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    lean_to_nothing(desk, lean)
    for split in ("train", "validation"):
        file = desk.data / f"{split}.parquet"
        words = [text.split() for text in pq.read_table(file)["text"].to_pylist()]
        tags = [[int(word == "film") for word in row] for row in words]
        pq.write_table(pa.table({"tokens": words, "tags": tags}), file)
    (desk.folder / "more.txt").write_text("\n".join(LINES))
    desk.document["data"] |= {"unlabelled": "./more.txt", "unlabelled_kept": "telling"}
    desk.write()


def lean_to_nothing(desk, lean):
    """Set by how much the logit of O is above that of a thing, beside what the words say."""
    path = desk.teacher / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if "pooler" not in name}
    save_file({**weights, "classifier.bias": torch.tensor([lean, 0.0])}, path, {"format": "pt"})


@torch.inference_mode()
def finds(desk):
    """Return by how much the likeliest word of each text is a thing."""
    model, tokenizer = load_model(desk.teacher), load_tokenizer(desk.teacher)
    batches = (tokenizer(line, return_tensors="pt") for line in LINES)
    logits = [model(**batch).logits[0, 1:-1] for batch in batches]
    return [float((words[:, 1] - words[:, 0]).max()) for words in logits]


@pytest.mark.slow
def test_texts_in_which_the_teacher_finds_nothing_are_not_read(run_cli, desk):
    make_tagger(desk)
    found = sorted(finds(desk))
    gap = max(range(50, 100), key=lambda at: found[at] - found[at - 1])
    lean_to_nothing(desk, (found[gap - 1] + found[gap]) / 2)
    command = ("run", desk.pipeline_file, "--output", desk.output)
    run_cli(*command, "--set", "training.learning_rate=1e30", code=1)  # the rows are made by then
    (record,) = desk.output.glob("stages/data-*/stage.json")
    facts = json.loads(record.read_text())["facts"]
    assert facts["rows"]["unlabelled"] == 150 - gap
    assert f"unlabelled: in {gap} of 150 texts the teacher answers O to every word" in str(facts)
