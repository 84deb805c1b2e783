"""``ct stream``: rolling aggregates of event streams.

What goes here: the group. What does not: its commands (``stream_compute.py``, ``stream_run.py``, ``stream_deploy.py``,
``stream_status.py``, ``stream_hops.py``, ``stream_sync.py``, ``stream_losses.py``,
``stream_retire.py``).
"""

from __future__ import annotations

import click

from ct_assets.cli.stream_compute import compute
from ct_assets.cli.stream_deploy import deploy, plan
from ct_assets.cli.stream_hops import hops
from ct_assets.cli.stream_losses import accept_loss
from ct_assets.cli.stream_retire import retire
from ct_assets.cli.stream_run import run
from ct_assets.cli.stream_status import status
from ct_assets.cli.stream_sync import sync


@click.group()
def stream() -> None:
    """Rolling aggregates of events: compute them for files, run them on a topic."""


stream.add_command(compute)
stream.add_command(run)
stream.add_command(accept_loss)
stream.add_command(plan)
stream.add_command(deploy)
stream.add_command(status)
stream.add_command(retire)
stream.add_command(hops)
stream.add_command(sync)
