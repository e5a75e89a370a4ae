"""Every error a user can cause, in one hierarchy.

The command line turns these into one line on stderr and the exit code below; everything else is a bug and
keeps its traceback. A message says what was found and what was expected; ``hint`` says what to do next.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_INTERRUPTED = 130


class EdgedistillError(Exception):
    """Base of all errors with a user-facing message.

    Args:
        message: One sentence: what was found and what was expected.
        hint: One sentence: the next command or change to try.
    """

    exit_code: int = EXIT_USAGE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class UsageError(EdgedistillError):
    """An option or argument that makes no sense."""


class CheckpointError(EdgedistillError):
    """A checkpoint that is missing, damaged or inconsistent."""


class UnsupportedModelError(EdgedistillError):
    """A checkpoint that is sound but of an architecture or feature that the exporter does not know."""


class ModelNotFoundError(EdgedistillError):
    """A ``--model`` argument that names nothing: no built-in, no path, no reachable hub repository."""


class ProfileError(EdgedistillError):
    """A hardware profile that is unknown, malformed or contradictory."""


class BudgetError(EdgedistillError):
    """A result that would not fit the memory or disk of its target."""


class OutputError(EdgedistillError):
    """An output path that is in use, read-only or full."""


class BundleError(EdgedistillError):
    """A bundle that is incomplete, altered, or of a newer schema than this version reads."""


class PublishError(EdgedistillError):
    """An upload that the Hub refuses."""


class ExportError(EdgedistillError):
    """An exported bundle that does not pass its own check."""


class TemplateError(EdgedistillError):
    """A chat template that is malformed, unsafe or does not end."""


class ContextLengthError(EdgedistillError):
    """A prompt that is longer than the bundle's context."""


class GenerationError(EdgedistillError):
    """Generation settings or requests that cannot be carried out."""


class OutOfMemoryError(GenerationError):
    """Memory that ran out while tokens were computed."""


class MissingExtraError(EdgedistillError):
    """A feature whose optional dependency is not installed."""


class SuiteError(EdgedistillError):
    """A suite of prompts that is unknown, malformed, or lacks what a metric needs."""


class VerifyError(EdgedistillError):
    """Samples, margins or settings from which no verdict can be reached."""


class CalibrationError(EdgedistillError):
    """Calibration data that is missing, too short, or of another tokenizer."""


class ChildError(EdgedistillError):
    """A child process that ended without a result; ``kind`` says why: crash, exception, memory, time, cancelled."""

    def __init__(self, message: str, *, kind: str = "crash", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
