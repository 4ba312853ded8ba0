"""The errors that a command reports in one line instead of a traceback, each with the command's exit status."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "CheckpointError",
    "DivergedError",
    "FolderInUseError",
    "GroupError",
    "MissingNameError",
    "MissingPackageError",
    "ModelError",
    "NotTrainedError",
    "ReportedError",
    "RunFolderError",
    "TextError",
    "ThreadsError",
    "UsageError",
    "missing_name",
    "require",
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


class GroupError(ReportedError):
    """The processes that share a training do not fit together; the message names the one that differs."""


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


class MissingPackageError(ReportedError, ModuleNotFoundError):
    """A package that is needed only here is not installed; the message says for what it is needed."""

    status = 1


class MissingNameError(AttributeError, NotImplementedError):
    """A module that mirrors one of PyTorch's lacks a name; the message lists those that it has.

    NotImplementedError, as for all that PyTorch has and fastmlp lacks; AttributeError, so that hasattr returns False.
    """


def require(package: str, purpose: str) -> None:
    """Import a package that only a part of fastmlp needs; serving a model needs none but NumPy.

    package  its name as pip has it
    purpose  what needs it: the subject of "needs"
    Raises MissingPackageError if it is not installed.
    """
    module = package.replace("-", "_")
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        message = f"{purpose} needs {package}, which is not installed: pip install {package}"
        raise MissingPackageError(message, name=module) from None


def missing_name(module: str, public: Sequence[str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a module's __getattr__, which says of an unknown name what exists, and its __dir__."""

    def getattr_(name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        raise MissingNameError(f"{module} has no {name}; it has {', '.join(public)}")

    return getattr_, lambda: sorted(public)
