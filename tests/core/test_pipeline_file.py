"""Pipeline files: what is read, and what is said of a wrong one."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from distill_core.config import Pipeline
from distill_core.errors import ConfigError
from distill_core.loss_weights import LossWeights
from distill_core.pipeline_file import looks_like_path, read_pipeline
from distill_core.schemes import FP16, INT4, INT4_REDUCED, INT8
from distill_core.targets import TARGETS

MINIMAL = "name: reviews\nteacher: {source: owner/model}\ndata: {source: owner/data}\n"


def read(folder: Path, text: str, *settings: str) -> Pipeline:
    path = folder / "reviews.yaml"
    path.write_text(text)
    return read_pipeline(path, settings)


def refusal(folder: Path, text: str, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *settings)
    return str(caught.value)


def test_three_keys_are_enough_and_the_rest_are_distilberts_defaults(tmp_path: Path) -> None:
    pipeline = read(tmp_path, MINIMAL)
    losses = pipeline.losses
    assert (losses.distillation, losses.task, losses.cosine, losses.temperature) == (5, 2, 1, 2)
    assert (pipeline.student.layers, pipeline.student.count) == ("alternate", None)
    assert (pipeline.training.epochs, pipeline.training.learning_rate) == (3, "auto")
    assert (pipeline.gate.retention, pipeline.gate.quantization_drop) == (0.97, 0.01)
    assert pipeline.targets == ("android-arm64", "web-wasm")
    assert (pipeline.tracking.uri, pipeline.schedule.cron, pipeline.schedule.watch) == (None,) * 3


def test_what_the_file_says_replaces_the_defaults(tmp_path: Path) -> None:
    text = (
        f"{MINIMAL}student: {{layers: [0, 2, 4]}}\nlosses: {{cosine: 0}}\n"
        "training: {learning_rate: 1e-4, seed: 4294967295}\ntargets: [ios-arm64, ios-arm64]\n"
        "gate: {max_mb: {ios-arm64: 70}}\nschedule: {cron: '0 3 * * *', watch: '*/10 * * * *'}\n"
    )
    pipeline = read(tmp_path, text)
    assert pipeline.student.layers == (0, 2, 4)
    assert (pipeline.losses.cosine, pipeline.losses.task) == (0, 2)
    assert pipeline.training.learning_rate == 1e-4  # a string to YAML 1.1, which wants 1.0e-4
    assert pipeline.targets == ("ios-arm64",)
    assert pipeline.gate.max_mb == {"ios-arm64": 70}
    assert pipeline.schedule.watch == "*/10 * * * *"


def test_a_pipeline_never_changes(tmp_path: Path) -> None:
    pipeline = read(tmp_path, MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        pipeline.training.epochs = 5


def test_settings_of_the_command_line_replace_what_the_file_says(tmp_path: Path) -> None:
    text = f"{MINIMAL}training: {{epochs: 5, seed: 3}}\n"
    settings = ("training.epochs=1", "student.layers=[0, 1]", "training.precision=fp32", "name=x")
    pipeline = read(tmp_path, text, *settings)
    assert (pipeline.training.epochs, pipeline.training.seed) == (1, 3)
    assert pipeline.student.layers == (0, 1)
    assert (pipeline.training.precision, pipeline.name) == ("fp32", "x")


def test_the_last_of_two_settings_holds_and_an_empty_value_is_null(tmp_path: Path) -> None:
    settings = (
        "training.max_steps=9",
        "training.epochs=1",
        "training.epochs=2",
        "training.max_steps=",
    )
    training = read(tmp_path, MINIMAL, *settings).training
    assert (training.epochs, training.max_steps) == (2, None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epochs", "write key.path=value"),
        ("=3", "write key.path=value"),
        ("name.first=x", "'name' is a value, not a section"),
        ("training.epochs=[1", "the value is not YAML"),
        ("losses.temprature=3", "losses.temprature: unknown key; did you mean 'temperature'?"),
        ("training.epochs=many", "training.epochs: "),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, setting: str, message: str) -> None:
    assert message in refusal(tmp_path, MINIMAL, setting)


def test_a_weight_is_a_number_or_goes_from_one_to_another(tmp_path: Path) -> None:
    text = f"{MINIMAL}losses: {{task: {{from: 0, to: 2}}, hidden: 0.5}}\n"
    losses = read(tmp_path, text).losses
    assert (losses.task.at(0.0), losses.task.at(0.25), losses.task.at(1.0)) == (0, 0.5, 2)
    assert losses.at(0.5) == {"distillation": 5, "task": 1, "cosine": 1, "hidden": 0.5}
    assert LossWeights.model_validate(losses.model_dump(mode="json")) == losses
    assert read(tmp_path, text, "losses.task=0").losses.task == 0
    assert (
        read(tmp_path, MINIMAL, "losses.task.from=3", "losses.task.to=1").losses.at(1.0)["task"]
        == 1
    )


@pytest.mark.parametrize("setting", ["losses.task=-1", "losses.task=fast", "losses.task.from=0"])
def test_a_wrong_weight_is_told_of_once(tmp_path: Path, setting: str) -> None:
    assert len(refusal(tmp_path, MINIMAL, setting).splitlines()) == 2


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "pipelines"
    (folder / "rows").mkdir(parents=True)
    text = "name: x\nteacher: {source: ../models/teacher}\ndata: {source: rows}\n"
    pipeline = read(folder, text)
    assert pipeline.teacher.source == str(tmp_path / "models" / "teacher")
    assert pipeline.data.source == str(folder / "rows")


@pytest.mark.parametrize("source", ["bert-base-uncased", "owner/model"])
def test_hub_ids_stay_as_they_are(tmp_path: Path, source: str) -> None:
    text = f"name: x\nteacher: {{source: {source}}}\ndata: {{source: {source}}}\n"
    pipeline = read(tmp_path, text)
    assert (pipeline.teacher.source, pipeline.data.source) == (source, source)


@pytest.mark.parametrize("source", ["./a", "../a", "/a", "~/a", "a/b/c"])
def test_paths_are_told_from_hub_ids(source: str) -> None:
    assert looks_like_path(source)


def test_the_home_of_nobody_is_a_folder_that_is_not_there(tmp_path: Path) -> None:
    text = MINIMAL.replace("owner/model", "~nobody-at-all/teacher")
    assert read(tmp_path, text).teacher.source.endswith("/~nobody-at-all/teacher")


@pytest.mark.parametrize(
    ("section", "key", "nearest"),
    [
        ("trainig: {}", "trainig", "training"),
        ("task: auto\nschedules: {}", "schedules", "schedule"),
        ("student: {layer: top}", "student.layer", "layers"),
        ("losses: {temprature: 3}", "losses.temprature", "temperature"),
        ("losses: {task: {form: 0, to: 1}}", "losses.task.form", "from"),
        ("training: {learning_rates: 3}", "training.learning_rates", "learning_rate"),
        ("gate: {retension: 1}", "gate.retension", "retention"),
        ("tracking: {url: x}", "tracking.url", "uri"),
        ("schedule: {crown: x}", "schedule.crown", "cron"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(
    tmp_path: Path, section: str, key: str, nearest: str
) -> None:
    message = refusal(tmp_path, MINIMAL + section)
    assert f"{key}: unknown key; did you mean '{nearest}'? accepted: " in message
    assert message.startswith(str(tmp_path / "reviews.yaml"))


def test_unknown_keys_are_found_two_sections_deep(tmp_path: Path) -> None:
    text = MINIMAL.replace("owner/data", "owner/data, columns: {txt: a}")
    message = refusal(tmp_path, text)
    assert (
        "data.columns.txt: unknown key; did you mean 'text'? accepted: text, pair, label" in message
    )


def test_a_key_like_no_other_lists_those_there_are(tmp_path: Path) -> None:
    message = refusal(tmp_path, f"{MINIMAL}zzz: 1")
    assert "zzz: unknown key; accepted: name, teacher, task, data" in message


@pytest.mark.parametrize(
    ("section", "key", "says"),
    [
        ("training: {epochs: 1.5}", "training.epochs", "valid integer"),
        ("training: {epochs: 0}", "training.epochs", "greater than 0"),
        ("training: {batch_size: -1}", "training.batch_size", "greater than 0"),
        ("training: {seed: 4294967296}", "training.seed", "less than 4294967296"),
        ("training: {learning_rate: fast}", "training.learning_rate", "valid number"),
        ("training: {learning_rate: .inf}", "training.learning_rate", "finite"),
        ("training: {precision: fp8}", "training.precision", "'auto', 'fp32', 'bf16' or 'fp16'"),
        ("training: [1]", "training", "valid dictionary"),
        (
            "student: {layers: middle}",
            "student.layers",
            "'alternate', 'spread', 'top', 'bottom' or 'search'",
        ),
        ("student: {layers: [a]}", "student.layers.0", "valid integer"),
        ("student: {layers: [0, -1]}", "student.layers.1", "greater than or equal to 0"),
        ("student: {layers: [2, 1]}", "student.layers", "rising order"),
        ("student: {layers: []}", "student.layers", "one or more layers"),
        ("losses: {temperature: 0.5}", "losses.temperature", "greater than or equal to 1"),
        ("losses: {task: .nan}", "losses.task", "Input should be"),
        ("losses: {distillation: 0, task: 0, cosine: 0}", "losses", "nothing to learn"),
        (
            "losses: {distillation: 0, task: {from: 0, to: 0}, cosine: 0}",
            "losses",
            "nothing to learn",
        ),
        ("losses: {task: -1}", "losses.task", "greater than or equal to 0"),
        ("losses: {task: [0, 2]}", "losses.task", "valid number"),
        ("losses: {hidden: {from: 0, to: -1}}", "losses.hidden.to", "greater than or equal to 0"),
        ("losses: {hidden: {from: 0}}", "losses.hidden.to", "is missing and has no default"),
        ("losses: {soft: kl}", "losses.soft", "'cross-entropy' or 'mse'"),
        ("losses: {relation_heads: 0}", "losses.relation_heads", "greater than 0"),
        ("losses: {focal_gamma: -2}", "losses.focal_gamma", "greater than or equal to 0"),
        ("losses: {class_weights: even}", "losses.class_weights", "'balanced'"),
        ("losses: {class_weights: {a: -1}}", "losses.class_weights.a", "greater than or equal"),
        ("targets: [web]", "targets", "accepted: android-arm64, android-arm64-legacy, ios-arm64"),
        ("targets: []", "targets", "at least 1"),
        ("targets: web-wasm", "targets", "valid tuple"),
        ("gate: {max_ms: {web: 3}}", "gate.max_ms", "there is no target 'web'"),
        ("gate: {max_mb: {web-wasm: -3}}", "gate.max_mb.web-wasm", "greater than or equal to 0"),
        ("schedule: {cron: daily}", "schedule.cron", "'daily' is not a cron expression"),
        ("schedule: {watch: '61 * * * *'}", "schedule.watch", "not a cron expression"),
        ("7: seven", "7", "Keys should be strings"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_key(
    tmp_path: Path, section: str, key: str, says: str
) -> None:
    first, *lines = refusal(tmp_path, MINIMAL + section).splitlines()
    assert first == f"{tmp_path / 'reviews.yaml'}: the pipeline file is wrong"
    assert {line.split(": ")[0] for line in lines} <= {f"  {key}", f"  {key.rsplit('.', 1)[0]}"}
    assert re.search(rf"^  {re.escape(key)}: .*{re.escape(says)}", "\n".join(lines), re.MULTILINE)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-x", "a b", "é", "x" * 64, "2024"])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    quoted = name if name == "2024" else f"'{name}'"  # a number, as YAML reads it
    message = refusal(tmp_path, MINIMAL.replace("name: reviews", f"name: {quoted}"))
    assert re.search(r"^  name: (String|Input) should .* \(got ", message, re.MULTILINE)


@pytest.mark.parametrize("key", ["teacher.source", "data.source"])
def test_an_empty_source_is_not_the_folder_of_the_file(tmp_path: Path, key: str) -> None:
    assert f"{key}: String should have at least 1" in refusal(tmp_path, MINIMAL, f"{key}=''")


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "nam: x\nteacher: {sourc: y}\n").splitlines()
    assert lines[1:] == [
        "  name: is missing and has no default",
        "  teacher.source: is missing and has no default",
        "  teacher.sourc: unknown key; did you mean 'source'? accepted: source, revision",
        "  data: is missing and has no default",
        "  nam: unknown key; did you mean 'name'? accepted: "
        "name, teacher, task, data, student, baseline, losses, training, targets, gate, graph, bundle, "
        "tracking, schedule",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a pipeline file is a mapping with at least name, teacher and data"),
        ("- a\n- b\n", "a pipeline file is a mapping"),
        ("name: [x\n", "is not YAML: "),
        ("a: !!python/object/apply:os.system [exit]\n", "is not YAML: could not determine"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert refusal(tmp_path, text).startswith(f"{tmp_path / 'reviews.yaml'}: {says}")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read_pipeline(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_pipeline(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: is not UTF-8 text"):
        read_pipeline(tmp_path / "latin.yaml")


def test_a_file_has_no_limit_where_one_of_its_targets_has_none(tmp_path: Path) -> None:
    more = "targets: [android-arm64, ios-arm64, web-wasm]\ngate: {max_mb: {android-arm64: 20, web-wasm: 9}}\n"
    pipeline = read(tmp_path, MINIMAL + more)
    assert (pipeline.most_bytes(INT4), pipeline.most_bytes(INT4_REDUCED)) == (None, 9_000_000)


KIOSK = "targets:\n  - android-arm64\n  - {name: kiosk, like: linux-x86-64, %s}\n"


@pytest.mark.parametrize("scheme", ["all-4-bits", "int8-embeddings-4-bits"])
def test_onnxruntimes_format_has_no_numbers_of_4_bits(tmp_path: Path, scheme: str) -> None:
    more = KIOSK % f"schemes: [int8, {scheme}]"
    assert read(tmp_path, MINIMAL + more).rows[1].schemes[1].name == scheme
    says = f"graph.ort_format: kiosk tries {scheme}, and onnxruntime's own format has no numbers of 4 bits"
    assert says in refusal(tmp_path, MINIMAL + more + "graph: {ort_format: true}\n")


@pytest.mark.parametrize(
    ("asked", "free"), [("answer: label", 8_192), ("inputs: int32", 8_192), ("ort_format: true", 0)]
)
def test_a_limit_leaves_room_for_what_an_app_asks_of_the_file(tmp_path, asked, free):
    more = f"targets: [web-wasm]\ngate: {{max_mb: {{web-wasm: 9}}}}\ngraph: {{{asked}}}\n"
    pipeline = read(tmp_path, MINIMAL + more)
    assert pipeline.most_bytes(INT4_REDUCED) == 9_000_000 - free
    chosen_within, judged_by = pipeline.limits_unshaped.max_mb, pipeline.limits.max_mb
    assert chosen_within == {"web-wasm": pytest.approx(9 - free / 1e6)}
    assert judged_by == {"web-wasm": 9}


def test_a_limit_below_what_an_app_asks_for_allows_nothing(tmp_path: Path) -> None:
    more = "targets: [web-wasm]\ngate: {max_mb: {web-wasm: 0.001}}\ngraph: {answer: label}\n"
    assert read(tmp_path, MINIMAL + more).limits_unshaped.max_mb == {"web-wasm": 0}


def test_a_row_of_ones_own_is_one_that_there_is_with_other_values(tmp_path: Path) -> None:
    fields = "schemes: [int8, fp16], instruction_set: AVX2, max_mb: 12, max_ms: 9"
    more = KIOSK % fields + "gate: {max_ms: {kiosk: 3}, max_mb: {android-arm64: 20}}\n"
    pipeline = read(tmp_path, MINIMAL + more)
    phone, kiosk = pipeline.rows
    assert phone == TARGETS["android-arm64"]
    assert kiosk == replace(
        TARGETS["linux-x86-64"], name="kiosk", schemes=(INT8, FP16), instruction_set="AVX2"
    )
    assert pipeline.limits.max_mb == {"kiosk": 12, "android-arm64": 20}
    assert pipeline.limits.max_ms == {"kiosk": 3}
    assert (pipeline.most_bytes(INT8), pipeline.most_bytes(FP16)) == (12_000_000, 12_000_000)
    assert pipeline.most_bytes(INT4) == 20_000_000
    assert Pipeline.model_validate(pipeline.model_dump(mode="json")) == pipeline


@pytest.mark.parametrize(
    ("row", "key", "says"),
    [
        ("{name: k, like: linux}", "targets.0", "like: there is no target 'linux'; accepted: and"),
        ("{name: web-wasm, like: web-wasm}", "targets.0", "'web-wasm' is a target already"),
        ("{name: k, like: web-wasm, schemes: [int9]}", "targets.0", "no scheme 'int9'; accepted"),
        (
            "{name: k, like: web-wasm, verifiers: [moon]}",
            "targets.0",
            "no verifier 'moon'; accepted",
        ),
        ("{name: k, like: web-wasm, schemes: []}", "targets.0.schemes", "at least 1"),
        (
            "{name: k, like: web-wasm, schemes: [all-4-bits]}",
            "targets.0",
            "onnxruntime-web cannot load all-4-bits; accepted: int8, ",
        ),
        (
            "{name: k, like: ios-arm64, runtime: tvm}",
            "targets.0",
            "no runtime 'tvm'; accepted: onn",
        ),
        ("{name: k, like: ios-arm64, provider: TPU}", "targets.0", "no provider 'TPU'; accepted"),
        ("{name: k, like: ios-arm64, max_mb: -1}", "targets.0.max_mb", "greater than or equal"),
        ("{name: k}", "targets.0.like", "is missing and has no default"),
        ("{name: a/b, like: ios-arm64}", "targets.0.name", "String should match pattern"),
        (
            "{name: k, like: ios-arm64, scheme: [int8]}",
            "targets.0.scheme",
            "unknown key; did you mean 'schemes'?",
        ),
        ("{name: k, like: web-wasm}, {name: k, like: ios-arm64}", "targets", "'k' names two rows"),
        ("3", "targets.0", "valid string"),
    ],
)
def test_a_wrong_row_is_named_alone_with_what_is_accepted(
    tmp_path: Path, row: str, key: str, says: str
) -> None:
    _, *lines = refusal(tmp_path, f"{MINIMAL}targets: [{row}]").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"  {key}: ")
    assert says in lines[0]


def test_a_signing_key_is_a_file_beside_the_pipeline_file_whether_it_is_there_or_not(
    tmp_path: Path,
) -> None:
    pipeline = read(tmp_path, MINIMAL, "bundle.signing_key=key.pem")
    assert pipeline.bundle.signing_key == str(tmp_path / "key.pem")
