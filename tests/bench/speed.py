"""How fast a distillation goes: ours beside a plain Trainer and TextBrewer, each in a process of its own.

The same teacher, student, rows, losses, batch size, epochs, learning rate and validation after each epoch.
The others do what their tutorials do: fp32, batches padded to their longest row, AdamW over all parameters,
the last layer computed for all tokens and aligned, where ours is computed for the first, and the one before
is aligned.
Whoever has a GPU all train on it, and there a Trainer in bf16 is one way more.

TextBrewer is no dependency: clone airaria/TextBrewer, and name its folder `src` in TEXTBREWER, with the
folder that holds tensorboard, which it imports, after a colon.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROUNDS = 2
EPOCHS = 3
LEARNING_RATE = 2e-4
WARM_UP_SHARE = 0.1
OTHERS = ("plain-trainer", "textbrewer")


def measure_speed(
    model: Path,
    data: Path,
    columns: Mapping[str, str],
    rows: int,
    batch_size: int = 32,
    others: Sequence[str] = OTHERS,
) -> dict[str, Any]:
    """Train with each on some rows, drawn with seed 0, interleaved; return their times and scores.

    Args:
        model: a teacher's folder.
        data: a data set's folder.
        columns: of the data set.
        rows: how many.
        batch_size: of all.
        others: rows of `WAYS` to train with beside ours.
    """
    if "textbrewer" in others and "TEXTBREWER" not in os.environ:
        raise RuntimeError(
            "set TEXTBREWER to the folder src of a clone, and to where tensorboard is"
        )
    job = {
        "model": str(model),
        "data": str(data),
        "columns": dict(columns),
        "rows": rows,
        "batch_size": batch_size,
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", *others)}
    for _ in range(ROUNDS):
        for name, figures in runs.items():
            command = [sys.executable, "-m", "tests.bench.speed", name, json.dumps(job)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {name}: {figures[-1]['seconds']:.1f} s", flush=True)
    ways = {name: _summary(figures) for name, figures in runs.items()}
    ours = ways["ours"]
    for way in ways.values():
        way["times_slower"] = way["seconds"] / ours["seconds"]
        way["times_slower_first_epoch"] = way["first_epoch_s"] / ours["first_epoch_s"]
        way["times_slower_later_epoch"] = way["later_epoch_s"] / ours["later_epoch_s"]
    return {"rows": rows, "batch_size": batch_size, "epochs": EPOCHS, "ways": ways}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "first_epoch_s": statistics.median(run["epochs_s"][0] for run in runs),
        "later_epoch_s": statistics.median(s for run in runs for s in run["epochs_s"][1:]),
        "rows_per_s": statistics.median(run["rows_per_s"] for run in runs),
        "accuracy": runs[0]["accuracy"],
        "agreement": runs[0]["agreement"],
        "rounds_s": [run["seconds"] for run in runs],
        "notes": [run["notes"] for run in runs],
    }


def main(name: str, job: Mapping[str, Any]) -> None:
    """Train in one way, and print its figures as a line of JSON."""
    import torch

    from distill_core.batches import open_tokenized, tokenize
    from distill_core.config import Columns, DataSource, StudentShape
    from distill_core.dataset import read_dataset
    from distill_core.evaluation import agreement, model_logits, read_labels, score
    from distill_core.layers import pick_layers
    from distill_core.student import build_student
    from distill_core.teacher import describe, load_model, load_tokenizer

    torch.manual_seed(0)
    seen = describe(Path(job["model"]))
    teacher = load_model(seen.folder)
    start = build_student(teacher, seen.layer_prefix, pick_layers(seen.stack.kinds, StudentShape()))
    source = DataSource(source=job["data"], columns=Columns(**job["columns"]))
    with TemporaryDirectory() as scratch:
        splits = read_dataset(source, seen.head, seed=0)
        tokenize(splits, seen.head, load_tokenizer(seen.folder), 128, Path(scratch) / "rows")
        rows = open_tokenized(Path(scratch) / "rows")
        train = rows["train"].shuffle(seed=0).select(range(job["rows"])).flatten_indices()
        work = Work(
            start,
            teacher,
            train,
            rows["validation"],
            seen.head,
            job["batch_size"],
            torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            Path(scratch),
        )
        begin = time.perf_counter()
        student, ends, notes = WAYS[name](work)
        seconds = ends[-1] - begin
        models = [model.to(work.device) for model in (student, teacher)]
        logits = [model_logits(model, seen.head, rows["validation"]) for model in models]
        labels = read_labels(seen.head, rows["validation"])
        figures = {
            "seconds": seconds,
            "epochs_s": [end - start for start, end in pairwise([begin, *ends])],
            "rows_per_s": EPOCHS * len(train) / seconds,
            "accuracy": score(seen.head, logits[0], labels)["accuracy"],
            "agreement": agreement(seen.head, *logits),
            "notes": notes,
        }
    print(json.dumps(figures))


@dataclass(frozen=True)
class Work:
    """What each way is given."""

    start: Any
    teacher: Any
    train: Any
    validation: Any
    head: Any
    batch_size: int
    device: Any
    scratch: Path

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return EPOCHS * -(-len(self.train) // self.batch_size)

    def collate(self, rows: list[Any]) -> dict[str, Any]:
        """Pad a batch to its longest row."""
        from distill_core.batches import collate

        return dict(collate(rows, self.start.config.pad_token_id))

    def validate(self) -> float:
        """Validate the student as ours is, and return the time."""
        from distill_core.evaluation import model_logits

        model_logits(self.start, self.head, self.validation)
        self.start.train()
        return time.perf_counter()


Trained = tuple[Any, list[float], dict[str, Any]]
"""The student, when each of its epochs ended, and what else is worth a note."""


def ours(work: Work) -> Trained:
    """Train as `run` does."""
    from distill_core.config import TrainingSettings
    from distill_core.job import Job
    from distill_core.loss_weights import LossWeights
    from distill_core.training import EpochRecord, distill

    ends: list[float] = []
    durations: list[list[float]] = [[]]

    def listen(record: Any) -> None:
        if isinstance(record, EpochRecord):
            ends.append(time.perf_counter())
            durations.append([])
        else:
            durations[-1].append(1 / record.rows_per_s)  # of all but the last step as many rows

    settings = TrainingSettings(
        epochs=EPOCHS, batch_size=work.batch_size, learning_rate=LEARNING_RATE, dropout=False
    )
    job = Job(work.train, work.validation, work.head, LossWeights(), settings)
    trained = distill(work.start, work.teacher, job, listen, work.scratch)
    mode = trained.choice.mode
    return trained.model, ends, {"mode": mode.name, **_shares(work, mode.precision, durations)}


def _shares(work: Work, precision: Any, durations: list[list[float]]) -> dict[str, float]:
    """Return what this machine multiplies at most, and which share of it the steps reached.

    Counted are the products with the layers' matrices alone, of tokens that are no padding and not left out
    by us: 2 operations a weight and token forward, 4 more backward, in the first epoch 2 of the teacher's.
    """
    from distill_core.mode import DTYPES

    student, teacher = (_products(work, model) for model in (work.start, work.teacher))
    peak = _matmul_peak(DTYPES[precision], work.device)
    first, *later = (work.batch_size * sum(seconds) for seconds in durations if seconds)
    return {
        "matmul_peak_gflops": peak / 1e9,
        "share_first_epoch": (6 * student + 2 * teacher) / first / peak,
        "share_later_epochs": len(later) * 6 * student / sum(later) / peak,
    }


def _products(work: Work, model: Any) -> int:
    """Return how often a weight of a layer's matrix meets a token in a forward pass of all rows."""
    from torch import nn

    from distill_core.first_token import ROWS, first_token_maps

    model = model.cpu()
    some = work.collate(work.train.select(range(ROWS)).to_list())
    maps = first_token_maps(model, work.head, some)
    first_alone = {*maps.alone, *maps.repeated}
    tokens, texts = sum(work.train["length"][:]), len(work.train)
    return sum(
        module.weight.numel() * (texts if name in first_alone else tokens)
        for name, module in model.named_modules()
        if ".layer." in name and isinstance(module, nn.Linear)
    )


