"""`ct doctor`: what is wrong with this installation and how to mend it.

What goes here: options and printing. What does not: the checks (``adapters.doctor``).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from ct_assets.cli.output import emit

if TYPE_CHECKING:
    from ct_assets.adapters.doctor import Finding


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line.")
def doctor(as_json: bool) -> None:
    """Say what is wrong with this installation and how to mend it; exit 1 when something is broken."""
    from ct_assets.adapters.doctor import FAIL, examine, guarded
    from ct_assets.settings import load

    found = [*examine(load()), guarded("pipelines", _pipelines)]
    for finding in found:
        remedy = f"\n           -> {finding.remedy}" if finding.remedy else ""
        emit(dataclasses.asdict(finding), as_json, f"{finding.state:<5} {finding.check:<10} {finding.message}{remedy}")
    if any(finding.state == FAIL for finding in found):
        raise click.exceptions.Exit(1)


def _pipelines() -> Finding:
    """Whether the pipeline files load: here, because only the command line may build Dagster's definitions."""
    from ct_assets.adapters.doctor import OK, Finding
    from ct_assets.cli.main import explained

    try:
        from ct_assets.definitions import build_defs  # importing it loads them

        assets = len(list(build_defs({}).resolve_asset_graph().get_all_asset_keys()))
    except Exception as error:
        known = explained(error)
        if known is None:
            raise
        raise known from None
    return Finding("pipelines", OK, f"the pipeline files load: {assets} assets")
