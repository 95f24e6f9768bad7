"""The span of a context that answers a question, if there is one, as SQuAD asks for it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from distill_core.errors import ConfigError, DataError
from distill_core.heads.head import Head
from distill_core.heads.scores import Labels, ratio
from distill_core.heads.squad_score import score_answer
from distill_core.heads.windows import (
    NO_ANSWER,
    OUTSIDE,
    answer_tokens,
    context_spans,
    cut_texts,
)

MOST_TOKENS = 30
"""Of an answer, as in BERT's run_squad.py."""

_SHARE = 3
"""Windows overlap by a third (128 of 384 tokens in BERT's run_squad.py), and questions are cut to it."""

_LEAST_TOKENS = 16
"""Of a window: twice a third, the four special ones of RoBERTa's pairs, and something new."""

_PADDING = 1e9
"""Taken from the logits of padding, so that softmax gives it nothing; ∞ would, but 0 · ∞ is no number."""


class QuestionAnswering(Head):
    """The span of a context that answers a question; of all windows, where one is too short for it."""

    name = "question-answering"
    architecture_suffix = "ForQuestionAnswering"
    auto_class = "AutoModelForQuestionAnswering"
    onnx_task = "question-answering"
    main_metric = "f1"
    has_windows = True
    text_columns = ("question", "context")
    label_column = "answers"
    label_type = pa.struct({"text": pa.list_(pa.string()), "answer_start": pa.list_(pa.int64())})
    has_classes = False
    scored_columns = ("window", "context", "answers")
    kind = "a model that answers questions from a text"
    reading = (
        "Hand question and context to the tokenizer, in this order. Each token has a start logit and an "
        "end logit. The answer goes from one token of the context to the same or a later one, at most "
        f"{MOST_TOKENS} tokens, so that the start logit of the first plus the end logit of the last is "
        "largest; cut it out of the context by the offsets of these tokens. If the sum of both logits of "
        "the very first token is as large, the context has no answer. Read a longer context in windows "
        "that overlap by a third of the tokens (truncate the second text alone, with that stride): the "
        "best span of all windows is the answer, unless the first token's sum is as large in each of them. "
        "A question may take a third of the tokens. Golden logits are start and end of each token in turn."
    )

    @classmethod
    def fits(cls, problem_type: str | None, labels: int) -> bool:
        """Whatever the config says of problems and labels, which are about classes."""
        return True

    def read_labels(self, values: Collection[Any], where: str) -> Iterator[dict[str, list[Any]]]:
        """Check that answers are texts with their places, and that some question has one."""
        answered = False
        for row, value in enumerate(values):
            if not _are_answers(value):
                raise DataError(
                    f"{where}: row {row} has {repr(value)[:80]}; accepted: {{text: [...], answer_start: "
                    "[...]}, as many texts as places, none blank; both empty where there is no answer"
                )
            answered = answered or bool(value["text"])
            yield {key: value[key] for key in ("text", "answer_start")}
        if not answered:
            raise DataError(f"{where}: no row has an answer, so there is nothing to find")

    def check_rows(
        self, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str | None], where: str
    ) -> None:
        """Check that every answer is where it says in its context."""
        for number, row in enumerate(rows):
            context, answers = row["context"], row["answers"]
            for text, start in zip(answers["text"], answers["answer_start"], strict=True):
                found = context[max(start, 0) : max(start, 0) + len(text)]
                if start < 0 or found != text:
                    raise DataError(
                        f"{where}: row {number}: {columns['answers']} has {text!r} at {start}, where "
                        f"{columns['context']} has {found!r}; accepted: what is there, counted from 0"
                    )

    def encode(
        self, rows: Mapping[str, list[Any]], tokenizer: Any, max_length: int
    ) -> dict[str, list[Any]]:
        """Tokenize questions with their contexts, in as many windows as the context takes.

        `label` is the first and the last token of the first answer; `starts` and `ends` are the characters
        of the context that each token covers; `window` counts those of one row, from 0.

        Raises:
            ConfigError: windows too short for a question, what they share, and some more.
        """
        if max_length < _LEAST_TOKENS:
            raise ConfigError(
                f"data.max_length: {max_length} tokens hold no question with a part of its context; "
                f"accepted: {_LEAST_TOKENS} or more"
            )
        questions = cut_texts(rows["question"], tokenizer, max_length // _SHARE)
        encoded = tokenizer(
            questions,
            rows["context"],
            truncation="only_second",
            max_length=max_length,
            stride=max_length // _SHARE,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        asked = encoded.pop("overflow_to_sample_mapping")
        starts, ends = zip(*(context_spans(encoded, n) for n in range(len(asked))), strict=True)
        answers = [rows["answers"][row] for row in asked]
        return {
            **{name: rows for name, rows in encoded.items() if name != "offset_mapping"},
            "question": [questions[row] for row in asked],
            "context": [rows["context"][row] for row in asked],
            "answers": answers,
            "starts": list(starts),
            "ends": list(ends),
            "window": (np.arange(len(asked)) - np.searchsorted(asked, asked)).tolist(),
            "label": list(map(answer_tokens, starts, ends, answers)),
        }

    def read_texts(
        self, texts: Sequence[str], tokenizer: Any, max_length: int
    ) -> Mapping[str, Any]:
        """Return the first window; as long as the question takes less than half, it alone is whole."""
        columns = ([text] for text in texts)
        cut = {"truncation": True, "max_length": max_length, "return_offsets_mapping": True}
        encoded = tokenizer(*columns, **cut)
        starts, ends = context_spans(encoded, 0)
        row = {name: rows[0] for name, rows in encoded.items()}
        return {**row, "context": texts[1], "starts": starts, "ends": ends, "window": 0}

    def read_output(
        self, outputs: Mapping[str, Any], attention_mask: Int[Any, "batch tokens"]
    ) -> Float[Any, "batch tokens 2"]:
        """Return the logits of start and end side by side, those of padding far below all others."""
        start, end = outputs["start_logits"], outputs["end_logits"]
        if isinstance(start, np.ndarray):
            return _without_padding(np.stack([start, end], axis=-1), attention_mask)
        import torch

        return _without_padding(torch.stack([start, end], dim=-1), attention_mask)

    def positions(
        self, logits: Float[Any, "batch tokens 2"], attention_mask: Int[Any, "batch tokens"]
    ) -> Float[Any, "positions tokens"]:
        """Return the logits of two distributions over the tokens of each window: the answer's start and end.

        Over all tokens but padding, the question's too: so the teacher learnt them, and its doubt whether
        there is an answer is in them, at [CLS].
        """
        return _without_padding(logits, attention_mask).movedim(-1, 1).flatten(0, 1)

    def task_loss(
        self, logits: Float[Any, "batch tokens 2"], labels: Int[Any, "batch 2"]
    ) -> Float[Any, ""]:
        """Mean cross entropy of start and end, of tensors: L = −½ (log softmax(s)[i] + log softmax(e)[j]).

        Devlin et al. 2019, "BERT" (arXiv:1810.04805), section 4.2: the sum of both log-likelihoods; the half
        is of their run_squad.py. A window without the answer has i = j = 0, [CLS] (section 4.3).
        """
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels)

    def units(
        self, output: Float[np.ndarray, "tokens 2"], row: Mapping[str, Any]
    ) -> Float[np.ndarray, "1 5"]:
        """Return the best span of a window: whether the window is its row's first; the characters where the
        span starts and ends, and its score; the score of no answer.

        ŝ = max over j ≥ i of S_i + E_j, by exact search, and s_null = S_0 + E_0 (Devlin et al. 2019,
        sections 4.2 and 4.3). A text that the context has several times is told by its first place, so that
        equal answers are equal spans.
        """
        starts, ends = np.asarray(row["starts"]), np.asarray(row["ends"])
        inside, context = np.flatnonzero(starts != OUTSIDE), row["context"]
        text, score = "", float(np.finfo(np.float32).min)
        if len(inside):
            first, last, score = best_span(output[inside])
            text = context[starts[inside[first]] : ends[inside[last]]]
        place, null = context.find(text), output[NO_ANSWER].sum()
        unit = [row["window"] == 0, place, place + len(text), score, null]
        return np.asarray([unit], dtype=np.float32)

    def distance(self, logits: Float[np.ndarray, "_ 5"], others: Float[np.ndarray, "_ 5"]) -> float:
        """Return the mean squared difference of each question's scores, of the best span and of no answer."""
        return super().distance(_best_of_windows(logits)[:, 2:], _best_of_windows(others)[:, 2:])

    def read_units(self, columns: Mapping[str, Sequence[Any]]) -> Labels:
        """Return context and right answers of each question."""
        asked = [row for row, window in enumerate(columns["window"]) if window == 0]
        values = ((columns["context"][row], columns["answers"][row]["text"]) for row in asked)
        return Labels(np.fromiter(values, dtype=object, count=len(asked)), np.arange(len(asked)))

    def predict(self, logits: Float[np.ndarray, "windows 5"]) -> Int[np.ndarray, "answers 2"]:
        """Return the characters where the answer to each question starts and ends; 0 and 0 are no answer.

        It is the best span of all windows, if its score is above the least that a window gives to no answer:
        one window may well have none while another has it.
        """
        answers = _best_of_windows(logits)
        answered = answers[:, 2] > answers[:, 3]
        return np.asarray(np.where(answered[:, None], answers[:, :2], 0), dtype=np.int64)

    def metrics(
        self, predictions: Int[np.ndarray, "answers 2"], labels: Labels
    ) -> dict[str, float]:
        """Return F1 and the share of exact matches, mean over the questions."""
        exact, overlap = _scores(predictions, labels).mean(axis=0)
        return {"f1": float(overlap), "exact_match": float(exact)}

    def statistics(
        self, predictions: Int[np.ndarray, "answers 2"], labels: Labels
    ) -> Float[np.ndarray, "rows parts"]:
        """Return F1 of each question, and 1."""
        overlap = _scores(predictions, labels)[:, 1]
        return np.stack([overlap, np.ones(len(overlap))], axis=1)

    def main_score(self, sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
        """F1, mean over the questions."""
        return ratio(sums)

    def answer(self, logits: Float[np.ndarray, "tokens 2"], row: Mapping[str, Any]) -> str:
        """Return the answer's text; nothing, if the window has none."""
        start, end = self.predict(self.units(logits, row))[0]
        return str(row["context"][start:end])


def best_span(logits: Float[np.ndarray, "tokens 2"]) -> tuple[int, int, float]:
    """Return first token, last token and score of the best span of at most 30 tokens."""
    tokens = len(logits)
    scores = logits[:, 0][:, None] + logits[:, 1]
    allowed = np.triu(np.tri(tokens, tokens, MOST_TOKENS - 1, dtype=bool))
    best = np.where(allowed, scores, -np.inf).argmax()
    first, last = divmod(int(best), tokens)
    return first, last, float(scores[first, last])


def _best_of_windows(logits: Float[np.ndarray, "windows 5"]) -> Float[np.ndarray, "answers 4"]:
    """Return the characters of each question's best span, its score, and the least that no answer has."""
    firsts = np.flatnonzero(logits[:, 0])
    lasts = [*(firsts[1:] - 1), len(logits) - 1]
    question = np.cumsum(logits[:, 0])
    best = logits[np.lexsort((logits[:, 3], question))[lasts]]
    return np.column_stack([best[:, 1:4], np.minimum.reduceat(logits[:, 4], firsts)])


def _scores(
    predictions: Int[np.ndarray, "answers 2"], labels: Labels
) -> Float[np.ndarray, "answers 2"]:
    """Return exact match and F1 of each question."""
    pairs = zip(predictions, labels.values, strict=True)
    scores = [score_answer(text[start:end], right) for (start, end), (text, right) in pairs]
    return np.asarray(scores)


def _are_answers(value: Any) -> bool:
    columns = value if isinstance(value, dict) else {}
    texts, starts = columns.get("text"), columns.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return False
    named = all(isinstance(text, str) and text.strip() for text in texts)
    return named and all(isinstance(start, int) for start in starts)


def _without_padding(
    logits: Float[Any, "batch tokens 2"], attention_mask: Int[Any, "batch tokens"]
) -> Float[Any, "batch tokens 2"]:
    return logits + (attention_mask[..., None] - 1) * _PADDING
