"""The pipeline file as frozen models: the docstring under a field is its help text."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from cronsim import CronSim, CronSimError
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from distill_core.gate import Gate
from distill_core.graph.shape import GraphShape
from distill_core.loss_weights import LossWeights
from distill_core.places import OwnTarget, Place, known_target
from distill_core.schemes import Scheme
from distill_core.section import Section
from distill_core.targets import Target, find_target


class TeacherSource(Section):
    """Where the fine-tuned model comes from."""

    source: Annotated[str, Field(min_length=1)]
    """A folder in transformers' layout, or a Hugging Face hub id (`owner/name`)."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null takes the main branch."""


class Columns(Section):
    """Which columns of the data set hold what."""

    text: str = "text"
    """The text to judge."""
    pair: str | None = None
    """The second text, where two are judged together."""
    label: str | None = "label"
    """The class, a number from 0 or the name that the teacher gives it; a list of those; or a score.
    null reads none, where a head can do without."""
    tokens: str = "tokens"
    """Words to tag, as lists of strings."""
    tags: str = "tags"
    """The class of each word, by number or name."""
    question: str = "question"
    """What is asked of a context."""
    context: str = "context"
    """The text that holds the answer."""
    answers: str = "answers"
    """Right answers, as SQuAD has them: {text: [...], answer_start: [...]}, empty where there are none."""
    choices: str | Annotated[tuple[str, ...], Field(min_length=2)] = "choices"
    """Texts of which one goes with `text`: a column of lists, or one column for each, [ending0, ending1].
    `label` is the right one's number, from 0, or its letter."""


class DataSource(Section):
    """The rows to learn from and to be judged on."""

    source: Annotated[str, Field(min_length=1)]
    """A folder with {train,validation,test}.{parquet,jsonl,csv}, or a hub data set id."""
    config: str | None = None
    """The configuration of a hub data set that has several."""
    columns: Columns = Columns()
    """Which columns hold what; answers.text is the field `text` of the column `answers`."""
    label_names: dict[str, str] = Field(default_factory=dict)
    """What the data set calls a class: what the teacher calls it, for those that have two names."""
    unlabelled: str | None = None
    """More text, best of the kind that the student will read, a file with one example a line or a column:
    only the teacher speaks on it."""
    unlabelled_kept: Literal["all", "telling"] = "all"
    """telling: of these texts those alone in which a tagger of words finds something. Where there are more
    than a training should read, they teach most; few texts are better read whole."""
    augment: Literal["auto"] | NonNegativeInt = "auto"
    """Copies of each training text with some words replaced by words alike: only the teacher speaks on
    them. TinyBERT, whose recipe this is, had 20. auto makes 2 where train has fewer than 30,000 rows."""
    max_length: PositiveInt = 128
    """Longer texts are cut to this many tokens, the special ones included; for masked language modelling
    they are divided, and nothing is lost."""

    @model_validator(mode="after")
    def _something_to_keep(self) -> "DataSource":
        if self.unlabelled_kept == "telling" and self.unlabelled is None:
            raise ValueError(
                "unlabelled_kept: telling, and there are no texts to choose from; name them in unlabelled"
            )
        return self


class StudentShape(Section):
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
    packed_words: Literal["before", "after"] | None = None
    """Store word embeddings in 2 bits a weight, so that all other weights learn with what files hold: before
    the training, or after it, which then goes on for a third of its epochs at half the rate (better, where
    there are unlabelled rows)."""
    vocabulary: Literal["auto"] | PositiveInt | None = None
    """Tokens that stay after the training: auto are those of the training rows, a number the most frequent
    of them; what spells any other word stays too. null is all."""

    @field_validator("layers")
    @classmethod
    def _ascending(cls, layers: Any) -> Any:
        if isinstance(layers, tuple) and (not layers or list(layers) != sorted(set(layers))):
            raise ValueError(
                f"{list(layers)} must be one or more layers in rising order, none twice"
            )
        return layers


