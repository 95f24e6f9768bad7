"""Render the tables from the records, into TABLES.md and between the marks in README.md."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.bench import figures as show
from tests.bench.agreement import PLACES
from tests.bench.figures import Column, Group, Record
from tests.bench.gpu import WAYS
from tests.bench.harness import HERE, ROOT, read_records

_SEED: Column = ("seed", lambda record: str(record["seed"]))
_SETTING: Column = ("setting", lambda record: record["setting"])
_MINUTES: Column = ("minutes", show.figure("minutes", "{:.1f}"))
_MAIN_METRIC = "accuracy"

_SHIPPED: tuple[Column, ...] = (
    ("retention", show.figure("retention")),
    ("agreement", show.figure("agreement")),
    ("drop by quantization", show.artifacts(lambda a, _: a["drop"], "{:+.4f}")),
    ("MB", show.artifacts(lambda a, _: a["bytes"] / 1e6, "{:.1f}")),
    ("p50 ms", show.artifacts(lambda a, _: a["latency_ms"]["p50"], "{:.2f}")),
    ("faster", show.artifacts(lambda a, _: a["speedup"], "{:.1f}×")),
)

_FILE: tuple[Column, ...] = (
    ("student", lambda record: record["data"]),
    _SETTING,
    ("MB", show.figure("bytes", "{:.1f}", 1e-6)),
    ("score", show.own_metric("metrics")),
    ("drop", show.figure("drop", "{:+.4f}")),
    ("flips", show.flips),
)
"""Of one file: what it weighs, and what it answers otherwise than its student."""

_MAIN_JOB: tuple[Column, ...] = (
    ("student", lambda record: record["setting"]),
    _SEED,
    ("teacher", show.figure("teacher.metrics.accuracy")),
    ("accuracy", show.figure("student.metrics.accuracy")),
    *_SHIPPED,
    ("smaller", show.artifacts(lambda a, f: f["teacher"]["bytes"] / a["bytes"], "{:.1f}×")),
    ("files' retention", show.artifacts(lambda a, _: a["retention"], "{:.4f}")),
    _MINUTES,
)

TABLES: dict[str, tuple[str, Sequence[Column]]] = {
    "main-job": (
        "The main job: minilm-l6-sst2 (6 layers, 90.9 MB in fp32) to 3 layers on SST-2, scored on its 872 "
        "validation rows, five targets. MB, drop and latency range over the targets; *smaller* is against "
        "the teacher's fp32 weights, *faster* against the teacher in PyTorch in the same run (p50, batch "
        "1, 1 thread). *6 x 192*: all six layers, half as wide; *4 x 312*: TinyBERT's shape; "
        "*texts of other tasks between*: 30,000 of them, in data.unlabelled; *movie reviews between*: "
        "120,000 sentences of the Large Movie Review Dataset (Maas et al. 2011); *words packed*: before the "
        "training, or after it, which then goes on; *6.05 MB at most*: in gate.max_mb, so that the nearest "
        "file within it is shipped, not the smallest. Those files and those of *default*, seed 0, are "
        "made as now, but that all computed sizes at each call and coded words anew in each file; the others "
        "were packed when no matrix was coarse, and those of *6 x 192*, *vocabulary trimmed* and default's "
        "seeds 1 and 2 computed the whole last layer; their students learnt with `hidden_layers: last`. "
        "Where there is no VNNI the student is of today's default, and its files are made as now.",
        _MAIN_JOB,
    ),
    "other-jobs": (
        "The same for other tasks, students of half the depth, five targets: entities of words (WNUT-17, 15 "
        "epochs, scored by F1 on its test rows) and sentence embeddings (all-minilm-l6-v2 on the texts of "
        "STS-B, scored by Spearman of its test pairs).",
        (
            ("task", lambda record: record["data"]),
            _SETTING,
            ("teacher", show.own_metric("teacher.metrics")),
            ("student", show.own_metric("student.metrics")),
            *_SHIPPED,
            ("smaller", show.artifacts(lambda a, f: f["teacher"]["bytes"] / a["bytes"], "{:.1f}×")),
            _MINUTES,
        ),
    ),
    "paper-size": (
        "DistilBERT's own case: a 12-layer teacher of width 768 (mpnet-base-sst2, 109M parameters) to 6 "
        "layers on SST-2, the whole pipeline. Published for BERT-base and DistilBERT (Sanh et al. "
        "2019, tables 1 to 3): 40% fewer parameters, 60% faster, accuracy on SST-2 0.927 and 0.913 (0.985). "
        "Files of the students of 2,048 neurons leave matrices in 8 bits as long as there is room; the "
        "training of seed 0 stood still for some 3 minutes and its run was stopped after it, so that its "
        "peak is that of the rest. The training of the one of 2,176 stood still for 14; files of the others "
        "compute the whole last layer. "
        "*Faster* here: p50 in PyTorch, batch 1, 1 thread, interleaved; the file, against the teacher in "
        "PyTorch and its fp32 weights.",
        (
            ("student", lambda record: record["setting"]),
            _SEED,
            ("teacher", show.figure("teacher.metrics.accuracy")),
            ("accuracy", show.figure("student.metrics.accuracy")),
            ("retention", show.figure("retention")),
            ("agreement", show.figure("agreement")),
            ("fewer parameters", show.figure("fewer_parameters", "{:.0f}%", 100)),
            ("faster", show.figure("faster", "{:.0f}%", 100)),
            ("MB", show.artifacts(lambda a, _: a["bytes"] / 1e6, "{:.1f}")),
            ("smaller", show.artifacts(lambda a, f: f["teacher"]["bytes"] / a["bytes"], "{:.1f}×")),
            ("file, faster", show.artifacts(lambda a, _: a["speedup"], "{:.1f}×")),
            (
                "its retention",
                show.artifacts(lambda a, _: a["retention"], "{:.4f}"),
            ),
            ("peak GB", show.figure("peak_gb", "{:.1f}")),
            _MINUTES,
        ),
    ),
    "demo": (
        "The embedded default: a 6-layer BERT trained on docstrings of installed libraries, to 3 layers; "
        "scored on its test rows.",
        (
            ("classes", show.figure("labels", "{}")),
            ("teacher", show.figure("teacher.accuracy")),
            ("student", show.figure("student.accuracy")),
            *_SHIPPED,
            _MINUTES,
        ),
    ),
    "door": (
        "The front door: wall time of a command in a fresh process.",
        (
            ("command", show.figure("command", "`{}`")),
            ("median s", show.figure("median_s", "{:.2f}")),
            ("fastest", show.figure("min_s", "{:.2f}")),
            ("slowest", show.figure("max_s", "{:.2f}")),
        ),
    ),
    "speed": (
        "Three epochs of distillation of minilm-l6-sst2 to 3 layers on rows of SST-2: the same teacher, "
        "start, rows, losses, batch size and learning rate, each in processes of its own, in turn, two "
        "rounds, each validated after each epoch. The others train and are validated in fp32, ours in what "
        "its timing chose, and without dropout, as all of SST-2 is learnt. Of the last layer ours computes "
        "queries and what is behind the attention for the first token alone, and aligns the layer before, "
        "where the others compute and align all tokens of the last, as ours did on the Xeon with VNNI, "
        "whose row is older. The peak is the better of the two rounds'. Accuracy and "
        "agreement with the teacher on 872 validation rows.",
        (
            ("rows", show.figure("rows", "{:,.0f}")),
            *(
                column
                for way in ("ours", "plain-trainer", "textbrewer")
                for column in (
                    (f"{way}: rows/s", show.figure(f"ways.{way}.rows_per_s", "{:.0f}")),
                    (f"accuracy ({way})", show.figure(f"ways.{way}.accuracy")),
                    (f"agreement ({way})", show.figure(f"ways.{way}.agreement")),
                )
            ),
            ("ours: mode", lambda record: show.notes(record)[0]["mode"]),
            ("share of matmul peak, first epoch", show.share_of_peak("share_first_epoch")),
            ("later epochs", show.share_of_peak("share_later_epochs")),
            ("Trainer is slower", show.figure("ways.plain-trainer.times_slower", "{:.1f}×")),
            (
                "in the first epoch",
                show.figure("ways.plain-trainer.times_slower_first_epoch", "{:.1f}×"),
            ),
            (
                "in a later one",
                show.figure("ways.plain-trainer.times_slower_later_epoch", "{:.1f}×"),
            ),
            ("TextBrewer is slower", show.figure("ways.textbrewer.times_slower", "{:.1f}×")),
            (
                "in its first epoch",
                show.figure("ways.textbrewer.times_slower_first_epoch", "{:.1f}×"),
            ),
            (
                "in its later ones",
                show.figure("ways.textbrewer.times_slower_later_epoch", "{:.1f}×"),
            ),
        ),
    ),
    "gpu": (
        "Three epochs of distillation on a GPU, as in the table of speed: minilm-l6-sst2 to 3 layers on rows "
        "of SST-2; and a teacher of BERT-base's size with random weights to 6 layers, texts of 128 tokens. "
        "The plain Trainer trains in fp32 as its tutorials do, and once more in bf16. The peak is "
        "that of a product of 8192 cubed in ours' precision, in the same run.",
        (
            _SETTING,
            ("rows", show.figure("rows", "{:,.0f}")),
            ("a batch", show.figure("batch_size", "{:.0f}")),
            ("ours: mode", lambda record: show.notes(record)[0]["mode"]),
            *(
                (f"{way}: rows/s", show.way(way, "rows_per_s", "{:,.0f}"))
                for way in ("ours", *WAYS)
            ),
            *(
                (f"accuracy ({way})", show.way(way, "accuracy", "{:.4f}"))
                for way in ("ours", *WAYS)
            ),
            ("peak TFLOP/s", lambda record: f"{show.peak_gflops(record) / 1000:.0f}"),
            ("share of it, first epoch", show.share_of_peak("share_first_epoch")),
            ("later epochs", show.share_of_peak("share_later_epochs")),
            ("Trainer is slower", show.way("plain-trainer", "times_slower", "{:.1f}×")),
            ("in bf16", show.way("plain-trainer-bf16", "times_slower", "{:.1f}×")),
            ("TextBrewer is slower", show.way("textbrewer", "times_slower", "{:.1f}×")),
        ),
    ),
    "ablation": (
        "One thing changed at a time: CLINC150, the teacher of the retention table, three epochs, one seed, "
        "scored on the validation rows; without augmentation where it is not named. On the "
        "machine with VNNI all but *cosine on every mapped layer* aligned the last layer, then the default.",
        (
            _SETTING,
            ("student", show.figure("student.accuracy")),
            ("retention", show.figure("retention")),
            ("agreement", show.figure("agreement")),
            _MINUTES,
        ),
    ),
    "size": (
        "Retention against size: CLINC150, the teacher of the retention table (6 x 384), three epochs, one "
        "seed, scored on the validation rows; layers spread, or one of two; of narrower students what "
        "matters most is kept. File and latency are of the 8-bit ONNX file (p50, batch 1, 1 thread; beside "
        "another training).",
        (
            ("layers x width", lambda record: record["setting"]),
            ("parameters", show.figure("parameters", "{:.1f}M", 1e-6)),
            ("MB in 8 bits", show.figure("bytes", "{:.1f}", 1e-6)),
            ("p50 ms", show.figure("timings.int8.p50_ms", "{:.2f}")),
            ("student", show.figure("student.accuracy")),
            ("retention", show.figure("retention")),
            ("agreement", show.figure("agreement")),
            _MINUTES,
        ),
    ),
    "masked-language": (
        "Masked language modelling: all-minilm-l6-v2 with a new head, trained on the test split of "
        "WikiText-2 (the only text of it at hand), distilled to half the depth on the same, scored on the "
        "validation split.",
        (
            ("teacher: accuracy", show.figure("teacher.accuracy")),
            ("pseudo-perplexity", show.figure("teacher.pseudo_perplexity", "{:.1f}")),
            ("student: accuracy", show.figure("student.accuracy")),
            ("its pseudo-perplexity", show.figure("student.pseudo_perplexity", "{:.1f}")),
            ("retention", show.figure("retention")),
            ("agreement", show.figure("agreement")),
            _MINUTES,
        ),
    ),
    "scale": (
        "Rows that are read, tokenized and distilled once (a random BERT of 4 layers of 64 to 2, fp32, one "
        "teacher's vocabulary): the most memory that the process owned, mapped files aside, and time a row. "
        "The rate of training is the median of the first and of the last tenth of the steps.",
        (
            ("rows", show.figure("rows", "{:,.0f}")),
            *(
                column
                for phase in ("reading", "tokenizing", "training")
                for column in (
                    (f"{phase}: MB", show.figure(f"phases.{phase}.mb", "{:.0f}")),
                    ("µs a row", show.figure(f"phases.{phase}.us_a_row", "{:.1f}")),
                )
            ),
            ("rows/s at first", show.figure("first_rows_per_s", "{:.0f}")),
            ("at last", show.figure("last_rows_per_s", "{:.0f}")),
        ),
    ),
    "schemes": (
        "Ways of quantizing the students of the main job and of the other jobs (seed 0), ours above "
        "optimum's own presets. Score: accuracy, entity F1 (wnut17), Spearman (stsb). Flips: units answered "
        "otherwise than by the fp32 student, of 872 texts, or of the words of 1,287; of embeddings one minus "
        "the mean cosine to its own. Speed beside its fp32 ONNX file, interleaved, 1 thread, on this "
        "machine, which has VNNI; in wasm by onnxruntime-web in node, after ten texts, where V8 still runs "
        "some of what its baseline compiler made: *side-by-side* has times of after that.",
        (
            *_FILE,
            ("p50 ms", show.figure("timings.int8.p50_ms", "{:.2f}")),
            ("rounds", show.spread),
            ("faster than fp32", show.times_fp32),
            ("wasm p50 ms", show.in_wasm),
            ("load ms", show.figure("timings.int8.load_ms", "{:.0f}")),
            ("peak MB", show.figure("timings.int8.peak_rss_mb", "{:.0f}")),
        ),
    ),
    "agreement": (
        "The main job's files (seed 0) where they will run, on 200 validation rows at even steps through the "
        "lengths: rows answered otherwise than by the fp32 student natively, and, in brackets, the largest "
        "difference of a logit from what the same file answers natively, with VNNI; the two places that "
        "agree least, and the share of rows in which they do. x86 without VNNI and arm64 are emulated by "
        "QEMU (Haswell, Cortex-A76 and A53).",
        (
            ("target", lambda record: record["setting"]),
            ("scheme", show.figure("scheme", "{}")),
            *((place, show.flips_there(place)) for place in PLACES),
            ("least agreement", show.least_agreement),
        ),
    ),
}


OVER_SEEDS: dict[str, tuple[str, Sequence[tuple[str, Callable[[Group], str]]]]] = {
    "retention": (
        "Half the depth, on public tasks: teachers fine-tuned from all-minilm-l6-v2 (6 layers), students of "
        "their layers 0, 2 and 4, mean and range over the seeds, scored on the test split, of SST-2 on the "
        "validation split (five epochs; the default three). *no-augmentation* "
        "is `data.augment: 0`, as in the rows below it; *labels-alone* is the same student from the same "
        "start without the teacher; *unlabelled-first* reads 40,000 texts "
        "of other tasks and of WikiText-2 (`data.unlabelled`) before the labelled rows, *-between* among; "
        "*reviews-between*: students of the main job, three epochs; *tweets-between*: 40,000 of TweetEval, "
        "of a teacher that was trained anew; *telling-between*, of another: those 52,000 of 120,000 texts "
        "(of other tasks, movie reviews and tweets) in which it finds something, `unlabelled_kept: telling`; "
        "*logits* is `soft: mse`; *8 epochs* too, with `hidden_layers: "
        "uniform` at 4e-4. The others align the last layer, as the default then was; where a machine has no "
        "VNNI, *default* is `auto`, with teachers that were trained there. Minutes are of one thread, beside "
        "another training; of reviews, tweets, *telling* and all without VNNI, of two threads, alone; "
        "there SST-2's seed 1 stood still for ten.",
        (
            ("task", lambda group: group[0]["data"]),
            ("setting", lambda group: group[0]["setting"]),
            ("seeds", lambda group: str(len(group))),
            ("metric", lambda group: group[0]["figures"]["main_metric"]),
            ("teacher", show.main_score("teacher")),
            ("student", show.main_score("student")),
            ("retention", show.mean("retention")),
            ("agreement", show.mean("agreement")),
            ("minutes", show.mean("minutes", "{:.1f}")),
        ),
    ),
}
"""Tables that have a row for each setting, over its seeds."""


def _steps(records: list[Record]) -> list[Record]:
    """Return a row for the teacher, each student, and each file that was tried of it."""
    rows = []
    for record in records:
        figures = record["figures"]
        if record["seed"]:
            continue
        student, teacher = record["setting"], figures["teacher"]
        scored = teacher["metrics"][_MAIN_METRIC]
        if not rows:
            rows.append({"what": "teacher, fp32", "bytes": teacher["bytes"], "accuracy": scored})
        before = figures["student"]["metrics"][_MAIN_METRIC]
        rows.append(
            {"what": f"{student}, fp32", "bytes": figures["student"]["bytes"], "accuracy": before}
        )
        tried = {c["sha256"]: c for a in figures["artifacts"] for c in a["candidates"]}
        rows += [
            {
                "what": f"{student}, {entry['scheme']}",
                "accuracy": before - entry["drop"],
                **entry,
            }
            for entry in sorted(tried.values(), key=lambda entry: -int(entry["bytes"]))
        ]
    largest = rows[0]["bytes"] if rows else 1
    return [{**row, "smaller": largest / row["bytes"]} for row in rows]


def _in_short(records: list[Record]) -> list[Record]:
    """Return the rows of what most people would take."""
    return [record for record in records if record["setting"] in IN_SHORT]


def _beside(records: list[Record]) -> list[Record]:
    """Return a row for each file, its times beside those of optimum's fastest file of the same run."""
    rows = []
    for record in records:
        files = record["figures"]["files"]
        optimum = [file for name, file in files.items() if name.startswith("optimum")]
        for name, file in files.items():
            row = {**record, "setting": name, "figures": file}
            for where in ("timings", "wasm"):
                if file[where]:  # a file that does not load leaves all of them without times there
                    best = min(preset[where]["p50_ms"] for preset in optimum)
                    row[f"{where}_faster"] = best / file[where]["p50_ms"]
            rows.append(row)
    return rows


