"""What the program tells its user in one line instead of a traceback."""

__all__ = [
    "CheckpointError",
    "DivergedError",
    "FolderInUseError",
    "ModelError",
    "NotTrainedError",
    "RunFolderError",
    "TextError",
    "ThreadsError",
    "UsageError",
]


class ThreadsError(ValueError):
    """No number of threads; the message is one complete line for the user."""


class TextError(ValueError):
    """Text that cannot be used; the message is one complete line for the user."""


class CheckpointError(Exception):
    """A file or folder that cannot be used or written; the message is one complete line for the user."""


class FolderInUseError(CheckpointError):
    """Another process holds the folder's lock; the message names it."""


class RunFolderError(Exception):
    """A folder that a run may not or cannot use; the message is one complete line for the user."""


class ModelError(Exception):
    """A file or folder that holds no language model; the message is one complete line for the user."""


class NotTrainedError(ModelError):
    """A model that was neither trained nor loaded is asked for something."""


class UsageError(Exception):
    """A command that cannot be understood."""


class DivergedError(ArithmeticError):
    """The loss is no number any more; the message says where, and what to try."""
