"""``ct contract``: propose, show and test data contracts.

What goes here: the three commands. What does not: inference, examples (``ct_assets.ingest``), loading (``ct_assets.contracts``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ct_assets.cli.output import emit, say, table, writing
from ct_assets.errors import UsageError, did_you_mean


class _Near(click.Group):
    """Names the nearest command when there is none of that name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(
                f"no command {args[0]!r}; {did_you_mean(args[0], self.commands) or 'one of: ' + ', '.join(self.commands)}"
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Near)
def contract() -> None:
    """Propose, show and test data contracts (ODCS 3.x)."""


@contract.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the contract here instead of stdout."
)
@click.option("--delimiter", default=",", show_default=True, help="Nothing is sniffed: say what separates fields.")
@click.option("--encoding", default="utf-8", show_default=True, help="Encoding of the file.")
@click.option("--yes", is_flag=True, help="Overwrite the file given by --out.")
def infer(file: Path, out: Path | None, delimiter: str, encoding: str, yes: bool) -> int:
    """Propose a contract for a FILE of CSV or of JSON lines (a stream's events), with the evidence for each clause."""
    _need_file(file)
    if out is not None and out.exists() and not yes:
        raise UsageError(f"{out} exists", hint="give another --out, or overwrite it with --yes")
    events = _is_json(file)
    text, warnings = _of_events(file) if events else _of_csv(file, _dialect(delimiter, encoding))
    for warning in warnings:
        say(f"{file}: warning: {warning}")
    if out is None:
        click.echo(text, nl=False)
        return 0
    with writing("--out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    then = (
        "next, a definition over it: docs/guides/streaming-own-events.md"
        if events
        else f"try it: ct verdict --contract {out} {file}"
    )
    say(f"wrote {out}; {then}")
    return 0


def _is_json(file: Path) -> bool:
    with file.open("rb") as stream:
        begins = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        return file.suffix in (".jsonl", ".ndjson", ".json") or begins.startswith(b"{")


def _of_events(file: Path) -> tuple[str, Sequence[str]]:
    from ct_assets.ingest.infer_events import event_contract
    from ct_assets.streaming.lines import Skipped

    skipped = Skipped()
    with file.open("rb") as stream:
        text, left_out = event_contract((line for _, line in skipped.numbered(stream)), file.name)
    return text, [*skipped.said(), *(f"left out: {what}" for what in left_out)]


def _of_csv(file: Path, dialect: Any) -> tuple[str, Sequence[str]]:
    from ct_assets.ingest.infer import contract_text
    from ct_assets.ingest.profile import profile

    with file.open("rb") as stream:
        found, verdict = profile(stream, file.name, dialect)
    return contract_text(found, verdict, dialect), verdict.warnings


def _dialect(delimiter: str, encoding: str) -> Any:
    import codecs

    from ct_assets.contracts.model import Dialect

    delimiter = delimiter.replace("\\t", "\t")
    if len(delimiter) != 1 or not (delimiter == "\t" or " " <= delimiter < "\x7f") or delimiter == '"':
        raise UsageError(f"the delimiter is {delimiter!r}", hint="one printable ASCII character, or \\t")
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise UsageError(f"no encoding {encoding!r}", hint="for example utf-8, latin-1, cp1252, utf-16") from None
    return Dialect(delimiter=delimiter, encoding=encoding)


@contract.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--schema", "schema_name", help="Which schema object, where the contract has several.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line on stdout.")
def show(file: Path, schema_name: str | None, as_json: bool) -> int:
    """Show what a contract FILE enforces, and what of it is documentation only."""
    from ct_assets.contracts.odcs import load_contract

    schema = load_contract(file).schema(schema_name)
    rules = [
        {"rule": r.name, "kind": r.kind, "columns": ", ".join(r.columns), "severity": r.severity, "line": r.line}
        for r in schema.rules
    ]
    rules += [
        {
            "rule": b.name,
            "kind": f"{b.metric} {b.operator} {b.bound}",
            "columns": ", ".join(b.columns),
            "severity": b.severity,
            "line": b.line,
        }
        for b in schema.batch_rules
    ]
    columns = [
        {
            "column": c.name,
            "type": c.postgres_type,
            "required": c.required,
            "may_be_absent": c.may_be_absent,
            "personal": c.pii,
            "transforms": ", ".join(c.transforms),
        }
        for c in schema.columns
    ]
    open_clauses = [
        {"where": c.where, "clause": c.text, "why": c.why, "line": c.line} for c in schema.coverage.documentation_only
    ]
    answer = {
        "schema": schema.name,
        "version": schema.version,
        "digest": schema.digest,
        "owner": schema.owner,
        "columns": columns,
        "rules": rules,
        "coverage": {
            "clauses": len(schema.coverage.clauses),
            "enforced": len(schema.coverage.enforced),
            "documentation_only": open_clauses,
        },
    }
    parts = [
        f"{schema.name} {schema.version}, owner {schema.owner or 'nobody'}",
        table(columns),
        table(rules) or "no rules",
        str(schema.coverage),
    ]
    parts += [table(open_clauses)] if open_clauses else []
    emit(answer, as_json, "\n\n".join(parts))
    return 0


@contract.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--schema", "schema_name", help="Which schema object, where the contract has several.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line on stdout.")
def test(file: Path, schema_name: str | None, as_json: bool) -> int:
    """Try the must-reject examples of a contract FILE on the real path. Exit 1 when one is let through."""
    from ct_assets.contracts.odcs import load_contract
    from ct_assets.ingest.examples import try_examples

    contract = load_contract(file)
    schema = contract.schema(schema_name)
    _say_when_unpublishable(contract, schema)
    results = try_examples(schema)
    for result in results:
        what = f"must break {result.rule}" if result.rule else "the columns' first examples must be accepted"
        value = {"rule": result.rule or None, "holds": result.holds, "message": result.message, "line": result.line}
        emit(value, as_json, f"{'ok  ' if result.holds else 'FAIL'} {what}: {result.message} ({file}:{result.line})")
    untried = {r.name for r in schema.rules} - {r.rule for r in results}
    if untried:
        say(f"rules without an example: {', '.join(sorted(untried))}")
    return 0 if all(result.holds for result in results) else 1


def _say_when_unpublishable(contract: Any, schema: Any) -> None:
    """A warning: files can be judged under any names, a pipeline needs names that a table may have."""
    from ct_assets.contracts.errors import ContractError
    from ct_assets.contracts.names import check_publishable

    try:
        check_publishable(contract, schema)
    except ContractError as wrong:
        say(f"warning: no pipeline can publish it: {wrong}")


def _need_file(path: Path) -> None:
    if path.is_dir():
        there = sorted(p.name for p in path.glob("*.csv"))[:5]
        raise UsageError(
            f"{path} is a folder",
            hint=f"give one file: {', '.join(there)}" if there else "give the path of a CSV file or of JSON lines",
        )
    if not path.is_file():
        raise UsageError(f"no file at {path}", hint="give the path of a CSV file or of JSON lines")
