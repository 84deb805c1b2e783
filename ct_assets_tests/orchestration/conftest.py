"""Fixtures of the orchestration tests: an installation on a fresh database, with a Dagster instance in memory.

What goes here: fixtures. What does not: assertions.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from ct_assets.settings import Settings
from ct_assets_tests.orchestration.passes import Passes


@pytest.fixture
def passes(settings: Settings) -> Iterator[Passes]:
    """The sales pipeline, nothing delivered yet."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Passes(settings, instance)
