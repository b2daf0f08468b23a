"""What can go wrong, as one tree.

    LucidateError               a mistake or a state that the user can mend: one line, exit status 2
    ├── RecipeError             a recipe file, key or value
    ├── SourceError             images that cannot be found or read
    │   ├── ChecksumError       bytes that are not the bytes that were promised
    │   └── UnsafeFileError     a file that tries to do more than hold data
    ├── PredictionsError        a table of predictions that cannot be analyzed
    ├── RunError                a run folder that is missing, taken, unfinished or locked
    ├── DiskFullError           a disk without room for what is to be written; an OSError too
    ├── WeightsError            weights to begin with that cannot be had, read or used
    ├── ExplainError            a heatmap that a model, or a layer, cannot give
    ├── ExportError             a form that a model cannot be given, or a copy that is not the same model
    ├── ServeError              a server that cannot start
    ├── UnknownNameError        a name that no registry holds
    └── Interrupted             work that was asked to stop, saved so that it can go on; exit status 130

Messages are one sentence: the argument, what was expected, what came, what to do.
"""

from dataclasses import dataclass

from lucidate.core.text import one_line


class LucidateError(Exception):
    """Base of every error that is the caller's to mend. status: of the process that it ends."""

    status = 2


class RecipeError(LucidateError):
    """A recipe file, key or value is wrong."""


class SourceError(LucidateError):
    """Images could not be found or read."""


class ChecksumError(SourceError):
    """A file's bytes differ from what was promised."""


class UnsafeFileError(SourceError):
    """A file tries to do more than hold data; nothing of it was executed."""


class PredictionsError(LucidateError):
    """A table of predictions is malformed."""


class RunError(LucidateError):
    """A run folder is missing, taken, unfinished or locked."""


class DiskFullError(LucidateError, OSError):
    """A disk has no room for what is to be written."""


class WeightsError(LucidateError):
    """Weights to begin with cannot be had, read or used."""


class ExplainError(LucidateError):
    """A model, or the layer that was named, cannot give a heatmap."""


class ExportError(LucidateError):
    """A model cannot be given this form, or the copy does not answer as the original."""


class ServeError(LucidateError):
    """A server cannot start with what it was given."""


class UnknownNameError(LucidateError):
    """A name stands in no registry."""


class Interrupted(LucidateError):
    """Work stopped because it was asked to, after saving what it had."""

    status = 130


@dataclass
class raised_as:
    """Let what a library raises, which has no base but Exception, be an error of ours: the words, and what it says."""

    kind: type[LucidateError]
    words: str
    limit: int = 160  # characters of what it says

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, LucidateError):
            raise self.kind(f"{self.words}: {one_line(error, limit=self.limit)}") from None
