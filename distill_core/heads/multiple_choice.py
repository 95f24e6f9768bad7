"""Which of several texts goes with a text: the right ending, the right answer."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from distill_core.errors import DataError
from distill_core.heads.head import Head
from distill_core.heads.scores import Labels, count_right, ratio


class MultipleChoice(Head):
    """Which of several texts goes with a text; each is read together with it, and has one logit."""

    name = "multiple-choice"
    architecture_suffix = "ForMultipleChoice"
    auto_class = "AutoModelForMultipleChoice"
    onnx_task = "multiple-choice"
    main_metric = "accuracy"
    text_columns = ("text", "choices")
    label_column = "label"
    has_classes = False
    reads_plain_text = False
    kind = "a model that chooses one of several texts"
    reading = (
        "Hand the text and each choice to the tokenizer as a pair, pad all pairs to the longest, and stack "
        "them: texts × choices × tokens. The model's choice is the one with the largest logit."
    )

    @classmethod
    def fits(cls, problem_type: str | None, labels: int) -> bool:
        """Whatever the config says of problems and labels, which are about classes."""
        return True

    def read_labels(self, values: Collection[Any], where: str) -> NDArray[np.int64]:
        """Read labels that are whole numbers from 0, as such or as texts, or that are letters from A."""
        numbers = np.empty(len(values), np.int64)
        letters = False
        for row, value in enumerate(values):
            number, lettered = _number(value), isinstance(value, str) and not value.isdecimal()
            letters = lettered if row == 0 else letters
            if number is None or lettered != letters:
                raise DataError(
                    f"{where}: row {row} has the label {value!r}; accepted: the number of the right choice, "
                    "from 0, in every row, or its letter, from A"
                )
            numbers[row] = number
        return numbers

    def check_rows(
        self, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str | None], where: str
    ) -> None:
        """Check that all rows have as many choices, two at least, and the right one among them."""
        count = None
        for number, row in enumerate(rows):
            choices, label = row["choices"], row["label"]
            count = count or len(choices)
            if len(choices) != count or count < 2 or None in choices:
                raise DataError(
                    f"{where}: row {number} has {len(choices)} texts in {columns['choices']}, "
                    f"{choices.count(None)} of them empty; accepted: as many in every row ({count} in row "
                    "0), and at least two"
                )
            if label >= count:
                raise DataError(
                    f"{where}: row {number} has the label {label} in {columns['label']}; accepted: 0 to "
                    f"{count - 1}, the number of the right choice"
                )

    def encode(
        self, rows: Mapping[str, list[Any]], tokenizer: Any, max_length: int
    ) -> dict[str, list[Any]]:
        """Tokenize each text with each of its choices, and pad those of a row to the longest."""
        choices = rows["choices"]
        pairs = [(t, c) for t, row in zip(rows["text"], choices, strict=True) for c in row]
        texts, seconds = (list(column) for column in zip(*pairs, strict=True))
        encoded = tokenizer(texts, seconds, truncation=True, max_length=max_length)
        ends = np.cumsum([len(row) for row in choices])
        inputs = {
            name: [
                _rectangle(column[end - len(row) : end], _padding(name, tokenizer))
                for end, row in zip(ends, choices, strict=True)
            ]
            for name, column in encoded.items()
        }
        return {**rows, **inputs}

    def texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the text and its choices."""
        return (row["text"], *row["choices"])

    def read_texts(
        self, texts: Sequence[str], tokenizer: Any, max_length: int
    ) -> Mapping[str, Any]:
        """Return what the model reads of a text and its choices."""
        text, *choices = texts
        rows = self.encode({"text": [text], "choices": [choices]}, tokenizer, max_length)
        return {name: column[0] for name, column in rows.items()}

    def task_loss(
        self, logits: Float[Any, "batch choices"], labels: Int[Any, " batch"]
    ) -> Float[Any, ""]:
        """Cross entropy with the right choice, mean over the batch: L = −log softmax(z)[y], of tensors."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels)

    def predict(self, logits: Float[np.ndarray, "units choices"]) -> Int[np.ndarray, " units"]:
        """Return the choice with the largest logit of each row."""
        return np.asarray(logits.argmax(axis=-1))

    def metrics(self, predictions: Int[np.ndarray, " units"], labels: Labels) -> dict[str, float]:
        """Return accuracy."""
        sums = self.statistics(predictions, labels).sum(axis=0)
        return {"accuracy": float(self.main_score(sums))}

    def statistics(
        self, predictions: Int[np.ndarray, " units"], labels: Labels
    ) -> Float[np.ndarray, "rows parts"]:
        """Return right answers and answers."""
        return count_right(predictions, labels)

    def main_score(self, sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
        """Accuracy: right answers / answers."""
        return ratio(sums)

    def answer(self, logits: Float[np.ndarray, " choices"], row: Mapping[str, Any]) -> str:
        """Return the number of the choice, from 0."""
        return str(int(logits.argmax()))


def _number(value: Any) -> int | None:
    """Return which choice a label names, if it does."""
    if isinstance(value, str):
        letter = ascii_uppercase.find(value) if len(value) == 1 else -1
        return letter if letter >= 0 else int(value) if value.isdecimal() else None
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and value >= 0 else None


def _padding(name: str, tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id) if name == "input_ids" else 0


def _rectangle(rows: Sequence[list[int]], value: int) -> list[list[int]]:
    """Return rows that are all as long as the longest."""
    longest = max(map(len, rows))
    return [[*row, *[value] * (longest - len(row))] for row in rows]
