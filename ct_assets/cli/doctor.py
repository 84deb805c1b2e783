"""`ct doctor`: what is wrong with this installation and how to mend it.

What goes here: options and printing. What does not: the checks (``adapters.doctor``).
"""

from __future__ import annotations

import dataclasses

import click

from ct_assets.cli.output import emit


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")
def doctor(as_json: bool) -> None:
    """Say what is wrong with this installation and how to mend it; exit 1 when something is broken."""
    from ct_assets.adapters.doctor import FAIL, examine
    from ct_assets.settings import load

    found = examine(load())
    for finding in found:
        remedy = f"\n           -> {finding.remedy}" if finding.remedy else ""
        emit(dataclasses.asdict(finding), as_json, f"{finding.state:<5} {finding.check:<10} {finding.message}{remedy}")
    if any(finding.state == FAIL for finding in found):
        raise click.exceptions.Exit(1)
