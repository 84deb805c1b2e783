"""The one family of errors that a person is meant to read.

What goes here: the base class and the did-you-mean helper every package uses.
What does not: errors of one package (they live beside what raises them and derive from :class:`CtError`).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable


class CtError(Exception):
    """An error with a remedy: printed by ``ct`` as text, without a traceback.

    ``message`` says what was found, what was expected and where; ``hint`` says what to do about it.
    ``exit_code`` is 1 (rejected, or a check failed) unless the usage itself was wrong (2).
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep message and hint apart so that callers can render or test either."""
        super().__init__(message if hint is None else f"{message}\n  {hint}")
        self.message = message
        self.hint = hint


class UsageError(CtError):
    """The command, an option or a name was wrong: exit code 2."""

    exit_code = 2


# of a path that cannot be what it should: somebody must name another, or make room for this one
_OF_PATHS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
_MORE_OF_PATHS = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)


def wrong_path(what: str, path: object, expected: str, error: OSError) -> UsageError | None:
    """What to say of a path that ``what`` (an option, a URL's scheme) gave; None for errors that are no fault of a path,
    as a disk that is full."""
    if not isinstance(error, _OF_PATHS) and error.errno not in _MORE_OF_PATHS:
        return None
    place = "" if error.filename is None or str(error.filename) == str(path) else f" ({error.filename})"
    return UsageError(
        f"{what} {path}: {(error.strerror or first_line(error)).lower()}{place}; expected {expected}",
        hint="give another path, or make this one such",
    )


def first_line(error: BaseException) -> str:
    """What an error says in one line; its type when it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(value: str, choices: Iterable[str]) -> str | None:
    """The nearest of ``choices`` as a sentence, or None when nothing is near."""
    import difflib

    names = list(choices)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(value.casefold(), folded, n=1, cutoff=0.6)
    return f"did you mean {folded[near[0]]!r}?" if near else None
