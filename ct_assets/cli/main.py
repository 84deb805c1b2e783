"""The command group `ct`, its did-you-mean and its exit codes.

What goes here: which module holds which command (each is imported only when used, so that `ct verdict` does not pay
for Dagster), and how errors become text. What does not: commands.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from ct_assets.cli.interrupts import lost_connection
from ct_assets.errors import CtError, did_you_mean

# name -> (module, attribute, one line of help; kept here so that `ct --help` imports nothing)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "verdict": ("ct_assets.cli.verdict", "verdict", "Judge files against a contract, without a database."),
    "contract": ("ct_assets.cli.contract", "contract", "Propose, show and test data contracts."),
    "deliver": ("ct_assets.cli.delivery", "deliver", "Copy files into a pipeline's landing area."),
    "run": ("ct_assets.cli.run", "run", "Bring everything delivered through a pipeline's assets."),
    "status": ("ct_assets.cli.status", "status", "What is delivered, published, rejected, stale."),
    "quarantine": ("ct_assets.cli.quarantine", "quarantine", "List, show, export and replay quarantined rows."),
    "model": ("ct_assets.cli.model", "model", "List and show model versions, gates and the champion."),
    "predict": ("ct_assets.cli.predict", "predict", "Read the champion's published forecasts."),
    "sample": ("ct_assets.cli.sample", "sample", "Write seeded sample data with its planted truth."),
    "events": ("ct_assets.cli.events", "events", "Bring events to a Kafka topic or an embedded log."),
    "stream": ("ct_assets.cli.stream", "stream", "Rolling aggregates of events: for files, or live on a topic."),
    "dead-letter": ("ct_assets.cli.dead_letter", "dead_letter", "List, show and replay messages that were set aside."),
    "features": ("ct_assets.cli.features", "features", "Read feature values: now, at a moment, as known at a moment."),
    "serve": ("ct_assets.cli.serve", "serve", "Answer with the champion's scores over HTTP."),
    "score": ("ct_assets.cli.serve", "score", "Score a file of entities once, as `ct serve` does."),
    "demo": ("ct_assets.cli.demo", "demo", "Run the whole way once on sample data and check its own claims."),
    "ui": ("ct_assets.cli.ui", "ui", "Start the Dagster UI and daemon on this installation."),
    "env": ("ct_assets.cli.ui", "env", "Print what the dagster commands need in their environment."),
    "url": ("ct_assets.cli.database", "url", "Print the PostgreSQL URL and leave the server running."),
    "psql": ("ct_assets.cli.database", "psql", "Open psql on this installation's database."),
    "db": ("ct_assets.cli.database", "db", "Migrate and inspect the database schema."),
    "stop": ("ct_assets.cli.database", "stop", "Stop the embedded PostgreSQL."),
    "doctor": ("ct_assets.cli.doctor", "doctor", "Say what is wrong with this installation and how to mend it."),
}


class LazyGroup(click.Group):
    """A click group that imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds the command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when there is none of that name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS) or f"one of: {', '.join(COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ct-assets")
def ct() -> None:
    """Continuous training on Dagster: contracts, point-in-time features, gated retraining."""


def main(argv: list[str] | None = None) -> Any:
    """Entry point: errors that a person can mend are printed as text; exit 0 done, 1 rejected, 2 wrong usage."""
    try:
        sys.exit(ct.main(args=argv, prog_name="ct", standalone_mode=False) or 0)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(2 if isinstance(wrong, click.UsageError) else wrong.exit_code)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        known = explained(error) or lost_connection(error)
        if known is None:
            raise
        click.echo(f"error: {known.message}", err=True)
        if known.hint:
            click.echo(f"  {known.hint}", err=True)
        sys.exit(known.exit_code)


def explained(error: BaseException | None) -> CtError | None:
    """The error that a person can mend, also when Dagster wrapped it (a pipeline file is read inside its loader)."""
    while error is not None and not isinstance(error, CtError):
        error = error.__cause__
    return error