def _cell(name: str, pattern: str, scale: float = 1.0) -> Callable[[Record], str]:
    def read(row: Record) -> str:
        value = row.get(name, "")
        return pattern.format(value * scale) if isinstance(value, (int, float)) else str(value)

    return read


IN_SHORT = ("default", "movie reviews between, 6.05 MB at most")
"""Settings of the main job that most people would take."""
README_ALONE = "main-job-in-short"
"""The table of those, which TABLES.md has among the others."""
DERIVED: dict[str, tuple[str, str, Callable[[list[Record]], list[Record]], Sequence[Column]]] = {
    README_ALONE: (
        "The main job: a MiniLM of 6 layers, 90.9 MB in fp32, to 3 layers on SST-2 (872 validation rows), "
        "for phones, the web and servers. Drop, MB and latency range over five targets; *smaller* than the "
        "teacher's fp32 weights, *faster* than the teacher in PyTorch in the same run (p50, batch 1, one "
        "thread). *movie reviews between*: 120,000 sentences without labels in `data.unlabelled`, and 6.05 "
        "MB in `gate.max_mb`.",
        "main-job",
        _in_short,
        _MAIN_JOB,
    ),
    "side-by-side": (
        "Files of students whose words were packed before the training (seed 0), beside optimum's best "
        "presets, all timed in one run, in turn, natively (three rounds) and in onnxruntime-web in node (the "
        "median of its rounds, the fastest and the slowest; once V8 has compiled what is hot; 1 thread, with "
        "VNNI); *faster* than optimum's fastest there, made of its own export of the student. Score, drop "
        "and flips as in *schemes*. SST-2's files compute the last layer for the first token alone.",
        "side-by-side",
        _beside,
        (
            *_FILE,
            ("p50 ms", show.figure("timings.p50_ms", "{:.2f}")),
            ("faster", _cell("timings_faster", "{:.2f}×")),
            ("wasm p50 ms", show.spread_in_wasm),
            ("faster in wasm", _cell("wasm_faster", "{:.2f}×")),
            ("load ms", show.figure("timings.load_ms", "{:.0f}")),
            ("peak MB", show.figure("timings.peak_rss_mb", "{:.0f}")),
        ),
    ),
    "steps": (
        "What each step from the teacher to a phone brings and costs: the files that the main job tries for "
        "its five targets (seed 0), largest first. Accuracy on the 872 validation rows; *flips* is the share "
        "of them that the file answers otherwise than the fp32 student; p50 at batch 1, 1 thread, load and "
        "peak memory of the whole process, each student's in a run of its own.",
        "main-job",
        _steps,
        (
            ("what", _cell("what", "{}")),
            ("MB", _cell("bytes", "{:.1f}", 1e-6)),
            ("smaller", _cell("smaller", "{:.1f}×")),
            ("accuracy", _cell("accuracy", "{:.4f}")),
            ("flips", _cell("flips", "{:.1%}")),
            ("p50 ms", _cell("p50_ms", "{:.2f}")),
            ("load ms", _cell("load_ms", "{:.0f}")),
            ("peak MB", _cell("peak_rss_mb", "{:.0f}")),
        ),
    ),
}
"""Tables whose rows are made of a table's records by a function, not one by one."""


