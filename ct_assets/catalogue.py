"""Every built-in asset on one screen: key, stage, grain, owner, contract, freshness.

What goes here: the table, read from the specs. What does not: a second place where any of it is said.

    python -m ct_assets.catalogue
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

from ct_assets.platform.spec import PipelineSpec, load_pipelines

COLUMNS = ("key", "stage", "grain", "owner", "contract", "freshness")


def rows(root: Path | None = None) -> Iterator[dict[str, str]]:
    """One row per asset of every pipeline below ``root`` (default: the built-in ones)."""
    from ct_assets.contracts.odcs import load_contract
    from ct_assets.orchestration.names import names_of

    for spec in load_pipelines(root or Path(__file__).parent / "defs").values():
        if spec.source.mode == "streaming":
            yield from _stream_rows(spec)
            continue
        schema = load_contract(spec.source.contract).schema(spec.source.schema)
        names = names_of(spec, schema)
        for key in (*names.data_keys, *names.feature_keys):
            yield _row(key.path, "day", spec, f"{schema.name} {schema.version}" if key == names.clean else "")
        for key in names.training_keys:
            yield _row(key.path, "none", spec, "")


def _stream_rows(spec: PipelineSpec) -> Iterator[dict[str, str]]:
    from ct_assets.orchestration.stream_pipeline import resolve_stream

    pipeline = resolve_stream(spec)
    yield _row(pipeline.events.path, "none", spec, f"{pipeline.schema.name} {pipeline.schema.version}")
    yield _row(pipeline.snapshot.path, "hour", spec, "")
    for key in pipeline.learnt_keys:
        yield _row(key.path, "none", spec, "")


def _row(path: object, grain: str, spec: PipelineSpec, contract: str) -> dict[str, str]:
    parts = [str(part) for part in path]  # pyright: ignore[reportGeneralTypeIssues]
    limit = spec.freshness.data if contract else spec.freshness.model if parts[0] == "model" else None
    return {
        "key": "/".join(parts),
        "stage": parts[0],
        "grain": grain,
        "owner": f"team:{spec.owner.team}",
        "contract": contract,
        "freshness": _span(limit) if limit else "",
    }


def _span(limit: dt.timedelta) -> str:
    return f"{limit.days} d" if limit.days else f"{limit.seconds // 60} min"


if __name__ == "__main__":
    from ct_assets.cli.output import table

    print(table(list(rows()), COLUMNS))
