"""What `ct` prints and where: stdout is the answer, stderr is progress and logs.

What goes here: the few ways commands speak. What does not: anything that decides.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from ct_assets.errors import UsageError, wrong_path
from ct_assets.json_values import json_text

T = TypeVar("T")


def emit(value: Any, as_json: bool, text: str | None = None) -> None:
    """One answer on stdout: a line of JSON, or ``text`` (the value itself when absent).

    When the reader went away (`| head`), the rest is not shown but the work goes on: its exit code must mean that it
    was done.
    """
    line = json_text(value) if as_json else str(value) if text is None else text
    try:
        click.echo(line)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def keep_inputs(outputs: Mapping[str, Path], inputs: Mapping[str, Path]) -> None:
    """Refuse to write over what is read, whatever the path is called. Raises UsageError naming both."""
    taken = dict(inputs)
    for name, path in outputs.items():
        for other, there in taken.items():
            if path.resolve() == there.resolve() or (path.exists() and there.exists() and path.samefile(there)):
                raise UsageError(f"{name} {path} is {other} as well", hint=f"give {name} a path of its own")
        taken[name] = path


def parquet(option: str, out: Path) -> None:
    """Refuse to write Parquet into a file that is called something else. Raises UsageError."""
    if out.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx"):
        raise UsageError(f"{option} {out} would be Parquet", hint=f"call it {out.with_suffix('.parquet')}")


@contextmanager
def writing(option: str, path: Path, expected: str = "a path in a folder that can be written to") -> Iterator[None]:
    """Say in words when what ``option`` names cannot be written. Raises UsageError naming option, path and cause."""
    try:
        yield
    except OSError as error:
        wrong = wrong_path(option, path, expected, error)
        if wrong is None:
            raise
        raise wrong from error


def say(message: str) -> None:
    """A line for the person watching, on stderr."""
    click.echo(message, err=True)


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Pass items through with a progress bar on a terminal's stderr; silent elsewhere."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    length = total if total is not None else (len(items) if isinstance(items, Sequence) else None)
    yield from track(items, description=label, total=length, console=Console(stderr=True), transient=True)


@contextmanager
def working(label: str) -> Iterator[None]:
    """Show that something long is under way (a spinner on a terminal, one line elsewhere)."""
    if not sys.stderr.isatty():
        say(f"{label} ...")
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(label):
        yield


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as an aligned text table (plain spaces, so that it can be piped)."""
    names = list(columns or (rows[0].keys() if rows else ()))
    if not names:
        return ""
    cells = [names] + [["" if row.get(n) is None else str(row.get(n)) for n in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = [
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
