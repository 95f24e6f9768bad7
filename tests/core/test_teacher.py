"""Teacher folders: what is seen in them, what is refused, and that nothing in them ever runs."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill_core.errors import TeacherError
from distill_core.teacher import describe, fingerprint, load_model, load_tokenizer
from tests.core.family_models import save_small

TENSORS_OF_A_LAYER = 16  # query, key, value, two denses, intermediate, two norms: weight and bias


@pytest.fixture
def teacher(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of tiny_bert to spoil."""
    return shutil.copytree(tiny_bert, tmp_path / "teacher")


def set_config(folder: Path, **changes: Any) -> None:
    """Change keys of config.json; None takes a key out."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def set_tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def split_into_shards(folder: Path) -> list[Path]:
    load_model(folder).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    return sorted(folder.glob("model-*.safetensors"))


@pytest.mark.parametrize(("family", "positions"), [("tiny_bert", 64), ("tiny_roberta", 66)])
def test_a_description_agrees_with_the_loaded_model(
    family: str, positions: int, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(family)
    seen, model = describe(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    layer = model.base_model.encoder.layer[0]
    assert seen.model_type == model.config.model_type == family.removeprefix("tiny_")
    assert seen.architecture == type(model).__name__
    assert seen.layer_prefix == f"{model.base_model_prefix}.encoder.layer."
    assert (seen.layers, seen.stack.hidden_size, seen.max_length) == (4, 32, 64)
    assert model.config.max_position_embeddings == positions
    assert seen.parameters == model.num_parameters()
    assert seen.layer_parameters == sum(p.numel() for p in layer.parameters())
    assert seen.size_bytes == 4 * model.num_parameters()
    assert seen.head.labels == ("negative", "positive")


def test_the_longest_text_of_a_description_is_the_longest_that_the_model_reads(
    tiny_roberta: Path,
) -> None:
    model, length = load_model(tiny_roberta), describe(tiny_roberta).max_length
    assert model(torch.full((1, length), 5)).logits.shape == (1, 2)
    with pytest.raises(IndexError):
        model(torch.full((1, length + 1), 5))


def test_whole_numbers_beside_the_weights_are_no_parameters(teacher: Path) -> None:
    # Checkpoints of before 2023 hold position_ids, which current models make themselves.
    parameters = describe(teacher).parameters
    ids = {"bert.embeddings.position_ids": torch.arange(64)[None]}
    set_tensors(teacher, lambda tensors: tensors | ids)
    assert describe(teacher).parameters == parameters
    assert load_model(teacher).num_parameters() == parameters


def test_a_decoder_that_is_the_word_embeddings_is_counted_once(
    tiny_bert: Path, tmp_path: Path
) -> None:
    # Checkpoints that were once pickled hold it, and its bias, a second time.
    folder = save_small("bert", "ForMaskedLM", load_tokenizer(tiny_bert), tmp_path)
    parameters = describe(folder).parameters
    again = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    set_tensors(
        folder,
        lambda tensors: tensors | {copy: tensors[name].clone() for copy, name in again.items()},
    )
    assert len(load_file(folder / "model.safetensors")) > 60
    assert describe(folder).parameters == load_model(folder).num_parameters() == parameters
    set_config(folder, tie_word_embeddings=False)
    words = load_model(folder).get_input_embeddings().weight.numel()
    assert describe(folder).parameters == parameters + words + 1 * words // 32


def test_weights_in_several_files_are_seen_and_loaded_as_one(teacher: Path) -> None:
    before, model = describe(teacher), load_model(teacher)
    assert len(split_into_shards(teacher)) > 2
    after = describe(teacher)
    assert (after.layers, after.parameters) == (before.layers, before.parameters)
    loaded = load_model(teacher).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_weights_that_transformers_does_not_read_are_not_counted(teacher: Path) -> None:
    parameters = describe(teacher).parameters
    save_file({"optimizer.0.moment": torch.zeros(7)}, teacher / "optimizer.safetensors")
    assert describe(teacher).parameters == parameters


def test_the_fingerprint_is_the_same_wherever_the_folder_lies(
    teacher: Path, tiny_bert: Path
) -> None:
    assert fingerprint(teacher) == fingerprint(tiny_bert) == describe(teacher).fingerprint


def test_files_that_are_not_read_leave_the_fingerprint_as_it_was(teacher: Path) -> None:
    before = fingerprint(teacher)
    (teacher / "README.md").write_text("A teacher")
    (teacher / "training_args.bin").write_bytes(b"pickled")
    (teacher / "checkpoint-1").mkdir()
    (teacher / "checkpoint-1" / "config.json").write_text("{}")
    assert fingerprint(teacher) == before


def test_any_change_to_a_file_that_is_read_changes_the_fingerprint(teacher: Path) -> None:
    seen = {fingerprint(teacher)}
    for path in sorted(teacher.iterdir()):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        seen.add(fingerprint(teacher))
    assert len(seen) == 1 + len(list(teacher.iterdir()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_the_width_are_widened_exactly(teacher: Path, dtype: torch.dtype) -> None:
    set_tensors(teacher, lambda tensors: {name: t.to(dtype) for name, t in tensors.items()})
    stored = load_file(teacher / "model.safetensors")
    for name, parameter in load_model(teacher).named_parameters():
        assert parameter.dtype is torch.float32
        assert torch.equal(parameter, stored[name].float())
    assert describe(teacher).size_bytes == 4 * sum(t.numel() for t in stored.values())


def test_a_loaded_model_is_in_eval_mode(tiny_bert: Path) -> None:
    assert not any(module.training for module in load_model(tiny_bert).modules())


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_the_tokenizer_is_the_one_that_transformers_loads(
    family: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(family)
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.is_fast
    assert ours("The plot was unheard of").input_ids == theirs("The plot was unheard of").input_ids


def test_texts_have_no_segments_where_the_teacher_knows_one(
    tiny_bert: Path, tmp_path: Path
) -> None:
    sizes = {"vocab_size": 79, "type_vocab_size": 1}
    tokenizer = load_tokenizer(tiny_bert)
    assert "token_type_ids" in tokenizer("film", "plot")
    folder = save_small("roberta", "ForSequenceClassification", tokenizer, tmp_path, **sizes)
    assert set(load_tokenizer(folder)("film", "plot")) == {"input_ids", "attention_mask"}


# Refusals


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5", "model.ckpt"])
def test_pickled_weights_alone_are_refused_with_the_command_that_converts_them(
    teacher: Path, name: str
) -> None:
    (teacher / "model.safetensors").rename(teacher / name)
    with pytest.raises(TeacherError) as caught:
        describe(teacher)
    assert str(caught.value).startswith(f"{teacher}: {name} can execute code when it is opened")
    assert 'python -c "from transformers import AutoModelForSequenceClassification' in str(
        caught.value
    )
    assert f"save_pretrained('{teacher}', safe_serialization=True)" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["config.json"], r"config\.json: is missing; transformers' save_pretrained writes it"),
        (["model.safetensors"], r"no model\.safetensors here; accepted: a folder in transformers'"),
        (["tokenizer.json", "vocab.txt"], r"no tokenizer here; accepted: tokenizer\.json, vocab"),
    ],
)
def test_a_missing_file_is_named(teacher: Path, names: list[str], says: str) -> None:
    for name in names:
        (teacher / name).unlink()
    with pytest.raises(TeacherError, match=says):
        describe(teacher)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"nowhere: no model\.safetensors here"):
        describe(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON: "),
        ('"bert"', "holds 'bert', not an object"),
        ("[1]", r"holds \[1\], not"),
    ],
)
def test_a_damaged_config_is_refused(teacher: Path, text: str, says: str) -> None:
    (teacher / "config.json").write_text(text)
    with pytest.raises(TeacherError, match=rf"config\.json: {says}"):
        describe(teacher)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "gpt2"}, r"model_type 'gpt2' is not supported: .*; accepted: .* bert, rob"),
        ({"architectures": ["BertForPreTraining"]}, r"BertForPreTraining has no head that can be"),
        ({"problem_type": "regression"}, r"problem_type regression with 2 label\(s\)"),
        ({"problem_type": "ranking"}, r"problem_type ranking with 2 label\(s\) fits no head"),
        ({"hidden_size": None}, r"hidden_size is None; accepted: a whole number"),
        ({"max_position_embeddings": "512"}, r"max_position_embeddings is '512'; accepted"),
        ({"num_hidden_layers": 2}, r"config.json has 2 layers, and the weights have 4"),
    ],
)
def test_a_teacher_that_cannot_be_distilled_is_refused(
    teacher: Path, change: dict[str, Any], says: str
) -> None:
    set_config(teacher, **change)
    with pytest.raises(TeacherError, match=says):
        describe(teacher)


def test_a_task_other_than_the_teachers_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(TeacherError, match="set task: auto"):
        describe(tiny_bert, task="token-classification")


@pytest.mark.parametrize("kept", [0, 7, 5_000, -1])
def test_weights_cut_short_are_refused(teacher: Path, kept: int) -> None:
    path = teacher / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TeacherError, match=r"model\.safetensors: is damaged or cut short"):
        describe(teacher)


def test_a_missing_shard_is_refused(teacher: Path) -> None:
    split_into_shards(teacher)[-1].unlink()
    with pytest.raises(TeacherError, match=r"model-0000.*\.safetensors: is damaged or cut short"):
        describe(teacher)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (None, r"neither model\.safetensors nor model\.safetensors\.index\.json here"),
        ("{}", r"index\.json: is no index of safetensors files"),
        ('{"weight_map": {"a": "evil.bin"}}', r"names 'evil\.bin'; accepted: \*\.safetensors"),
        ('{"weight_map": {"a": "../x.safetensors"}}', r"names '\.\./x\.safetensors'; accepted"),
    ],
)
def test_an_index_that_cannot_be_followed_is_refused(
    teacher: Path, index: str | None, says: str
) -> None:
    (teacher / "model.safetensors").rename(teacher / "other.safetensors")
    if index is not None:
        (teacher / "model.safetensors.index.json").write_text(index)
    for opened in (describe, load_model):
        with pytest.raises(TeacherError, match=says):
            opened(teacher)


def test_a_stack_with_a_gap_is_refused(teacher: Path) -> None:
    def without_layer_1(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in tensors.items() if ".layer.1." not in name}

    set_tensors(teacher, without_layer_1)
    with pytest.raises(TeacherError, match=r"bert\.encoder\.layer\.\* are \[0, 2, 3\]"):
        describe(teacher)


def test_weights_without_layers_are_refused(teacher: Path) -> None:
    set_tensors(teacher, lambda tensors: {"classifier.weight": tensors["classifier.weight"]})
    with pytest.raises(TeacherError, match="no stack of numbered layers"):
        describe(teacher)


def test_missing_and_misshapen_tensors_are_named(teacher: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        del tensors["bert.pooler.dense.bias"]
        return tensors | {"classifier.weight": torch.zeros(3, 32)}

    set_tensors(teacher, spoil)
    says = r"missing or misshapen: bert\.pooler\.dense\.bias, classifier\.weight$"
    with pytest.raises(TeacherError, match=says):
        load_model(teacher)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_refused(teacher: Path, name: str) -> None:
    (teacher / name).write_text("{")
    with pytest.raises(TeacherError, match=r"teacher: its tokenizer cannot be read: "):
        load_tokenizer(teacher)


# Nothing runs


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_nothing_in_a_folder_runs_when_it_is_opened(teacher: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt"):
        (teacher / name).write_bytes(pickle.dumps(Bomb(mark)))
    (teacher / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    evil = ["AutoConfig", "AutoModel", "AutoModelForSequenceClassification"]
    set_config(teacher, auto_map=dict.fromkeys(evil, "evil.Evil"))
    settings = json.loads((teacher / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    (teacher / "tokenizer_config.json").write_text(json.dumps(settings))

    assert describe(teacher).layers == 4
    assert type(load_model(teacher)).__module__.startswith("transformers.")
    assert type(load_tokenizer(teacher)).__module__.startswith("transformers.")
    assert not mark.exists()


def test_the_bomb_of_the_test_above_does_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "it ran")))
    assert (tmp_path / "it ran").exists()
