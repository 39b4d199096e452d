"""Errors that are no bugs: of what a user gave, or of the machine.

A command ends each of these with its message alone, and any other error with its traceback. An `OSError` is of these
too, since files, disks and networks are not this project's. Every message names the thing and the remedy.
"""


class UserError(ValueError):
    """What a user gave cannot be used: a config, a file, a prompt."""


class DivergedError(UserError, FloatingPointError):
    """The loss, the gradient or the parameters are not finite. What was good is kept."""


class MissingPackageError(UserError, ImportError):
    """An optional package is not installed. The message names the extra that installs it."""


class PartedError(UserError, RuntimeError):
    """Processes that should hold the same rows or the same parameters hold different ones."""


class StorageError(OSError):
    """What a run has to keep could not be written. The message names the place, what is whole there, and the remedy."""
