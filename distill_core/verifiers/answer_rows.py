"""Answer rows with an ONNX file, in a place of its own: python answer_rows.py FOLDER [exact].

It needs numpy and onnxruntime alone, in any version, and writes what the three others of this folder write.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime


def main(folder: Path, exact: bool = True) -> None:
    """Answer the rows of `job.json`, into `answers.f32` and, when they are all there, `answers.json`.

    Exact products of bytes are those of processors that do not saturate, on one that does.
    """
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    session = load(job["model"], exact)
    inputs = [entry.name for entry in session.get_inputs()]
    names = [entry.name for entry in session.get_outputs()]
    rows, start = [], time.monotonic()
    with (folder / "answers.f32").open("wb") as stream:
        for row in job["rows"]:
            feeds = {name: np.asarray([row[name]], dtype=job["dtype"]) for name in inputs}
            outputs = [np.asarray(output, dtype="<f4") for output in session.run(names, feeds)]
            for output in outputs:
                stream.write(output.tobytes())
            rows.append(
                {name: list(output.shape) for name, output in zip(names, outputs)}  # noqa: B905
            )
            if time.monotonic() - start > job["seconds"]:
                break
    answers = {"runtime": f"onnxruntime {onnxruntime.__version__}", "rows": rows}
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


def load(model: str, exact: bool) -> onnxruntime.InferenceSession:
    """Load a file, with exact products where onnxruntime has them for it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4 if exact else 3
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:
        if not exact:
            raise
        return load(model, exact=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), exact="exact" in sys.argv[2:])
