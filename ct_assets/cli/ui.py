"""`ct ui`: the Dagster UI and daemon on this installation's database; `ct env`: the same for Dagster's own commands.

What goes here: starting them, and stopping every process they started. What does not: what they load (`workspace.yaml`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from ct_assets.cli.output import say

STOP_SECONDS = 15.0


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; Dagster has no log-in, keep it local."
)
def ui(port: int, host: str) -> None:
    """Start the Dagster UI and daemon; Ctrl-C stops both. The database keeps running (`ct stop` ends it)."""
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.orchestration.instance import dagster_environment
    from ct_assets.settings import load

    settings = load()
    prepared_url(settings)
    environment = {**os.environ, **dagster_environment(settings)}
    say(f"Dagster UI: http://{host}:{port}  (Ctrl-C stops it)")
    raise click.exceptions.Exit(run_until_stopped(command(host, port), environment))


@click.command()
def env() -> None:
    """Print the variables with which Dagster's own commands work on this installation: ``eval "$(ct env)"``.

    Without them `dagster asset materialize` keeps its runs in a temporary folder. Starts the embedded server if needed.
    """
    import shlex

    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.orchestration.instance import dagster_environment
    from ct_assets.settings import load

    settings = load()
    prepared_url(settings)
    for name, value in dagster_environment(settings).items():
        click.echo(f"export {name}={shlex.quote(value)}")


def command(host: str, port: int) -> list[str]:
    """UI and daemon as one process tree that loads the workspace (this package alone when there is none)."""
    from ct_assets.settings import project_root

    workspace = project_root() / "workspace.yaml"
    what = ["-w", str(workspace)] if workspace.is_file() else ["-m", "ct_assets.definitions"]
    dagster = Path(sys.executable).with_name("dagster")
    return [str(dagster), "dev", *what, "--host", host, "--port", str(port)]


def run_until_stopped(arguments: list[str], environment: dict[str, str]) -> int:
    """Run in a process group of its own; on SIGINT or SIGTERM end the whole group. Returns an exit code.

    `dagster dev` starts a webserver, a daemon and code servers; ending only the parent leaves some of them running.
    """
    asked: list[float] = []  # when a stop was asked for

    with subprocess.Popen(arguments, env=environment, start_new_session=True) as process:

        def stop(signum: int, frame: object) -> None:
            asked.append(time.monotonic())
            end_group(process.pid, signal.SIGTERM)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = wait(process, asked)
        finally:
            end_group(process.pid, signal.SIGKILL)
            for number, handler in before.items():
                signal.signal(number, handler)
    return 0 if asked else code


def end_group(group: int, number: signal.Signals) -> None:
    """Signal every process of the group that is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def wait(process: subprocess.Popen[bytes], asked: list[float]) -> int:
    """Wait for the end; once it was asked to stop, for :data:`STOP_SECONDS` at most."""
    while not asked or time.monotonic() - asked[0] < STOP_SECONDS:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=0.5)
    return 1
