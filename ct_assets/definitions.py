"""The one object Dagster loads: every pipeline below `defs/`, one automation sensor per team, the shared resource.

What goes here: putting the parts together; :func:`build_defs` lets tests replace resources without monkeypatching.
What does not: assets, policies, anything heavy (the code location loads in about a second, without a database).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from ct_assets.orchestration.automation import team_sensors
from ct_assets.orchestration.resources import RESOURCE, Installation
from ct_assets.orchestration.sheets import SHEETS, sheet_writer

# Dagster warns about its own use of a beta parameter whenever a component's asset checks are resolved.
warnings.filterwarnings("ignore", message="Parameter `execution_type` of function", category=dg.BetaWarning)

ROOT = Path(__file__).parent.parent


def build_defs(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions; ``overrides`` replaces resources by name."""
    resources = {RESOURCE: Installation(), SHEETS: sheet_writer, **(overrides or {})}
    shared = dg.Definitions(resources=resources, executor=dg.in_process_executor)
    loaded = dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=ROOT), shared)
    return dg.Definitions.merge(loaded, dg.Definitions(sensors=team_sensors(loaded.resolve_all_asset_specs())))


defs = build_defs()
