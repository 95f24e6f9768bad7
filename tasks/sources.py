"""Where a teacher comes from. A new source is one new class here and one entry in `SOURCES`."""

import errno
import shutil
from pathlib import Path
from typing import Protocol

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from distill_core.config import TeacherSource
from distill_core.errors import SourceUnreachable, TeacherError
from distill_core.pipeline_file import looks_like_path
from distill_core.teacher import FILES, ModelDescription, describe, model_files
from distill_core.weight_files import refuse_unsafe


class Source(Protocol):
    """A place that models come from."""

    def matches(self, source: TeacherSource) -> bool:
        """Tell whether this is where the source points."""

    def locate(self, source: TeacherSource) -> Path:
        """Return a folder here that holds the model as it is now.

        Raises:
            TeacherError: there is no such model, or its weights are not safetensors.
            SourceUnreachable: the place does not answer.
        """


class Folder:
    """A local folder in transformers' layout."""

    def matches(self, source: TeacherSource) -> bool:
        """Tell a path from a hub id; a folder that is there is a path whatever its name."""
        return Path(source.source).exists() or looks_like_path(source.source)

    def locate(self, source: TeacherSource) -> Path:
        """Return the folder itself."""
        folder = Path(source.source)
        if not folder.is_dir():
            raise TeacherError(f"teacher.source: {folder} is not a folder")
        refuse_unsafe((path.name for path in folder.iterdir()), str(folder))
        return folder


class Hub:
    """The Hugging Face hub, or the server that HF_ENDPOINT names."""

    def matches(self, source: TeacherSource) -> bool:
        """Everything that is no folder is a hub id."""
        return True

    def locate(self, source: TeacherSource) -> Path:
        """Download the files that are read of one commit into huggingface_hub's cache."""
        try:
            model = HfApi().model_info(source.source, revision=source.revision)
            listing = [file.rfilename for file in model.siblings or ()]
            refuse_unsafe((name for name in listing if "/" not in name), source.source)
            # From the root: onnx/config.json is none of them, 1_Pooling/config.json is.
            wanted = [n for n in listing if any(Path("/", n).match(f"/{p}") for p in FILES)]
            # By commit: a branch may move meanwhile, and if the hub went away now, huggingface_hub
            # would make do with whatever commit of the branch it saw last.
            return Path(snapshot_download(source.source, revision=model.sha, allow_patterns=wanted))
        except RevisionNotFoundError:
            raise TeacherError(
                f"teacher.revision: {source.source} has no revision {source.revision!r}"
            ) from None
        except (RepositoryNotFoundError, HFValidationError, GatedRepoError):
            raise TeacherError(
                f"teacher.source: {source.source} is neither a folder here nor a model on the hub that "
                "this machine may read; for a private or gated one set HF_TOKEN"
            ) from None
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
            if error.errno == errno.ENOSPC:
                raise
            reason = str(error).splitlines()[0]
            raise SourceUnreachable(
                f"teacher.source: {source.source} is no folder here, and the hub did not answer: {reason}"
            ) from None


SOURCES: tuple[Source, ...] = (Folder(), Hub())


def locate(source: TeacherSource) -> Path:
    """Return a folder here that holds a teacher as it is now, wherever it comes from.

    Raises:
        TeacherError: there is no such model, or its weights are not safetensors.
        SourceUnreachable: its place does not answer.
    """
    return next(place for place in SOURCES if place.matches(source)).locate(source)


def fetch(source: TeacherSource, folder: Path) -> None:
    """Copy what is read of a teacher into an empty folder, where it stays as it is.

    Raises:
        TeacherError: there is no such model, or its weights are not safetensors.
        SourceUnreachable: its place does not answer.
    """
    origin = locate(source)
    for path in model_files(origin):
        copy = folder / path.relative_to(origin)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)


def describe_teacher(source: TeacherSource, folder: Path, task: str) -> ModelDescription:
    """Describe the teacher that a source led to, in messages by the source's own name.

    Args:
        source: of the pipeline file.
        folder: the teacher, or a copy of it.
        task: of the pipeline file.

    Raises:
        TeacherError: it cannot be used.
    """
    try:
        return describe(folder, task)
    except TeacherError as error:
        raise TeacherError(str(error).replace(str(folder), source.source)) from None
