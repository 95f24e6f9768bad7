"""The pipeline file as frozen models: the docstring under a field is its help text."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from cronsim import CronSim, CronSimError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from distill_core.errors import ConfigError
from distill_core.targets import find_target


class _Section(BaseModel):
    """A part of the pipeline file: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def _known_target(name: str) -> str:
    try:
        return find_target(name).name
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("targets: ")) from None


class TeacherSource(_Section):
    """Where the fine-tuned model comes from."""

    source: Annotated[str, Field(min_length=1)]
    """A folder in transformers' layout, or a Hugging Face hub id (`owner/name`)."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null takes the main branch."""


class Columns(_Section):
    """Which columns of the data set hold what."""

    text: str = "text"
    """The text to judge."""
    pair: str | None = None
    """The second text, where two are judged together."""
    label: str = "label"
    """The class, a number from 0 or the name that the teacher gives it; a list of those; or a score."""
    tokens: str = "tokens"
    """Words to tag, as lists of strings."""
    tags: str = "tags"
    """The class of each word, by number or name."""


class DataSource(_Section):
    """The rows to learn from and to be judged on."""

    source: Annotated[str, Field(min_length=1)]
    """A folder with {train,validation,test}.{parquet,jsonl,csv}, or a hub data set id."""
    config: str | None = None
    """The configuration of a hub data set that has several."""
    columns: Columns = Columns()
    """Which columns hold what."""
    max_length: PositiveInt = 128
    """Longer texts are cut to this many tokens, the special ones included."""


class StudentShape(_Section):
    """What of the teacher the student starts from: which layers, and how wide."""

    layers: (
        Literal["alternate", "spread", "top", "bottom", "search"] | tuple[NonNegativeInt, ...]
    ) = "alternate"
    """alternate (one copied, one skipped), spread (evenly, the first and the last among them), top, bottom,
    the layers by number, from 0; or search, which tries several picks on training rows."""
    count: PositiveInt | None = None
    """How many layers; null is half of the teacher's, and not read with layers by number."""
    hidden_size: PositiveInt | None = None
    """Width of the hidden states; the dimensions that matter most are kept. null is the teacher's."""
    heads: PositiveInt | None = None
    """Attention heads of a layer, of hidden_size / heads dimensions each; null is the teacher's."""
    intermediate_size: PositiveInt | None = None
    """Neurons of a layer's feed-forward part; null is the teacher's."""

    @field_validator("layers")
    @classmethod
    def _ascending(cls, layers: Any) -> Any:
        if isinstance(layers, tuple) and (not layers or list(layers) != sorted(set(layers))):
            raise ValueError(
                f"{list(layers)} must be one or more layers in rising order, none twice"
            )
        return layers


class LossWeights(_Section):
    """How much each loss counts. The defaults are DistilBERT's published weights."""

    distillation: NonNegativeFloat = 5.0
    """Cross entropy between the softened outputs of teacher and student."""
    task: NonNegativeFloat = 2.0
    """The task's own loss on the labels."""
    cosine: NonNegativeFloat = 1.0
    """Direction of hidden states, whatever their norms."""
    temperature: Annotated[float, Field(ge=1.0)] = 2.0
    """Softens both softmaxes while training; 1 leaves them as they are."""
    hidden_layers: Literal["last", "uniform"] | tuple[PositiveInt, ...] = "last"
    """Which hidden states the cosine aligns: the last; uniform, each of the student's with the teacher's
    at the same share of the depth; or the teacher's layers, from 1, one for each of the student's."""

    @model_validator(mode="after")
    def _something_counts(self) -> "LossWeights":
        if self.distillation + self.task + self.cosine == 0:
            raise ValueError("all three weights are 0, so there is nothing to learn")
        return self


class TrainingSettings(_Section):
    """How the student is trained."""

    epochs: PositiveInt = 3
    """Times through the training rows."""
    max_steps: PositiveInt | None = None
    """Stop after this many batches, whatever `epochs` says."""
    batch_size: PositiveInt = 32
    """Rows a step."""
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """The peak, reached after a tenth of the steps; auto follows the model's width."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the order of rows and the validation split."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto times both on this machine and takes bf16 only where it is clearly faster."""
    keep_outputs_gb: NonNegativeFloat = 8.0
    """Most disk (10^9 bytes) for the teacher's outputs, so that it runs in the first epoch alone."""
    patience: PositiveInt = 2
    """Stop after this many epochs without a better validation score."""


class Gate(_Section):
    """What a run must reach, or it fails and publishes nothing."""

    retention: NonNegativeFloat = 0.97
    """Least main metric of the student, as a share of the teacher's."""
    quantization_drop: NonNegativeFloat = 0.01
    """Most that quantization may take from the student's main metric."""
    max_mb: dict[str, NonNegativeFloat] = {}
    """Largest file of a target, in megabytes (10^6 bytes): {target: MB}."""
    max_ms: dict[str, NonNegativeFloat] = {}
    """Largest median latency of a target on the machine of the run, in ms: {target: ms}."""

    @field_validator("max_mb", "max_ms")
    @classmethod
    def _known_targets(cls, limits: dict[str, float]) -> dict[str, float]:
        for name in limits:
            _known_target(name)
        return limits


class Tracking(_Section):
    """Where MLflow keeps the figures."""

    uri: str | None = None
    """MLflow tracking server; null is a sqlite store beside the runs."""
    registered_model: str | None = None
    """Register the exported model under this name."""


class Schedule(_Section):
    """When `serve` runs the pipeline by itself: cron expressions, UTC."""

    cron: str | None = None
    """Run whatever happened."""
    watch: str | None = None
    """Look at the teacher, and run if it changed."""

    @field_validator("cron", "watch")
    @classmethod
    def _valid_cron(cls, expression: str | None) -> str | None:
        if expression is not None:
            try:
                CronSim(expression, datetime.now(UTC))
            except CronSimError as error:
                raise ValueError(f"{expression!r} is not a cron expression: {error}") from None
        return expression


class Pipeline(_Section):
    """One teacher, one data set, one student, and the places where it will run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    """Names the run folder, the MLflow experiment and the deployment."""
    teacher: TeacherSource
    """Where the fine-tuned model comes from."""
    task: str = "auto"
    """auto reads it from the teacher's config; or the name of a head."""
    data: DataSource
    """The rows to learn from and to be judged on."""
    student: StudentShape = StudentShape()
    """What of the teacher the student starts from: which layers, and how wide."""
    baseline: bool = False
    """Also train the same student without the teacher, to see what distillation brought."""
    losses: LossWeights = LossWeights()
    """How much each loss counts."""
    training: TrainingSettings = TrainingSettings()
    """How the student is trained."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("android-arm64", "web-wasm")
    """Where the artifact will run; `distill-deploy targets` lists them."""
    gate: Gate = Gate()
    """What a run must reach."""
    tracking: Tracking = Tracking()
    """Where MLflow keeps the figures."""
    schedule: Schedule = Schedule()
    """When `serve` runs it by itself."""

    @field_validator("targets")
    @classmethod
    def _targets_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_known_target(name) for name in names))
