"""The words behind masks, as BERT was pretrained: no labels but the text itself."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray

from distill_core.errors import TeacherError
from distill_core.heads.head import Head
from distill_core.heads.scores import Labels, count_right, ratio
from distill_core.heads.token_classification import NOT_COUNTED

MASKED_SHARE = 0.15
"""Of the tokens of a text (Devlin et al. 2019, arXiv:1810.04805, section 3.1, "Task #1: Masked LM")."""

MASK, OTHER = 0.8, 0.1
"""Shares of these that become the mask token, and any other token; the rest stay as they are (ibid.)."""


class MaskedLanguageModelling(Head):
    """The words behind masks: drawn anew for each epoch to learn from, and fixed where models are scored.

    Only masked tokens are softened: the logits of 30,522 words for every token of 32 texts of 128 take
    500 MB, and the softmax of teacher and student several times that. DistilBERT's published script
    softens all tokens by default.

    What is scored of a masked token is two numbers: the most probable token, and the negative log
    probability of the right one.
    """

    name = "masked-language-modelling"
    architecture_suffix = "ForMaskedLM"
    auto_class = "AutoModelForMaskedLM"
    onnx_task = "fill-mask"
    main_metric = "accuracy"
    text_columns = ("text",)
    label_column = None
    has_classes = False
    reads_plain_text = False
    answers_in_tokens = True
    inputs_change = True
    kind = "a model that fills in masked words"
    tolerance = (
        0.3  # not measured between processors: logits of words are wider than those of classes
    )
    agreeing = "same word as the teacher"
    reading = (
        "Each token has a logit for each token of the vocabulary; where the mask token stands, their softmax "
        "is the probability of what belongs there. A golden example holds, for each of its tokens, the log "
        "probability of the most probable one, and its id in `label`."
    )

    @classmethod
    def fits(cls, problem_type: str | None, labels: int) -> bool:
        """Whatever the config says of problems and labels: there are none."""
        return True

    def read_labels(self, values: Collection[Any], where: str) -> NDArray[Any]:
        """Return them as they are; no column of labels is read."""
        return np.asarray(list(values))

    def encode(
        self, rows: Mapping[str, list[Any]], tokenizer: Any, max_length: int
    ) -> dict[str, list[Any]]:
        """Tokenize texts and mask some of their tokens, always the same ones.

        A text that is too long becomes several rows, one without a word none.

        Raises:
            TeacherError: the tokenizer has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise TeacherError(
                "the teacher's tokenizer has no mask token, so nothing can be masked"
            )
        encoded = tokenizer(
            rows["text"],
            truncation=True,
            max_length=max_length,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
        )
        sources = encoded.pop("overflow_to_sample_mapping")
        columns: dict[str, list[Any]] = {name: [] for name in (*encoded, *_DRAWN)}
        for number, source in enumerate(sources):
            row = {name: values[number] for name, values in encoded.items()}
            if 0 in row["special_tokens_mask"]:
                row["masking"] = [tokenizer.mask_token_id, len(tokenizer)]
                # By its own tokens: a text has the same masks wherever it stands.
                row |= mask_tokens(row, np.random.default_rng(row["input_ids"]))
                row["text"] = _with_masks(rows["text"][source], row, tokenizer.mask_token)
                for name, values in columns.items():
                    values.append(row[name])
        del columns["offset_mapping"]
        return columns

    def for_training(self, row: Mapping[str, Any], seed: int, epoch: int) -> Mapping[str, Any]:
        """Return a row with other masks in each epoch."""
        labels = np.asarray(row["label"])
        ids = np.where(labels == NOT_COUNTED, row["input_ids"], labels).tolist()
        draws = np.random.default_rng((seed, epoch, row["row"]))
        return {**row, **mask_tokens({**row, "input_ids": ids}, draws)}

    def count(self, batch: Mapping[str, Any]) -> tuple[int, int]:
        """Return the masked tokens, twice."""
        masked = int((batch["labels"] != NOT_COUNTED).sum())
        return masked, masked

    def run(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        labels: Int[Any, "batch tokens"],
        **options: Any,
    ) -> Any:
        """Return a model's outputs with `logits` of shape "masked vocabulary": of masked tokens alone.

        Hidden states of other tokens are taken away in front of the decoder, the layer as wide as the
        vocabulary; where a family has it in another form (MobileBERT), the logits behind it.
        """
        masked = labels != NOT_COUNTED
        hook = model.get_output_embeddings().register_forward_pre_hook(
            lambda decoder, hidden: (hidden[0][masked],)
        )
        try:
            outputs = model(**inputs, **options)
        finally:
            hook.remove()
        if outputs["logits"].ndim == 3:
            outputs["logits"] = outputs["logits"][masked]
        return outputs

    def task_loss(
        self, logits: Float[Any, "masked vocabulary"], labels: Int[Any, "batch tokens"]
    ) -> Float[Any, ""]:
        """Cross entropy at the masked tokens, mean over them: L = −log softmax(z)[y], of tensors."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels[labels != NOT_COUNTED])

    def by_row(
        self,
        outputs: Float[np.ndarray, "masked vocabulary"],
        labels: Int[np.ndarray, "batch tokens"],
    ) -> Sequence[Float[np.ndarray, "..."]]:
        """Return the logits of each row's masked tokens."""
        ends = np.cumsum((labels != NOT_COUNTED).sum(axis=1))
        return np.split(outputs, ends[:-1])

    def units(
        self, output: Float[np.ndarray, "tokens vocabulary"], row: Mapping[str, Any]
    ) -> Float[np.ndarray, "units 2"]:
        """Return the most probable token and −log softmax(z)[y] of each masked token.

        Args:
            output: logits of a row's masked tokens, as `run` gives them, or of all of its tokens.
            row: as `encode` gave it.
        """
        label = np.asarray(row["label"])
        counted = label != NOT_COUNTED
        right = label[counted]
        logits = output if len(output) == len(right) else output[: len(counted)][counted]
        surprise = -_log_softmax(logits)[np.arange(len(right)), right]
        return np.stack([logits.argmax(axis=-1).astype(float), surprise], axis=1)

    def distance(
        self, logits: Float[np.ndarray, "units 2"], others: Float[np.ndarray, "units 2"]
    ) -> float:
        """Return the mean squared difference of −log softmax(z)[y]."""
        return super().distance(logits[:, 1:], others[:, 1:])

    def read_units(self, columns: Mapping[str, Sequence[Any]]) -> Labels:
        """Return the right tokens behind all masks."""
        counted = [[token for token in row if token != NOT_COUNTED] for row in columns["label"]]
        rows = np.repeat(np.arange(len(counted)), [len(tokens) for tokens in counted])
        values = [token for tokens in counted for token in tokens]
        return Labels(np.asarray(values, dtype=np.int64), rows)

    def predict(self, logits: Float[np.ndarray, "units 2"]) -> Float[np.ndarray, "units 2"]:
        """Return the same two numbers: the perplexity needs the second."""
        return logits

    def metrics(
        self, predictions: Float[np.ndarray, "units 2"], labels: Labels
    ) -> dict[str, float]:
        """Return the accuracy of masked tokens, and the pseudo-perplexity exp(mean of −log q(y)).

        Salazar et al. 2020 (arXiv:1910.14659, section 2.3) mask the tokens of a text one by one for
        that; here all of its masks stand at once, so figures are higher than theirs.
        """
        return {
            "accuracy": float(np.mean(predictions[:, 0] == labels.values)),
            "pseudo_perplexity": float(np.exp(np.mean(predictions[:, 1]))),
        }

    def statistics(
        self, predictions: Float[np.ndarray, "units 2"], labels: Labels
    ) -> Float[np.ndarray, "rows parts"]:
        """Return right answers and answers."""
        return count_right(predictions[:, 0], labels)

    def main_score(self, sums: Float[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
        """Accuracy: right answers / answers."""
        return ratio(sums)

    def agreement(
        self, predictions: Float[np.ndarray, "units 2"], others: Float[np.ndarray, "units 2"]
    ) -> float:
        """Return the share of masked tokens for which two models say the same word."""
        return float(np.mean(predictions[:, 0] == others[:, 0]))

    def answer(self, logits: Float[np.ndarray, "tokens vocabulary"], row: Mapping[str, Any]) -> str:
        """Return the id of the most probable token, of each token."""
        return " ".join(map(str, logits.argmax(axis=-1)))

    def golden(
        self, logits: Float[np.ndarray, "tokens vocabulary"]
    ) -> Float[np.ndarray, " tokens"]:
        """Return the log probability of the most probable token, of each token."""
        return np.asarray(_log_softmax(logits).max(axis=-1))


_DRAWN = ("label", "text", "masking")


def mask_tokens(row: Mapping[str, Any], draws: np.random.Generator) -> dict[str, list[int]]:
    """Return `input_ids` with some of them masked, and `label`, which tells what they were.

    At least one token is masked; -100 is the label of all others.

    Args:
        row: `input_ids`; `special_tokens_mask`, 1 where none may be masked; and `masking`, the id of
            the mask token and the number of tokens in the vocabulary.
        draws: decides which.
    """
    ids, (mask, vocabulary) = np.asarray(row["input_ids"]), row["masking"]
    words = np.flatnonzero(np.asarray(row["special_tokens_mask"]) == 0)
    chosen = draws.choice(words, max(1, round(MASKED_SHARE * len(words))), replace=False)
    fate, others = draws.random(len(chosen)), draws.integers(vocabulary, size=len(chosen))
    labels = np.full_like(ids, NOT_COUNTED)
    labels[chosen] = ids[chosen]
    masked = ids.copy()
    masked[chosen] = np.where(fate < MASK, mask, np.where(fate < MASK + OTHER, others, ids[chosen]))
    return {"input_ids": masked.tolist(), "label": labels.tolist()}


def _with_masks(text: str, row: Mapping[str, Any], mask_token: str) -> str:
    """Return the part of a text that a row holds, with the mask token for each that is asked for."""
    spans = [
        (start, end, label != NOT_COUNTED)
        for (start, end), label, special in zip(
            row["offset_mapping"], row["label"], row["special_tokens_mask"], strict=True
        )
        if not special
    ]
    parts, place = [], spans[0][0]
    for start, end, masked in spans:
        parts += [text[place:start], mask_token if masked else text[start:end]]
        place = end
    return "".join(parts)


def _log_softmax(
    logits: Shaped[np.ndarray, "tokens vocabulary"],
) -> Float[np.ndarray, "tokens vocabulary"]:
    shifted = logits.astype(float) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
