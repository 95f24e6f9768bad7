"""Small tokenizers of each kind that the teachers here may have, of the words of `TEXTS`."""

from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory

from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, RobertaTokenizerFast

from tests.conftest import TEXTS

_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def byte_pairs(add_prefix_space: bool = True) -> PreTrainedTokenizerFast:
    """Return RoBERTa's kind.

    Args:
        add_prefix_space: whether it may read words one by one, as tags need it.
    """
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS, vocab_size=400, show_progress=False, special_tokens=_SPECIAL)
    with TemporaryDirectory() as folder:
        vocabulary, merges = trained.save_model(folder)
        return RobertaTokenizerFast(
            vocab_file=vocabulary, merges_file=merges, add_prefix_space=add_prefix_space
        )


def unigrams() -> PreTrainedTokenizerFast:
    """Return XLM-RoBERTa's kind; written, not trained, for of so little text the trainer makes little."""
    words = sorted({word for text in TEXTS for word in f"▁{text}".replace(" ", " ▁").split()})
    letters = sorted({letter for word in words for letter in word})
    parts = sorted({word[:length] for word in words for length in (3, 4)} - {*words, *letters})
    pieces = [
        *((name, 0.0) for name in _SPECIAL),
        *((word, -7.0) for word in words),
        *((part, -8.0) for part in parts),
        *((letter, -10.0) for letter in letters),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=_SPECIAL.index("<unk>")))
    tokenizer.add_special_tokens(_SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False, trim_offsets=False
    )
    names = {"bos": 0, "pad": 1, "eos": 2, "unk": 3, "mask": 4, "cls": 0, "sep": 2}
    special = {f"{name}_token": _SPECIAL[number] for name, number in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


OTHER_TOKENIZERS: Mapping[str, Callable[[], PreTrainedTokenizerFast]] = {
    "BPE": byte_pairs,
    "Unigram": unigrams,
}
"""Table: kind → what makes one, where WordPiece, that of `tiny_bert`, is not the one."""
