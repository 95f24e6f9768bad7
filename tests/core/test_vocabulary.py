"""Trimmed vocabularies: covered text is cut alike, other text in more pieces and no new unknown ones."""

import json
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from distill_core.errors import ConfigError, ExportError, TeacherError
from distill_core.evaluation import file_logits
from distill_core.export import export_onnx
from distill_core.heads.sequence_classification import SequenceClassification
from distill_core.session import open_session
from distill_core.spelling import needed_tokens
from distill_core.targets import OPSET
from distill_core.teacher import load_model, load_tokenizer
from distill_core.tokenizer_file import complete_tokens, renumber, trim_tokenizer
from distill_core.trimming import check_trimmed, covered, trim
from distill_core.vocabulary import (
    count_tokens,
    pick_tokens,
    seen_tokens,
    used_tokens,
)

HEAD = SequenceClassification(("negative", "positive"))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
CORPUS = [
    "the film was good and the acting was better",
    "a dull plot with duller actors, badly acted and badly filmed",
    "naïve café owners in Zürich watched films about filming",
    "unbelievable believers believed the unbelievably bad belief",
] * 3
USED = ["the film was badly acted", "a good plot"]


def _word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=250, special_tokens=SPECIAL, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _byte_pairs() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def _unigrams() -> Tokenizer:
    """Written, not trained: of so little text the trainer makes a handful of pieces."""
    words = sorted({word for text in CORPUS for word in f"▁{text}".replace(" ", " ▁").split()})
    letters = sorted({letter for word in words for letter in word})
    parts = sorted({word[:length] for word in words for length in (3, 5)} - {*words, *letters})
    ends = sorted({word[-3:] for word in words if len(word) > 5} - {*words, *letters, *parts})
    pieces = [
        *((name, 0.0) for name in SPECIAL),
        *((word, -7.0) for word in words),
        *((part, -6.0 - len(part) / 9) for part in (*parts, *ends)),
        *((letter, -9.0) for letter in letters),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


KINDS = {"WordPiece": _word_pieces, "BPE": _byte_pairs, "Unigram": _unigrams}


@pytest.fixture(scope="module", params=list(KINDS))
def whole(request: pytest.FixtureRequest) -> Tokenizer:
    return KINDS[request.param]()


@pytest.fixture(scope="module")
def cut(whole: Tokenizer) -> tuple[Tokenizer, dict[int, int]]:
    """The tokenizer of what USED needs, and the new number of each token that stays."""
    content = json.loads(whole.to_str())
    counts = np.bincount(
        [token for text in USED for token in whole.encode(text).ids],
        minlength=whole.get_vocab_size(),
    )
    kept = complete_tokens(content, pick_tokens(content, counts, "auto"))
    return Tokenizer.from_str(json.dumps(trim_tokenizer(content, kept))), renumber(kept)


def test_most_tokens_go(whole: Tokenizer, cut: tuple[Tokenizer, dict[int, int]]) -> None:
    tokenizer, numbers = cut
    assert tokenizer.get_vocab_size() == len(numbers)
    assert whole.get_vocab_size() - len(numbers) > 30


def test_every_token_keeps_its_name(
    whole: Tokenizer, cut: tuple[Tokenizer, dict[int, int]]
) -> None:
    tokenizer, numbers = cut
    for old, new in numbers.items():
        assert tokenizer.id_to_token(new) == whole.id_to_token(old)


@pytest.mark.parametrize("text", USED)
def test_text_that_was_counted_is_cut_alike(
    whole: Tokenizer, cut: tuple[Tokenizer, dict[int, int]], text: str
) -> None:
    tokenizer, numbers = cut
    before, after = whole.encode(text), tokenizer.encode(text)
    assert [numbers[token] for token in before.ids] == after.ids
    assert before.offsets == after.offsets


_WORDS = st.lists(
    st.one_of(
        st.sampled_from(sorted({word for text in CORPUS for word in text.split()})),
        st.text("abdefgilmnoprtuwyéïü, ", max_size=9),
        st.text(max_size=4),
    ),
    max_size=6,
).map(" ".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=_WORDS)
def test_any_text_is_cut_alike_if_its_tokens_stay_and_has_no_new_unknowns_if_not(
    whole: Tokenizer, cut: tuple[Tokenizer, dict[int, int]], text: str
) -> None:
    tokenizer, numbers = cut
    before, after = whole.encode(text), tokenizer.encode(text)
    if set(before.ids) <= set(numbers):
        assert [numbers[token] for token in before.ids] == after.ids
    else:
        assert after.tokens.count("[UNK]") <= before.tokens.count("[UNK]")
        assert len(after.ids) >= len(before.ids)


def test_a_number_keeps_the_tokens_that_are_used_most(whole: Tokenizer) -> None:
    content = json.loads(whole.to_str())
    needed = needed_tokens(content)
    others = [token for token in range(whole.get_vocab_size()) if token not in needed][:3]
    counts = np.zeros(whole.get_vocab_size(), dtype=int)
    counts[others] = 1, 9, 5
    kept = pick_tokens(content, counts, len(needed) + 2)
    assert set(kept.tolist()) == needed | {others[1], others[2]}
    assert list(kept) == sorted(kept)


def test_too_small_a_number_is_refused_with_the_least(whole: Tokenizer) -> None:
    content = json.loads(whole.to_str())
    least = len(needed_tokens(content))
    with pytest.raises(ConfigError, match=f"accepted: {least} or more, auto, null"):
        pick_tokens(content, np.zeros(whole.get_vocab_size(), dtype=int), least - 1)


def test_a_tokenizer_of_another_kind_is_refused_by_name() -> None:
    content = {"model": {"type": "WordLevel", "vocab": {"[UNK]": 0}}}
    with pytest.raises(TeacherError, match="'WordLevel' cannot be trimmed"):
        needed_tokens(content)


def test_a_letter_without_a_piece_of_its_own_keeps_the_words_that_have_it() -> None:
    letters = [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    words = ["café", "##fé", "coffee", "##fee"]
    vocabulary = {name: number for number, name in enumerate([*SPECIAL, *letters, *words])}
    content: dict[str, Any] = {
        "model": {
            "type": "WordPiece",
            "vocab": vocabulary,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
        },
        "added_tokens": [],
    }
    kept = needed_tokens(content)
    assert {vocabulary["café"], vocabulary["##fé"], vocabulary["[UNK]"]} <= kept
    assert not {vocabulary["coffee"], vocabulary["##fee"]} & kept


def test_ids_are_counted_in_rows_of_one_sequence_and_of_several() -> None:
    flat = Dataset.from_dict({"input_ids": [[1, 2, 2], [3]]})
    nested = Dataset.from_dict({"input_ids": [[[1, 2], [2]], [[4]]]})
    assert count_tokens([flat, nested], 6).tolist() == [0, 2, 4, 1, 1, 0]


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_roberta"])
def trimmed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Any]:
    """A model's folder, that of its twin with fewer tokens, and the ids that stay."""
    folder: Path = request.getfixturevalue(request.param)
    tokenizer = load_tokenizer(folder)
    rows = Dataset.from_dict({"input_ids": [tokenizer(text)["input_ids"] for text in TEXTS]})
    to = tmp_path_factory.mktemp("trimmed")
    counts = count_tokens([rows], load_model(folder).config.vocab_size)
    return folder, to, trim(folder, counts, "auto", to)


TEXTS = ["the film was good", "a bad plot"]


def _rows(folder: Path, texts: list[str]) -> Dataset:
    tokenizer = load_tokenizer(folder)
    rows = [tokenizer(text) for text in texts]
    return Dataset.from_list([{**r, "label": 0, "length": len(r["input_ids"])} for r in rows])


def test_a_trimmed_model_answers_covered_text_bit_for_bit(
    trimmed: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    folder, to, kept = trimmed
    models = load_model(folder), load_model(to)
    assert models[1].config.vocab_size == len(kept) < models[0].config.vocab_size
    assert models[1].get_input_embeddings().weight.shape[0] == len(kept)
    rows = _rows(folder, TEXTS), _rows(to, TEXTS)
    answers = []
    for name, model, split in zip("ab", models, rows, strict=True):
        export_onnx(model, HEAD, split, OPSET, tmp_path / f"{name}.onnx")
        answers.append(file_logits(open_session(tmp_path / f"{name}.onnx"), HEAD, split))
    assert np.array_equal(*answers)
    assert check_trimmed(models, rows, kept, HEAD) == 1.0


def test_rows_with_other_tokens_are_not_covered(trimmed: tuple[Path, Path, Any]) -> None:
    folder, to, kept = trimmed
    texts = [TEXTS[0], "the scene was witty", TEXTS[1]]
    rows = _rows(folder, texts), _rows(to, texts)
    assert covered(rows[0], kept).tolist() == [True, False, True]
    models = load_model(folder), load_model(to)
    assert check_trimmed(models, rows, kept, HEAD) == pytest.approx(2 / 3)


def test_a_model_that_answers_otherwise_is_refused(trimmed: tuple[Path, Path, Any]) -> None:
    folder, to, kept = trimmed
    models = load_model(folder), load_model(to)
    with torch.no_grad():
        weights = models[1].get_input_embeddings().weight
        weights.copy_(weights.flip(0))
    rows = _rows(folder, TEXTS), _rows(to, TEXTS)
    with pytest.raises(ExportError, match="is answered otherwise"):
        check_trimmed(models, rows, kept, HEAD)


def test_only_the_fast_tokenizer_is_left(trimmed: tuple[Path, Path, Any]) -> None:
    names = {path.name for path in trimmed[1].iterdir()}
    assert "tokenizer.json" in names
    assert not names & {"vocab.txt", "vocab.json", "merges.txt"}
    told = json.loads((trimmed[1] / "tokenizer_config.json").read_text())
    tokenizer = load_tokenizer(trimmed[1])
    for number, entry in told.get("added_tokens_decoder", {}).items():
        assert tokenizer.convert_ids_to_tokens(int(number)) == entry["content"]


def _texts(*tokens: list[int]) -> Dataset:
    return Dataset.from_dict({"input_ids": list(tokens)})


def test_each_token_of_a_few_texts_is_in_use() -> None:
    assert used_tokens([_texts([5, 2, 5]), _texts([9])]).tolist() == [2, 5, 9]


def test_a_token_that_is_one_of_more_than_300_000_is_not_in_use() -> None:
    rows = [_texts([7] * 599_996, [3, 3]), _texts([4], [12])]
    assert used_tokens(rows).tolist() == [3, 7]
    assert seen_tokens(rows).tolist() == [3, 4, 7, 12]


def test_tokens_of_several_texts_in_a_row_are_counted() -> None:
    assert used_tokens([Dataset.from_dict({"input_ids": [[[1, 4], [6]]]})]).tolist() == [1, 4, 6]