def _matmul_peak(dtype: Any, device: Any) -> float:
    """Return the operations a second of a layer's largest product of 512 tokens; of a GPU, of 8192 cubed."""
    import torch
    from torch.utils.benchmark import Timer

    tokens, inputs, outputs = (512, 384, 1536) if device.type == "cpu" else (8192, 8192, 8192)
    shapes = {"tokens": (tokens, inputs), "weight": (outputs, inputs)}
    drawn = {name: torch.randn(shape, device=device).to(dtype) for name, shape in shapes.items()}
    timer = Timer(
        "linear(tokens, weight)",
        "from torch.nn.functional import linear",
        globals=drawn,
        num_threads=torch.get_num_threads(),
    )
    seconds = timer.blocked_autorange(min_run_time=0.5).median
    return 2 * tokens * inputs * outputs / seconds


def plain_trainer(work: Work, bf16: bool = False) -> Trained:
    """Train with transformers' Trainer, the three losses in `compute_loss`."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from distill_core.loss_weights import LossWeights
    from distill_core.losses import Objective, Output, Pair, combine

    ends: list[float] = []
    teacher = work.teacher.eval().to(work.device)

    class Distillation(Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any
        ) -> Any:
            labels = inputs.pop("labels")
            answer = model(**inputs, output_hidden_states=True)
            with torch.no_grad():
                theirs = teacher(**inputs, output_hidden_states=True)
            student, told = (Output(a.logits, a.hidden_states[-1]) for a in (answer, theirs))
            pair = Pair(student, told, labels, inputs["attention_mask"])
            loss = combine(pair, Objective(work.head, LossWeights())).total
            return (loss, answer) if return_outputs else loss

    class Clock(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            ends.append(work.validate())

    arguments = TrainingArguments(
        output_dir=str(work.scratch / "trainer"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=work.batch_size,
        learning_rate=LEARNING_RATE,
        warmup_ratio=WARM_UP_SHARE,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=work.device.type == "cpu",
        bf16=bf16,
        logging_strategy="no",
    )
    trainer = Distillation(
        work.start,
        arguments,
        data_collator=work.collate,
        train_dataset=work.train,
        callbacks=[Clock()],
    )
    trainer.train()
    return work.start, ends, {"precision": "bf16" if bf16 else "fp32"}


def textbrewer(work: Work) -> Trained:
    """Train with TextBrewer's GeneralDistiller, with the losses it has for DistilBERT."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import get_linear_schedule_with_warmup

    sys.path[:0] = os.environ["TEXTBREWER"].split(os.pathsep)
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    ends: list[float] = []
    config = DistillationConfig(
        temperature=2,
        kd_loss_type="ce",
        kd_loss_weight=5,
        hard_label_weight=2,
        intermediate_matches=[
            {
                "layer_T": work.teacher.config.num_hidden_layers,
                "layer_S": work.start.config.num_hidden_layers,
                "feature": "hidden",
                "loss": "cos",
                "weight": 1,
            }
        ],
    )

    def adaptor(batch: Any, outputs: Any) -> dict[str, Any]:
        return {
            "logits": outputs.logits,
            "hidden": outputs.hidden_states,
            "inputs_mask": batch["attention_mask"],
            "losses": outputs.loss,
        }

    training = TrainingConfig(output_dir=str(work.scratch / "textbrewer"), device=str(work.device))
    student, teacher = work.start.to(work.device), work.teacher.eval().to(work.device)
    distiller = GeneralDistiller(training, config, teacher, student, adaptor, adaptor)
    loader = DataLoader(work.train, work.batch_size, shuffle=True, collate_fn=work.collate)
    with distiller:
        distiller.train(
            torch.optim.AdamW(work.start.parameters(), lr=LEARNING_RATE, weight_decay=0.01),
            loader,
            num_epochs=EPOCHS,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args={
                "num_warmup_steps": int(WARM_UP_SHARE * work.steps),
                "num_training_steps": work.steps,
            },
            callback=lambda model, step: ends.append(work.validate()),
            output_hidden_states=True,
        )
    return work.start, ends, {"precision": "fp32"}


WAYS: dict[str, Callable[[Work], Trained]] = {
    "ours": ours,
    "plain-trainer": plain_trainer,
    "plain-trainer-bf16": partial(plain_trainer, bf16=True),
    "textbrewer": textbrewer,
}


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
