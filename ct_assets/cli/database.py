"""`ct url`, `ct stop`, `ct psql`, `ct db migrate|status`: the database of this installation.

What goes here: options and printing. What does not: the server and the migrations (``adapters.postgres``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ct_assets.cli.output import emit, say

if TYPE_CHECKING:
    from ct_assets.adapters.postgres.server import Server

PARTS = ("ledger", "dagster", "stream", "registry")


@click.command()
@click.option("--part", type=click.Choice(PARTS), default="ledger", show_default=True, help="Whose database.")
def url(part: str) -> None:
    """Print the PostgreSQL URL as the last line; an embedded server is started and left running."""
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.settings import load

    settings = load()
    if part != "dagster":
        address = prepared_url(settings, part)  # pyright: ignore[reportArgumentType]
    else:
        from ct_assets.adapters.postgres.connect import url_for

        address = url_for(settings, "dagster")
    _say_where(settings)
    click.echo(address)


def _say_where(settings) -> None:
    from ct_assets.adapters.postgres.server import Server

    if settings.ledger_url is None and (settings.home / "postgres.location").exists():
        say(f"data lies in {Server(settings.home).base}: root's server may not work inside {settings.home}")


@click.command()
def stop() -> None:
    """Stop the embedded PostgreSQL; its data stays."""
    from ct_assets.adapters.postgres.server import Server
    from ct_assets.settings import load

    server = Server(load().home)
    workers = _workers(server)
    stopped = server.stop()
    if stopped and workers:
        what = f"{len(workers)} stream workers run" if len(workers) > 1 else "a stream worker runs"
        again = "start" if len(workers) > 1 else "starts"
        say(f"stopped, but {what} ({', '.join(workers)}) and {again} it again: end workers (SIGTERM) first")
    else:
        say("stopped" if stopped else "the embedded PostgreSQL was not running")


def _workers(server: Server) -> list[str]:
    """Who will start the server again; nobody when it cannot be asked (it is stopped in any case)."""
    from ct_assets.adapters.postgres.connect import DatabaseUnreachable, connect
    from ct_assets.adapters.stream import overview

    if server.running() is None:
        return []
    try:
        with connect(server.url(), autocommit=True) as conn:
            return overview.workers(conn)
    except DatabaseUnreachable:
        return []


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--part", type=click.Choice(PARTS), default="ledger", show_default=True, help="Whose database.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(part: str, arguments: tuple[str, ...]) -> None:
    """Open psql on this installation's database; ARGUMENTS go to psql (ct psql -- -c 'select 1')."""
    import os
    import subprocess

    from ct_assets.adapters.postgres.connect import url_for
    from ct_assets.adapters.postgres.server import Server
    from ct_assets.settings import load

    settings = load()
    address = url_for(settings, part)  # pyright: ignore[reportArgumentType]
    program = Server(settings.home).program("psql")
    given = list(arguments[1:] if arguments[:1] == ("--",) else arguments)
    done = subprocess.run([str(program), "-X", *given], env={**os.environ, **_libpq(address)}, check=False)
    raise click.exceptions.Exit(1 if done.returncode else 0)


def _libpq(address: str) -> dict[str, str]:
    """The URL as libpq's variables: on a command line every user of the machine could read its password."""
    from psycopg.conninfo import conninfo_to_dict

    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    names |= {"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT"}
    return {names[key]: str(value) for key, value in conninfo_to_dict(address).items() if key in names and value}


@click.group()
def db() -> None:
    """Migrate and inspect the database schema."""


@db.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")
def migrate(as_json: bool) -> None:
    """Apply the migrations that are missing; a schema newer than this code is refused."""
    from ct_assets.adapters.postgres.connect import url_for
    from ct_assets.adapters.postgres.migrate import migrate as apply
    from ct_assets.settings import load

    before = apply(url_for(load()))
    changed = before.behind
    text = (
        f"schema {before.found or '(none)'} -> {before.needed}" if changed else f"schema {before.needed}: nothing to do"
    )
    emit({"before": before.found, "now": before.needed, "changed": changed}, as_json, text)


@db.command()
@click.option("--pipeline", required=True, help="Name of the pipeline, as in its defs.yaml.")
@click.option("--yes", is_flag=True, help="Do it; without, only the plan is printed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")
def reshape(pipeline: str, yes: bool, as_json: bool) -> None:
    """Give the columns of a published table the types that the contract has now, for every revision.

    One transaction: columns, the views on them with their grants, rollups. Refused when a value would change.
    """
    from ct_assets.adapters import reshape as shape
    from ct_assets.adapters.datasets import pipeline_dataset
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.settings import load

    settings = load()
    dataset = pipeline_dataset(pipeline, settings)
    with connect(prepared_url(settings), autocommit=True) as conn:
        found = shape.reshape(conn, dataset, say) if yes else shape.plan(conn, dataset)
    for change in found:
        value = {"table": dataset.name, "column": change.column, "from": change.found, "to": change.wanted}
        text = f"store.{dataset.name} {change.column}: {change.found} -> {change.wanted}"
        emit(
            {**value, "problem": change.problem, "done": yes},
            as_json,
            text + (f": {change.problem}" if change.problem else ""),
        )
    problems = any(change.problem for change in found)
    if not found:
        say(f"store.{dataset.name} has the types of the contract: nothing to do")
    elif not yes:
        say("this cannot be done: see docs/guides/contracts.md" if problems else "add --yes to do it")
    if problems:
        raise click.exceptions.Exit(1)


@db.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")
def db_status(as_json: bool) -> None:
    """Say which schema the database has and which one this code needs; exit 1 when they differ."""
    from ct_assets.adapters.postgres.connect import url_for
    from ct_assets.adapters.postgres.migrate import check
    from ct_assets.settings import load

    found = check(url_for(load()))
    text = f"schema {found.found or '(none)'}, this code needs {found.needed}"
    emit({"found": found.found, "needed": found.needed, "behind": found.behind}, as_json, text)
    if found.behind:
        say("run `ct db migrate`")
        raise click.exceptions.Exit(1)
