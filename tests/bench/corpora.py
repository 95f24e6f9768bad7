"""Text without labels, which students read beside the rows of their task: the teacher alone speaks on it."""

import html
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench.harness import ROOT, slug
from tests.bench.teachers import SHARED

CLONES = ROOT / "runs" / "bench" / "corpora"
_SOURCES = {"sst2": "sentence", "clinc150": "text", "stsb": "sentence1", "wikitext2": "text"}
"""Table: public task → a column of its texts."""
_LEAST_WORDS, _MOST_WORDS = 6, 45
"""Of a sentence: WikiText-2 has headings too, reviews have sentences without an end."""
_BREAK = re.compile(r"(?:<br\s*/?>\s*)+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[A-Z\"'(])")


@dataclass(frozen=True)
class Corpus:
    """Texts, always the same ones in the same order."""

    name: str
    texts: Callable[[str], list[str]]
    """For a task, of whose own rows it has none."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Folders of `CLONES` that have them, and the repository of each; what is in none is at hand."""

    def first(self, count: int) -> "Corpus":
        """Return the corpus of its first texts."""
        return replace(
            self, name=f"{count:,} {self.name}", texts=lambda task: self.texts(task)[:count]
        )

    def file(self, folder: Path, task: str) -> Path:
        """Return where a folder has it, for a task."""
        return folder / f"{task}-{slug(self.name)}.txt"

    def write(self, folder: Path, task: str) -> Path:
        """Write its texts, one a line, and return the file."""
        file = self.file(folder, task)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(self.texts(task)), encoding="utf-8")
        return file


def readable(corpus: Corpus | None) -> bool:
    """Tell whether its texts are here, of which None has none."""
    return corpus is None or not missing(corpus)


def missing(corpus: Corpus) -> dict[Path, str]:
    """Return the folders that it lacks, and the repository of each."""
    folders = {CLONES / name: origin for name, origin in corpus.origins.items()}
    return {folder: origin for folder, origin in folders.items() if not folder.is_dir()}


def _other_tasks(task: str) -> list[str]:
    import numpy as np

    texts = [text for name in _SOURCES if name != task for text in _of_task(name)]
    order = np.random.default_rng(0).permutation(len(texts))[:40_000]
    return [texts[number] for number in order]


def _of_task(task: str) -> Iterator[str]:
    import pyarrow.parquet as pq

    column = _SOURCES[task]
    for text in pq.read_table(SHARED / "data" / task / "train.parquet")[column].to_pylist():
        words = " ".join(text.split())
        if task != "wikitext2":
            yield words
            continue
        yield from (part for part in words.split(" . ") if len(part.split()) >= _LEAST_WORDS)


def _reviews(_: str) -> list[str]:
    files = sorted(map(str, CLONES.glob("AMLM/data/aclImdb/*/*/*.txt")))
    reviews = (html.unescape(Path(file).read_text(encoding="utf-8")) for file in files)
    parts = (part for review in reviews for part in _BREAK.split(review))
    sentences = (sentence.split() for part in parts for sentence in _SENTENCE_END.split(part))
    fit = (" ".join(s) for s in sentences if _LEAST_WORDS <= len(s) <= _MOST_WORDS)
    return _some(fit, 120_000)


def _tweets(_: str) -> list[str]:
    files = sorted(map(str, CLONES.glob("tweeteval/datasets/*/*_text.txt")))
    lines = (line for file in files for line in Path(file).read_text(encoding="utf-8").split("\n"))
    return _some((" ".join(html.unescape(line).split()) for line in lines), 40_000)


def _some(texts: Iterable[str], count: int) -> list[str]:
    """Return so many by chance; of those that differ in case or marks alone, the first."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(re.sub(r"[^a-z0-9]+", " ", text.lower()).strip(), text)
    mixed = list(first.values())
    random.Random(0).shuffle(mixed)
    return mixed[:count]


OTHER_TASKS = Corpus("texts of other tasks", _other_tasks)
"""Training rows of other tasks here, and sentences of WikiText-2."""
REVIEWS = Corpus("movie reviews", _reviews, {"AMLM": "github.com/dax44/AMLM at 05fb2144"})
"""Sentences of the 50,000 rated reviews of the Large Movie Review Dataset (Maas et al. 2011)."""
TWEETS = Corpus("tweets", _tweets, {"tweeteval": "github.com/cardiffnlp/tweeteval at 4fbd22cd"})
"""Of TweetEval's tasks (Barbieri et al. 2020)."""
ALL_KINDS = Corpus(
    "texts of all kinds",
    lambda task: [*_other_tasks(task), *_reviews(task)[:40_000], *_tweets(task)],
    {**REVIEWS.origins, **TWEETS.origins},
)
"""40,000 of each."""
CORPORA = (OTHER_TASKS, REVIEWS, TWEETS, ALL_KINDS)
