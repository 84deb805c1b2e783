"""``ct stream``: rolling aggregates of event streams.

What goes here: the group. What does not: its commands (``stream_compute.py``, ``stream_run.py``).
"""

from __future__ import annotations

import click

from ct_assets.cli.stream_compute import compute
from ct_assets.cli.stream_run import run


@click.group()
def stream() -> None:
    """Rolling aggregates of events: compute them for files, run them on a topic."""


stream.add_command(compute)
stream.add_command(run)
