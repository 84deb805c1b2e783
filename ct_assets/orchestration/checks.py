"""Asset checks: few names, detail in metadata. What the ledger decided, shown where people look.

What goes here: one `multi_asset_check` per contract. What does not: the rules themselves (the contract's verdict per
row has already stopped what is wrong before anybody could read it).

- `deliveries_accepted`: no delivery waits for somebody. Not blocking: a rejected delivery was not published at all, and
  the other days go on; automation asks the ledger per day.
- `table_equals_ledger`: what readers see is what was judged. Blocking: when the table was changed behind the ledger,
  nothing downstream may be built from it.
- `data_is_fresh`: the newest published business day is young enough (`freshness.data`). Dagster's own freshness looks at
  the time of materialization, which a backfill of an old day turns green. Not blocking: waiting makes no data.
"""

# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

import datetime as dt
from collections.abc import Iterator
from typing import Any

import dagster as dg

from ct_assets.orchestration.names import Names
from ct_assets.orchestration.resources import RESOURCE

ACCEPTED, AGREES, FRESH = "deliveries_accepted", "table_equals_ledger", "data_is_fresh"


def contract_checks(names: Names, contract_version: str, limit: dt.timedelta | None = None) -> dg.AssetChecksDefinition:
    """The checks of one contract on its table. ``limit``: how old the newest business day may be (None: no such check)."""
    fresh = dg.AssetCheckSpec(
        FRESH,
        asset=names.clean,
        description="The newest published business day, against `freshness.data`.",
    )
    specs = [
        *([fresh] if limit is not None else []),
        dg.AssetCheckSpec(
            ACCEPTED,
            asset=names.clean,
            description=f"Every delivery was published under contract {contract_version}; none was rejected.",
        ),
        dg.AssetCheckSpec(
            AGREES,
            asset=names.clean,
            blocking=True,
            description="Every published day has as many visible rows as were judged good.",
        ),
    ]

    @dg.multi_asset_check(
        specs=specs, name=f"{names.pipeline}_contract", can_subset=True, required_resource_keys={RESOURCE}
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        installation = getattr(context.resources, RESOURCE)
        with installation.ledger() as conn:
            for key in context.selected_asset_check_keys:
                if key.name == FRESH and limit is not None:
                    yield data_age(conn, names, installation.clock.now().date(), limit)
                else:
                    yield evaluate(conn, names, key)

    return check


def evaluate(conn: Any, names: Names, key: dg.AssetCheckKey) -> dg.AssetCheckResult:
    """One check's result, from the ledger as it is now."""
    from ct_assets.orchestration import facts

    if key.name == ACCEPTED:
        found = facts.open_incidents(conn, names.lines)
        columns = ("day", "rule", "message", "times", "last seen")
    else:
        found = facts.table_disagreements(conn, names.lines)
        columns = ("day", "ledger", "table")
    records = [dg.TableRecord({name: row[name] for name in columns}) for row in found[:100]]
    schema = dg.TableSchema([dg.TableColumn(name) for name in columns])
    metadata: dict[str, Any] = {"open": len(found)}
    if records:
        metadata["detail"] = dg.MetadataValue.table(records, schema=schema)
    return dg.AssetCheckResult(
        passed=not found,
        check_name=key.name,
        asset_key=key.asset_key,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata=metadata,
        description=found[0].get("message") if found else None,
    )


def data_age(conn: Any, names: Names, today: dt.date, limit: dt.timedelta) -> dg.AssetCheckResult:
    """How old the newest published business day is on ``today``; nothing published yet is no breach."""
    from ct_assets.adapters import ledger

    days = ledger.published_days(conn, names.lines)
    age = today - days[-1] if days else None
    said = "nothing is published yet" if age is None else f"data through {days[-1]}, {age.days} days behind"
    return dg.AssetCheckResult(
        passed=age is None or age <= limit,
        check_name=FRESH,
        asset_key=names.clean,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "data through": str(days[-1]) if days else "-",
            "days behind": age.days if age else 0,
            "at most": limit.days,
        },
        description=said
        if age is None or age <= limit
        else f"{said}; at most {limit.days} are allowed: ask the supplier",
    )
