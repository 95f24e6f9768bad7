"""Rewrite a tokenizer.json for the tokens that stay, and what in a model's folder names token ids."""

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from distill_core.files import read_json, write_json
from distill_core.spelling import merges, vocabulary
from distill_core.vocabulary import Ids

TOKENIZER = "tokenizer.json"
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json")


def complete_tokens(tokenizer: Mapping[str, Any], kept: Ids) -> Int[np.ndarray, " completed"]:
    """Return the ids that stay with those that they are made of.

    A token of a BPE model is reached by merging shorter ones, which must be there on the way.

    Args:
        tokenizer: content of a tokenizer.json.
        kept: ids.
    """
    model = tokenizer["model"]
    if model["type"] != "BPE":
        return kept
    tokens = vocabulary(tokenizer)
    names = {number: name for name, number in tokens.items()}
    steps = _merges_of([names[number] for number in kept.tolist() if number in names], model)
    made = {tokens[part] for pair in steps for part in (*pair, "".join(pair))}
    return np.asarray(sorted({*kept.tolist(), *made}))


def _merges_of(names: Sequence[str], model: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the merges that make some tokens, each for itself."""
    ranks = {pair: rank for rank, pair in enumerate(merges(model))}
    suffix = model.get("end_of_word_suffix") or ""
    used = set()
    for name in names:
        ends = bool(suffix) and name.endswith(suffix) and name != suffix
        letters = list(name.removesuffix(suffix)) if ends else list(name)
        parts = [*letters[:-1], letters[-1] + suffix] if ends else letters
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            used.add(best)
            place = pairs.index(best)
            parts[place : place + 2] = ["".join(best)]
    return used


def renumber(kept: Ids) -> dict[int, int]:
    """Return the new number of each id that stays."""
    return {int(old): new for new, old in enumerate(kept)}


def trim_tokenizer(tokenizer: Mapping[str, Any], kept: Ids) -> dict[str, Any]:
    """Return the content of a tokenizer.json that knows only the tokens that stay.

    Args:
        tokenizer: content of the file; it is not changed.
        kept: ids, completed by `complete_tokens`.
    """
    trimmed, numbers = copy.deepcopy(dict(tokenizer)), renumber(kept)
    model = trimmed["model"]
    if isinstance(model["vocab"], Mapping):
        entries = sorted(model["vocab"].items(), key=lambda entry: entry[1])
        model["vocab"] = {name: numbers[old] for name, old in entries if old in numbers}
    else:
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in numbers]
    if model.get("unk_id") is not None:
        model["unk_id"] = numbers[model["unk_id"]]
    if model["type"] == "BPE":
        names = [name for name, old in vocabulary(tokenizer).items() if old in numbers]
        steps = _merges_of(names, tokenizer["model"])
        kept_pairs = zip(merges(tokenizer["model"]), tokenizer["model"]["merges"], strict=True)
        model["merges"] = [written for pair, written in kept_pairs if pair in steps]
    for entry in trimmed.get("added_tokens", ()):
        entry["id"] = numbers[entry["id"]]
    if trimmed.get("padding"):
        trimmed["padding"]["pad_id"] = numbers[trimmed["padding"]["pad_id"]]
    trimmed["post_processor"] = _renumbered(trimmed.get("post_processor"), numbers)
    return trimmed


def _renumbered(processor: Any, numbers: Mapping[int, int]) -> Any:
    """Renumber the special tokens that a post-processor puts in, of whatever kind it is."""
    if not isinstance(processor, dict):
        return processor
    found = dict(processor)
    for name in ("cls", "sep"):  # BertProcessing and RobertaProcessing: a token and its id
        if isinstance(found.get(name), list):
            found[name] = [found[name][0], numbers[found[name][1]]]
    if isinstance(found.get("special_tokens"), dict):  # TemplateProcessing
        found["special_tokens"] = {
            token: {**entry, "ids": [numbers[old] for old in entry["ids"]]}
            for token, entry in found["special_tokens"].items()
        }
    if "processors" in found:  # a sequence of them
        found["processors"] = [_renumbered(part, numbers) for part in found["processors"]]
    return found


def config_ids(config: Mapping[str, Any], kept: Ids) -> dict[str, int]:
    """Return what of a config names tokens by id, renumbered; what names none of them is left out."""
    numbers = renumber(kept)
    return {
        name: numbers[value]
        for name, value in config.items()
        if name.endswith("_token_id") and isinstance(value, int) and value in numbers
    }


def write_trimmed(folder: Path, kept: Ids, to: Path) -> None:
    """Write the tokenizer of a model's folder for the tokens that stay: tokenizer.json and what is beside it.

    Args:
        folder: of the model.
        kept: ids, completed by `complete_tokens`.
        to: another folder; files of older kinds, vocab.txt and such, do not go there.
    """
    write_json(to / TOKENIZER, trim_tokenizer(read_json(folder / TOKENIZER), kept))
    numbers = renumber(kept)
    for name in _BESIDE:
        if not (folder / name).is_file():
            continue
        content = read_json(folder / name)
        known = content.get("added_tokens_decoder")
        if known is not None:
            content["added_tokens_decoder"] = {
                str(numbers[int(old)]): entry for old, entry in known.items() if int(old) in numbers
            }
        write_json(to / name, content)
