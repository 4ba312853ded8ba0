"""The errors that a command reports in one line instead of a traceback, each with the command's exit status."""

__all__ = [
    "CheckpointError",
    "DivergedError",
    "FolderInUseError",
    "ModelError",
    "NotTrainedError",
    "ReportedError",
    "RunFolderError",
    "TextError",
    "ThreadsError",
    "UsageError",
]


class ReportedError(Exception):
    """The base of the errors whose message is one complete line for the user."""

    status = 2  # the exit status of a command that raises it: 2 for wrong usage or unusable input, 1 for a failure


class ThreadsError(ReportedError, ValueError):
    """The number of threads is not valid."""


class TextError(ReportedError, ValueError):
    """The text cannot be used."""


class CheckpointError(ReportedError):
    """A file or folder cannot be read, written or locked."""

    status = 1


class FolderInUseError(CheckpointError):
    """Another process holds the folder's lock; the message names it."""


class RunFolderError(ReportedError):
    """A run may not or cannot use the folder."""


class ModelError(ReportedError):
    """The file or folder holds no language model."""


class NotTrainedError(ModelError):
    """The model was neither trained nor loaded."""


class UsageError(ReportedError):
    """The command line is wrong."""


class DivergedError(ReportedError, ArithmeticError):
    """The loss became infinite or NaN; the message says at which step, and what to try."""

    status = 1
