"""The one object Dagster loads: every pipeline below `defs/`, one automation sensor per team, the shared resource.

What goes here: putting the parts together; :func:`build_defs` lets tests replace resources without monkeypatching.
What does not: assets, policies, anything heavy (the code location loads in about a second, without a database).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from ct_assets.components.retraining_pipeline import shared
from ct_assets.orchestration.automation import team_sensors

ROOT = Path(__file__).parent.parent


def build_defs(overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions; ``overrides`` replaces resources by name."""
    loaded = dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=ROOT), shared(overrides))
    return dg.Definitions.merge(loaded, dg.Definitions(sensors=team_sensors(loaded.resolve_all_asset_specs())))


defs = build_defs()