class TrainingSettings(Section):
    """How the student is trained."""

    epochs: PositiveInt = 3
    """Times through the training rows."""
    max_steps: PositiveInt | None = None
    """Stop after this many batches, whatever `epochs` says."""
    batch_size: PositiveInt = 32
    """Rows a step."""
    rows_at_once: PositiveInt | None = None
    """Rows that go through the models together; fewer take less memory and teach the same, more slowly.
    null is the whole batch, until memory runs out."""
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    """The peak, reached after a tenth of the steps; auto follows the model's width."""
    unlabelled: Literal["between", "first"] = "between"
    """When unlabelled and augmented rows are read: a part of them in each epoch, batch by batch among the
    labelled ones, or all of them first."""
    dropout: Literal["auto"] | bool = "auto"
    """As the teacher's config has it. auto turns it on where there is no teacher, or fewer than 30,000
    rows to learn from."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides the order of rows and the validation split."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto times them on this machine, fp16 on GPUs alone, and takes another than fp32 only where it is
    clearly faster."""
    keep_outputs_gb: NonNegativeFloat = 8.0
    """Most disk (10^9 bytes) for the teacher's outputs, so that it runs in the first epoch alone."""
    patience: PositiveInt | None = None
    """Stop after this many epochs without a better validation score. null goes through all of them, since
    the learning rate falls to 0 at their end: WNUT-17, stopped after 5 of 15, kept 0.895 of the teacher's F1
    on test, and three whole trainings 0.906 to 0.932."""

    @property
    def more_epochs(self) -> int:
        """Those that follow where words are packed after the training: a third as many, one at least."""
        return -(-self.epochs // 3)


class BundleSettings(Section):
    """What a bundle has beside its model."""

    signing_key: str | None = None
    """PEM file of the ed25519 private key that signs manifest.json; null signs nothing."""


class Tracking(Section):
    """Where MLflow keeps the figures."""

    uri: str | None = None
    """MLflow tracking server; null is a sqlite store beside the runs."""
    registered_model: str | None = None
    """Register the exported model under this name."""


class Schedule(Section):
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


class Pipeline(Section):
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
    targets: tuple[Place, ...] = ("android-arm64", "web-wasm")
    """Where the artifact will run; `distill-deploy targets` lists them. Or rows of one's own, as
    {name: kiosk, like: linux-x86-64, schemes: [int8, fp16], max_mb: 12}."""
    gate: Gate = Gate()
    """What a run must reach."""
    graph: GraphShape = GraphShape()
    """What the files of the bundles do for their app."""
    bundle: BundleSettings = BundleSettings()
    """What a bundle has beside its model."""
    tracking: Tracking = Tracking()
    """Where MLflow keeps the figures."""
    schedule: Schedule = Schedule()
    """When `serve` runs it by itself."""

    @property
    def rows(self) -> tuple[Target, ...]:
        """The rows of the targets."""
        return tuple(
            place.row if isinstance(place, OwnTarget) else find_target(place)
            for place in self.targets
        )

    @property
    def limits(self) -> Gate:
        """The gate, with the limits that rows of targets bring along."""
        return self.gate.limited(self.targets)

    @property
    def limits_unshaped(self) -> Gate:
        """The limits of files that no app's shape was put on yet, which may make them larger."""
        return self.limits.leaving(self.graph.added_bytes)

    def most_bytes(self, scheme: Scheme) -> int | None:
        """Return how large the file of a scheme may be for all targets that try it, if each of them says.

        Args:
            scheme: of one target at least.
        """
        targets = [row.name for row in self.rows if scheme in row.schemes]
        limits = self.limits_unshaped.max_mb
        if not all(name in limits for name in targets):
            return None
        return round(1e6 * min(limits[name] for name in targets))

    @field_validator("targets")
    @classmethod
    def _targets_exist(cls, places: tuple[str | OwnTarget, ...]) -> tuple[str | OwnTarget, ...]:
        if not places:
            raise ValueError("there must be at least 1 target")
        named = {
            place.name if isinstance(place, OwnTarget) else known_target(place): place
            for place in places
        }
        own = [place.name for place in places if isinstance(place, OwnTarget)]
        twice = [name for name in named if own.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} names two rows; give each a name of its own")
        return tuple(named.values())

    @model_validator(mode="after")
    def _limits_are_of_targets(self) -> "Pipeline":
        own = {place.name for place in self.targets if isinstance(place, OwnTarget)}
        for key in ("max_mb", "max_ms"):
            for name in getattr(self.gate, key).keys() - own:
                try:
                    known_target(name)
                except ValueError as error:
                    raise ValueError(f"gate.{key}: {error}") from None
        return self

    @model_validator(mode="after")
    def _format_holds_the_schemes(self) -> "Pipeline":
        # Such a file is written (onnxruntime 1.32), and refused as it is loaded: "Unsupported tensor
        # data type".
        rows = self.rows if self.graph.ort_format else ()
        found = [(row.name, s.name) for row in rows for s in row.schemes if s.embedding_bits == 4]
        if found:
            name, scheme = found[0]
            raise ValueError(
                f"graph.ort_format: {name} tries {scheme}, and onnxruntime's own format has no "
                "numbers of 4 bits; accepted: false, or other schemes there"
            )
        return self
