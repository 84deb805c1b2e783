"""`ct stream hops`: the rows of hop emission of a live stream, as a file.

What goes here: options, the file. What does not: which windows are complete (``adapters.stream.hop_rows``).
"""

from __future__ import annotations

from pathlib import Path

import click

from ct_assets.cli.output import emit, writing


@click.command()
@click.option("--view", required=True, help="Name of the definition; its file says `emit: {hop: ...}`.")
@click.option("--since", help="Windows that end after this moment (default: from the first event on); ISO 8601.")
@click.option("--until", help="Windows that end by this moment (default: all that are complete); ISO 8601.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Parquet file to write.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value.")
def hops(view: str, since: str | None, until: str | None, out: Path, as_json: bool) -> None:
    """One row an entity and window end, for every window that is complete, late events included.

    A window is complete when the watermark of all partitions has passed its end. Rows agree with Flink's HOP and Spark's
    window(); docs/streaming.md lists the differences. Asking again later gives what came since with --since.
    """
    import pyarrow.parquet as pq

    from ct_assets.adapters.clock import SystemClock
    from ct_assets.adapters.postgres.connect import connect
    from ct_assets.adapters.postgres.migrate import prepared_url
    from ct_assets.adapters.storage import open_storage
    from ct_assets.adapters.stream.hop_rows import emitted
    from ct_assets.adapters.stream.versions import find_table
    from ct_assets.cli.features import moment
    from ct_assets.settings import load

    settings, rows, last = load(), 0, None
    span = (since and moment(since, "--since"), until and moment(until, "--until"))
    now = round(SystemClock().now().timestamp() * 1e6)
    part, writer = out.with_name(f".{out.name}.part"), None
    try:
        with connect(prepared_url(settings, "stream"), autocommit=True) as conn:
            table = find_table(conn, view)
            for frame in emitted(conn, table, (span[0] or None, span[1] or None), now, open_storage(settings)):
                found = frame.to_arrow()
                with writing("--out", out):
                    writer = writer or pq.ParquetWriter(part, found.schema, compression="zstd")
                writer.write_table(found)
                rows, last = rows + frame.height, frame["window_end"].max() or last
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        emit({"view": view, "rows": 0, "last_window_end": None}, as_json, f"{view}: no window is complete yet")
        return
    part.replace(out)
    value = {"view": view, "rows": rows, "last_window_end": None if last is None else str(last), "file": str(out)}
    emit(value, as_json, f"{view}: {rows} rows up to {last} are in {out}")
