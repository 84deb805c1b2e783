"""Numbered migrations: from nothing to now, once, by one process at a time; a newer schema is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from ct_assets.adapters.postgres import migrate as migrations
from ct_assets.adapters.postgres.migrate import SchemaBehind, SchemaTooNew, check, migrate, prepared_url, require
from ct_assets.settings import load


@pytest.fixture
def empty_url(pg_url: str) -> str:
    """A database without anything in it."""
    with psycopg.connect(pg_url, autocommit=True) as conn:
        conn.execute("drop schema ledger, store, clean, quarantine, feature, stream, online cascade")
        conn.execute("drop table public.ct_schema_version")
    return pg_url


def _tables(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "select table_schema || '.' || table_name from information_schema.tables where table_schema = 'ledger'"
        )
        return {row[0] for row in rows}


def test_from_nothing_to_now_and_once_only(empty_url: str) -> None:
    assert check(empty_url).behind
    before = migrate(empty_url)
    assert before.found is None
    assert {"ledger.delivery", "ledger.publication", "ledger.incident", "ledger.champion"} <= _tables(empty_url)
    again = migrate(empty_url)
    assert (again.found, again.behind) == (migrations.known_versions()[-1], False)


def test_numbers_have_no_gap_and_sql_lies_beside_python() -> None:
    found = migrations.known_versions()
    assert found == [f"{i:04d}" for i in range(1, len(found) + 1)]
    for path in migrations.VERSIONS.glob("[0-9]*.py"):
        assert f'revision = "{path.name[:4]}"' in path.read_text()


def test_a_newer_schema_is_refused_and_untouched(pg_url: str) -> None:
    with psycopg.connect(pg_url, autocommit=True) as conn:
        conn.execute("update public.ct_schema_version set version_num = '9999'")
    for act in (migrate, check, require):
        with pytest.raises(SchemaTooNew, match="schema 9999, this code knows up to"):
            act(pg_url)
    with psycopg.connect(pg_url) as conn:
        assert conn.execute("select version_num from public.ct_schema_version").fetchall() == [("9999",)]


def test_a_migration_that_fails_leaves_nothing(empty_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All or none: the second of two migrations fails, and not even the first is there."""
    import shutil

    copy = tmp_path / "migrations"
    shutil.copytree(migrations.VERSIONS.parent, copy)
    (copy / "versions" / "9000_broken.py").write_text(
        f'"""Fails."""\nfrom alembic import op\nrevision = "9000"\ndown_revision = "{migrations.known_versions()[-1]}"\n\n\n'
        'def upgrade() -> None:\n    """Fail."""\n    op.execute("select 1/0")\n'
    )
    monkeypatch.setattr(migrations, "VERSIONS", copy / "versions")
    with pytest.raises(Exception, match="division by zero"):
        migrate(empty_url)
    assert _tables(empty_url) == set()


def test_two_processes_at_once(empty_url: str) -> None:
    code = "import sys; from ct_assets.adapters.postgres.migrate import migrate; migrate(sys.argv[1])"
    both = [subprocess.Popen([sys.executable, "-c", code, empty_url], stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert not check(empty_url).behind


def test_a_server_of_others_is_checked_not_migrated(empty_url: str) -> None:
    with pytest.raises(SchemaBehind, match="ct db migrate"):
        prepared_url(load({"CT_DATABASE_URL": empty_url}))
    assert _tables(empty_url) == set()


def test_alembic_is_not_imported_when_nothing_is_to_do(pg_url: str) -> None:
    code = (
        "import sys; from ct_assets.adapters.postgres.migrate import migrate; migrate(sys.argv[1]);"
        "print('alembic' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, pg_url], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
