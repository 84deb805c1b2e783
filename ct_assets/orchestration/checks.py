"""Asset checks: few names, detail in metadata. What the ledger decided, shown where people look.

What goes here: one `multi_asset_check` per contract. What does not: the rules themselves (the contract's verdict per
row has already stopped what is wrong before anybody could read it).

- `deliveries_accepted`: no delivery waits for somebody. Not blocking: a rejected delivery was not published at all, and
  the other days go on; automation asks the ledger per day.
- `table_equals_ledger`: what readers see is what was judged. Blocking: when the table was changed behind the ledger,
  nothing downstream may be built from it.
"""

# No `from __future__ import annotations`: it breaks Dagster's `context` annotations.

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ct_assets.orchestration.names import Names
from ct_assets.orchestration.resources import RESOURCE

ACCEPTED, AGREES = "deliveries_accepted", "table_equals_ledger"


def contract_checks(names: Names, contract_version: str) -> dg.AssetChecksDefinition:
    """The checks of one contract on its table."""
    specs = [
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
        with getattr(context.resources, RESOURCE).ledger() as conn:
            for key in context.selected_asset_check_keys:
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