def _groups(records: list[Record]) -> list[Group]:
    groups: dict[tuple[str, str, str], Group] = {}
    for record in records:
        groups.setdefault((record["model"], record["data"], record["setting"]), []).append(record)
    return list(groups.values())


def render(table: str) -> str:
    """Return a table as Markdown: what it shows, how it was made, its rows by machine."""
    source, expand = table, list
    if table in DERIVED:
        caption, source, expand, columns = DERIVED[table]
    else:
        caption, columns = (TABLES | OVER_SEEDS)[table]
    records = read_records(source)
    lines = [f"**{caption}**", ""]
    for machine in sorted({record["machine"] for record in records}):
        found = [record for record in records if record["machine"] == machine]
        measured = max(record["measured_at"] for record in found)[:10]
        rows: list[Any] = _groups(found) if table in OVER_SEEDS else expand(found)
        lines += [
            f"`make bench`, on {machine}, {measured}:",
            "",
            "| " + " | ".join(title for title, _ in columns) + " |",
            "|" + "---|" * len(columns),
            *("| " + " | ".join(read(row) for _, read in columns) + " |" for row in rows),
            "",
        ]
    return "\n".join(lines if records else [*lines, "Not measured yet.", ""])


def render_all() -> str:
    """Return TABLES.md."""
    names = [name for name in [*TABLES, *DERIVED, *OVER_SEEDS] if name != README_ALONE]
    parts = [f"## {name}\n\n{render(name)}" for name in names]
    head = "# Figures\n\nRendered by `make bench` from `results/`; no figure here is typed by hand.\n\n"
    return head + "\n".join(parts)


def fill_marks(text: str) -> str:
    """Return a text with the tables between its marks, `<!-- table:NAME -->` … `<!-- end -->`."""
    return re.sub(
        r"(<!-- table:([a-z-]+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{render(match[2])}{match[3]}",
        text,
        flags=re.DOTALL,
    )


def write_tables() -> None:
    """Write TABLES.md, and the tables in README.md."""
    (HERE / "TABLES.md").write_text(render_all(), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(fill_marks(readme.read_text(encoding="utf-8")), encoding="utf-8")
