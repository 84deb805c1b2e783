"""Whether the folders of the embedded server can be used: said before PostgreSQL would say it in its own words.

What goes here: looking at a home and a data folder, and the refusal in words. What does not: mending (nothing here
changes a file), starting (``server``).
"""

from __future__ import annotations

import os
from pathlib import Path

from ct_assets.errors import CtError

MAJOR = "18"  # of the programs in the wheel; a data folder of another major version needs pg_upgrade
CONTROL_BYTES = 8192  # PG_CONTROL_FILE_SIZE of PostgreSQL's src/include/catalog/pg_control.h


class UnsoundFolder(CtError):
    """A folder that cannot be used as it is; nothing in it was changed."""


def usable_home(home: Path) -> Path:
    """``home`` itself; raises :class:`UnsoundFolder` when it is no folder, lies below a file, or is not writable."""
    nearest = next((path for path in (home, *home.parents) if os.path.lexists(path)), home)
    hint = "set CT_HOME to a folder you may write to (it is made when absent)"
    if not nearest.is_dir():
        what = "is a file" if nearest == home else f"lies below {nearest}, which is no folder"
        raise UnsoundFolder(f"CT_HOME is {home}, expected a folder: it {what}", hint=hint)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UnsoundFolder(f"CT_HOME is {home}, but {nearest} may not be written to by this account", hint=hint)
    return home


def sound_data(data: Path) -> None:
    """Raise :class:`UnsoundFolder` when ``data`` holds something that this PostgreSQL cannot run on.

    An absent or empty folder is sound: the first start fills it.
    """
    if not data.is_dir() or not any(data.iterdir()):
        return
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise _damaged(data, "has no file PG_VERSION") from None
    except PermissionError:
        return  # another account's folder: PostgreSQL itself decides
    if found != MAJOR:
        raise UnsoundFolder(
            f"{data} was made by PostgreSQL {found or '(empty PG_VERSION)'}, this installation brings {MAJOR}",
            hint="dump it with the old version and load it here, or set CT_DATABASE_URL to a server of that version",
        )
    control = data / "global" / "pg_control"
    size = control.stat().st_size if control.is_file() else 0
    if size != CONTROL_BYTES:
        raise _damaged(data, f"has a global/pg_control of {size} bytes, expected {CONTROL_BYTES}")


def _damaged(data: Path, how: str) -> UnsoundFolder:
    return UnsoundFolder(
        f"the database folder {data} is damaged: it {how}; nothing was changed",
        hint=f"restore it from a backup, or move it away (mv {data} {data}.damaged) and deliver the files again",
    )
