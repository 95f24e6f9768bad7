"""Everything that can go wrong in a way a person can act on.

DistillDeployError            what was wrong, where, what is accepted, what to do
├── InputError                exit code 2: the input is wrong, nothing was run
│   ├── ConfigError           the pipeline file or an option
│   ├── TeacherError          the teacher's folder: files, family, head
│   ├── DataError             the data set: files, columns, labels, splits
│   └── BundleError           a bundle or a run's output that cannot be read
└── RunError                  exit code 1: the input is right and the run failed
    ├── SourceUnreachable     a hub or server did not answer; the only kind worth a retry
    ├── TrainingError         the loss stopped being a number
    ├── ExportError           the ONNX file is invalid or answers otherwise than its model
    ├── VerificationError     a bundle is not what its manifest says
    ├── GateError             the run finished and a gate said no
    └── OutputError           the output folder is taken, or its disk is full
"""


class DistillDeployError(Exception):
    """Base of all errors shown to the user as one message, without a traceback."""

    exit_code = 1


class InputError(DistillDeployError):
    """The input is wrong; nothing was run."""

    exit_code = 2


class ConfigError(InputError):
    """The pipeline file, or an option on the command line, is wrong."""


class TeacherError(InputError):
    """The teacher cannot be used: files, family or head."""


class DataError(InputError):
    """The data set cannot be used: files, columns, labels or splits."""


class BundleError(InputError):
    """The folder is not a bundle, or not the output of a run."""


class RunError(DistillDeployError):
    """The input is right and the run failed."""


class SourceUnreachable(RunError):  # noqa: N818 - reads as what happened
    """A hub or a server did not answer. Trying again later may help."""


class TrainingError(RunError):
    """Training cannot go on."""


class ExportError(RunError):
    """The exported file is invalid, or does not answer as the model it came from."""


class VerificationError(RunError):
    """A bundle is not what its manifest says, or answers otherwise."""


class GateError(RunError):
    """The run finished, and a gate of the pipeline file said no."""


class OutputError(RunError):
    """The output folder cannot be written: it is taken, or its disk is full."""
