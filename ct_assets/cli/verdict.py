"""``ct verdict``: judge files against a contract, without a database.

What goes here: the command, its lines, its exit code. What does not: judging (``ct_assets.ingest``).
"""

from __future__ import annotations

from pathlib import Path

import click

from ct_assets.cli.output import emit, progress, say
from ct_assets.errors import UsageError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--contract", "contract_path", required=True, type=click.Path(path_type=Path), help="ODCS file to judge by."
)
@click.option("--schema", "schema_name", help="Which schema object, where the contract has several.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write NAME.good.parquet and NAME.quarantine.parquet here.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON value a line on stdout.")
def verdict(
    files: tuple[Path, ...], contract_path: Path, schema_name: str | None, out: Path | None, as_json: bool
) -> int:
    """Judge FILES: which rows are good, which are not and why. Exit 1 when a file is rejected."""
    from ct_assets.contracts.odcs import load_contract

    _check_files(files, out)
    schema = load_contract(contract_path).schema(schema_name)
    from ct_assets.cli.verdict_files import judge_file

    rejected = 0
    for path in progress(files, "judging"):
        found = judge_file(path, schema, out)
        rejected += found.rejected is not None
        for warning in found.warnings:
            say(f"{path}: warning: {warning}")
        emit(found.as_json(), as_json, None if as_json else _as_text(found))
    return 1 if rejected else 0


def _check_files(files: tuple[Path, ...], out: Path | None) -> None:
    for path in files:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no file"
            raise UsageError(
                f"{path} {what}",
                hint=f"give paths of files to judge, such as {path}/*.csv"
                if path.is_dir()
                else "give paths of files to judge",
            )
    names: dict[str, Path] = {}
    for path in files if out else ():
        if path.name in names:
            raise UsageError(
                f"{names[path.name]} and {path} would both be written as {path.name}.good.parquet",
                hint="judge them in two calls",
            )
        names[path.name] = path


def _as_text(found: object) -> str:
    from ct_assets.ingest.verdict import FileVerdict

    if not isinstance(found, FileVerdict):
        raise TypeError(found)
    rows = found.rows
    text = f"{found.decision:24} {found.file}: {rows['read']:,} read, {rows['good']:,} good, {rows['quarantined']:,} quarantined"
    text += f", {rows['duplicates']:,} duplicates"
    if found.rejected:
        text += f"\n    {found.rejected.rule} (line {found.rejected.line}): {found.rejected.message}"
    for rule, count in sorted(found.reasons.items(), key=lambda item: (-item[1], item[0])):
        text += f"\n    {rule}: {count:,}"
    return text
