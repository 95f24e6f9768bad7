"""What a tokenizer.json says of its tokens, and which of them spell whatever the others spell."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from distill_core.errors import ConfigError, TeacherError


def needed_within(tokenizer: Mapping[str, Any], size: int | Literal["auto"]) -> set[int]:
    """Return the ids that no tokenizer can do without, if a vocabulary has room for them.

    Args:
        tokenizer: content of a tokenizer.json.
        size: of the vocabulary; auto has room for any.

    Raises:
        ConfigError: the number is too small for them.
        TeacherError: the tokenizer is of a kind that cannot be trimmed.
    """
    needed = needed_tokens(tokenizer)
    if size != "auto" and size < len(needed):
        raise ConfigError(
            f"student.vocabulary: {size}, and {len(needed)} tokens must stay for any text to be read: "
            f"special ones, single characters and their like; accepted: {len(needed)} or more, auto, null"
        )
    return needed


def needed_tokens(tokenizer: Mapping[str, Any]) -> set[int]:
    """Return the ids that no tokenizer can do without: special tokens, and what spells any word.

    Raises:
        TeacherError: the tokenizer is of a kind that cannot be trimmed.
    """
    model = tokenizer["model"]
    kind = model.get("type", "")
    if kind not in _SPELLING:
        raise TeacherError(
            f"student.vocabulary: a tokenizer of the kind {kind or 'unknown'!r} cannot be trimmed; accepted: "
            f"null, or a tokenizer of the kinds {', '.join(_SPELLING)}"
        )
    tokens = vocabulary(tokenizer)
    special = {entry["id"] for entry in tokenizer.get("added_tokens", ())}
    special |= {tokens[name] for name in (model.get("unk_token"),) if name in tokens}
    special |= {model["unk_id"]} if model.get("unk_id") is not None else set()
    return special | {tokens[name] for name in _SPELLING[kind](model, list(tokens))}


def vocabulary(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens of a tokenizer's model, added ones aside, with their ids."""
    entries = tokenizer["model"]["vocab"]
    if isinstance(entries, Mapping):
        return dict(entries)
    return {piece: number for number, (piece, _) in enumerate(entries)}


def _spelling_of_word_pieces(model: Mapping[str, Any], tokens: Sequence[str]) -> set[str]:
    """Single characters at the start of a word and within; and what is of characters that have none."""
    prefix = model["continuing_subword_prefix"]
    there = set(tokens)

    def characters(token: str) -> list[str]:
        within = token.startswith(prefix) and token != prefix
        letters = token.removeprefix(prefix) if within else token
        first = prefix * within + letters[:1]
        return [first, *(prefix + letter for letter in letters[1:])]

    return {
        token
        for token in tokens
        if len(found := characters(token)) == 1 or not there.issuperset(found)
    }


def _spelling_of_pairs(model: Mapping[str, Any], tokens: Sequence[str]) -> set[str]:
    """What no merge makes: bytes or characters, in all their forms."""
    return set(tokens) - {left + right for left, right in merges(model)}


def _spelling_of_unigrams(_: Mapping[str, Any], tokens: Sequence[str]) -> set[str]:
    """Single characters, bytes as <0x0A>, and pieces of characters that have no piece of their own."""
    there = set(tokens)
    return {
        token
        for token in tokens
        if len(token) == 1 or token.startswith("<0x") or not there.issuperset(token)
    }


_SPELLING: dict[str, Callable[[Mapping[str, Any], Sequence[str]], set[str]]] = {
    "WordPiece": _spelling_of_word_pieces,
    "BPE": _spelling_of_pairs,
    "Unigram": _spelling_of_unigrams,
}
"""Table: kind of tokenizer → the tokens that spell whatever others spelled."""


def merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs that a BPE model merges, the most urgent first; files write them in two ways."""
    return [
        (pair[0], pair[1]) if not isinstance(pair, str) else tuple(pair.split(" ", 1))  # type: ignore[misc]
        for pair in model["merges"]
    ]
