"""The graph as people review it: keys, inputs, owners, policies; and what must hold of every definition.

Needs no database, no secrets and no data: the code location loads without them.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ct_assets import catalogue
from ct_assets.definitions import build_defs
from ct_assets.orchestration.instance import CONFIGURATION
from ct_assets.orchestration.names import STAGES

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("snapshot.json")
HEAVY = (
    "pandas", "feast", "mlflow", "sklearn", "skops", "kubernetes", "polars", "pyarrow", "matplotlib", "numpy", "psycopg",
    "sqlalchemy", "alembic", "confluent_kafka", "pyspark", "pyflink", "duckdb", "dagster_pandas", "dagster_postgres",
)  # fmt: skip


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_defs()


def described(defs: dg.Definitions) -> dict:
    """The reviewable part of the graph."""
    graph = defs.resolve_asset_graph()
    assets = {}
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        policy = node.freshness_policy
        condition = node.automation_condition
        assets["/".join(key.path)] = {
            "deps": sorted("/".join(parent.path) for parent in node.parent_keys),
            "group": node.group_name,
            "owners": list(node.owners),
            "kinds": sorted(node.kinds),
            "partitions": type(node.partitions_def).__name__ if node.partitions_def else None,
            "backfill": str(node.backfill_policy.policy_type.value) if node.backfill_policy else None,
            "runs when": condition.get_label() if condition else None,
            "fresh within": str(policy.fail_window.to_timedelta()) if policy else None,  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
            "checks": sorted(check.name for check in node.check_keys),
        }
    repository = defs.get_repository_def()
    return {
        "assets": assets,
        "jobs": sorted(job for job in repository.job_names if not job.startswith("__")),
        "sensors": {s.name: s.default_status.value for s in sorted(repository.sensor_defs, key=lambda s: s.name)},
    }


def test_the_graph_is_the_one_that_was_reviewed(defs: dg.Definitions):
    """Change the graph on purpose: `SNAPSHOT_WRITE=1 pytest ct_assets_tests/graph`, then read the diff."""
    found = json.dumps(described(defs), indent=2) + "\n"
    if os.environ.get("SNAPSHOT_WRITE") == "1":
        SNAPSHOT.write_text(found)
    assert found == SNAPSHOT.read_text()


def test_every_asset_has_owner_description_group_and_a_known_stage(defs: dg.Definitions):
    for spec in defs.resolve_all_asset_specs():
        name = "/".join(spec.key.path)
        assert spec.owners, f"{name} has no owner: add `owner:` to its defs.yaml"
        assert spec.description, f"{name} has no description"
        assert spec.group_name not in (None, "default"), f"{name} has no group"
        assert len(spec.key.path) == 3, f"{name}: an asset key is stage/domain/name"
        assert spec.key.path[0] in STAGES, f"{name}: the stage is one of {STAGES}"


def test_files_are_daily_snapshots_hourly_and_models_not_partitioned(defs: dg.Definitions):
    for spec in defs.resolve_all_asset_specs():
        stage, domain, _ = spec.key.path
        expected = None
        if domain == "sales" and stage in ("raw", "clean", "quarantine", "feature"):
            expected = dg.DailyPartitionsDefinition
        elif stage == "snapshot":
            expected = dg.HourlyPartitionsDefinition
        assert (type(spec.partitions_def) if spec.partitions_def else None) is expected, spec.key


def test_a_correction_reaches_the_feature_days_of_its_look_back_and_no_others(defs: dg.Definitions):
    from ct_assets.features.spec import LOOKBACK_DAYS

    graph = defs.resolve_asset_graph()
    lines, features = (
        dg.AssetKey(["clean", "sales", "daily_product_sales"]),
        dg.AssetKey(["feature", "sales", "product_daily"]),
    )
    mapping = graph.get_partition_mapping(features, lines)
    days = graph.get(features).partitions_def
    assert isinstance(days, dg.DailyPartitionsDefinition)
    one = days.subset_with_partition_keys(["2011-01-10"])
    children = mapping.get_downstream_partitions_for_partitions(one, days, days)
    keys = sorted(children.get_partition_keys())
    assert keys[0] == "2011-01-10"
    assert len(keys) == LOOKBACK_DAYS + 1


def test_the_catalogue_lists_exactly_the_assets(defs: dg.Definitions):
    assert {row["key"] for row in catalogue.rows()} == {"/".join(s.key.path) for s in defs.resolve_all_asset_specs()}


def bodies() -> list[tuple[str, int]]:
    """(place, lines) of every function that Dagster runs as asset, check, op or sensor; docstrings not counted."""
    found = []
    for folder in ("components", "orchestration", "defs"):
        for file in sorted((ROOT / "ct_assets" / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and any(_decorates(d) for d in node.decorator_list):
                    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                    found.append(
                        (
                            f"{file.relative_to(ROOT)}:{node.lineno} {node.name}",
                            (node.end_lineno or 0) - first.lineno + 1,
                        )
                    )
    return found


def _decorates(node: ast.expr) -> bool:
    name = node.func if isinstance(node, ast.Call) else node
    return isinstance(name, ast.Attribute) and name.attr in (
        "asset",
        "multi_asset",
        "asset_check",
        "multi_asset_check",
        "op",
        "sensor",
        "schedule",
    )


def test_asset_bodies_are_short():
    found = bodies()
    assert len(found) >= 7
    long = [f"{place}: {lines} lines" for place, lines in found if lines > 15]
    assert not long, f"move the logic into orchestration.stages or an adapter: {long}"


def test_nothing_heavy_is_loaded_and_nothing_is_read_from_the_environment():
    """Recurs at the start of every run: feast alone would cost three seconds."""
    code = f"import sys, ct_assets.definitions; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_the_instance_configuration_in_deploy_is_the_generated_one():
    assert (ROOT / "deploy" / "dagster.yaml").read_text() == CONFIGURATION


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["dagster", "definitions", "validate", "-w", "workspace.yaml"],
        ["dg", "check", "defs"],
        ["dg", "check", "yaml"],
        ["dagster", "asset", "list", "-m", "ct_assets.definitions"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_dagsters_own_commands_accept_the_project(command: list[str], tmp_path: Path):
    program = Path(sys.executable).with_name(command[0])
    environment = {
        "PATH": f"{program.parent}{os.pathsep}{os.defpath}",
        "HOME": str(tmp_path),
        "DAGSTER_HOME": str(tmp_path),
        "VIRTUAL_ENV": str(Path(sys.prefix)),
    }
    done = subprocess.run(
        [str(program), *command[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if command[1] == "asset":
        assert "model/sales/demand_7d" in done.stdout
