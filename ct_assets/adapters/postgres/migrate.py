"""Bring a database to the schema this code needs, by alembic; refuse a newer one.

What goes here: the version check (fast, without alembic) and the upgrade. What does not: the migrations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ct_assets.adapters.postgres.connect import Part, connect, url_for
from ct_assets.errors import CtError
from ct_assets.settings import Settings, redact

if TYPE_CHECKING:
    import psycopg

VERSIONS = Path(__file__).parent / "migrations" / "versions"
_LOCK = 7_236_001  # advisory lock of migrations: any number nobody else uses


class SchemaTooNew(CtError):
    """The database was migrated by a newer version of this code."""


class SchemaBehind(CtError):
    """The database lacks migrations that this code needs."""


@dataclass(frozen=True)
class SchemaState:
    """``found`` is None for a database that was never migrated; versions are four digits, in order."""

    found: str | None
    needed: str

    @property
    def behind(self) -> bool:
        """Whether migrations are missing."""
        return self.found is None or self.found < self.needed

    @property
    def too_new(self) -> bool:
        """Whether the database knows migrations that this code does not."""
        return self.found is not None and self.found > self.needed


def known_versions() -> list[str]:
    """Numbers of the migrations in this code, oldest first."""
    return sorted(path.name[:4] for path in VERSIONS.glob("[0-9][0-9][0-9][0-9]_*.py"))


def state(conn: psycopg.Connection) -> SchemaState:
    """What the database has and what this code needs."""
    found = None
    if conn.execute("select to_regclass('public.ct_schema_version')").fetchone() != (None,):
        row = conn.execute("select max(version_num) from public.ct_schema_version").fetchone()
        found = row[0] if row else None
    return SchemaState(found, known_versions()[-1])


def check(url: str) -> SchemaState:
    """The state of the database at ``url``; raises :class:`SchemaTooNew`."""
    with connect(url) as conn:
        found = state(conn)
    if found.too_new:
        raise SchemaTooNew(
            f"the database {redact(url)} has schema {found.found}, this code knows up to {found.needed}",
            hint="install the version of ct-assets that migrated it (or a later one); nothing was changed",
        )
    return found


def migrate(url: str) -> SchemaState:
    """Apply what is missing, one process at a time; returns the state found before. Idempotent."""
    before = check(url)
    if not before.behind:
        return before
    with connect(url, autocommit=True) as gate:
        gate.execute("select pg_advisory_lock(%s)", (_LOCK,))
        if state(gate).behind:  # another process may have done it while this one waited
            _upgrade(url)
    return before


def require(url: str) -> None:
    """Refuse to work on a database that is behind or too new."""
    found = check(url)
    if found.behind:
        raise SchemaBehind(
            f"the database {redact(url)} has schema {found.found or '(none)'}, this code needs {found.needed}",
            hint="run `ct db migrate`",
        )


_prepared: set[str] = set()


def prepared_url(settings: Settings, part: Part = "ledger") -> str:
    """The URL of one part, its schema as this code needs it.

    An embedded database is migrated on the way; a server that others run is only checked (``ct db migrate`` is theirs
    to call). Checked once a process. Raises :class:`SchemaTooNew`, :class:`SchemaBehind`.
    """
    url = url_for(settings, part)
    if url not in _prepared:
        migrate(url) if getattr(settings, f"{part}_url") is None else require(url)
        _prepared.add(url)
    return url


def _upgrade(url: str) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    engine = sqlalchemy.create_engine(_driver(url), poolclass=sqlalchemy.NullPool)
    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        with engine.begin() as connection:  # all migrations or none
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def _driver(url: str) -> str:
    """SQLAlchemy's ``postgresql://`` means psycopg2; name the driver this code uses."""
    return "postgresql+psycopg://" + url.split("://", 1)[1]
