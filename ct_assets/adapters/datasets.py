"""A published dataset as one run sees it: contract, rollups and code version, read once and pinned.

What goes here: what a run holds on to while files may change under it (F42). What does not: the pipeline's spec
(``platform.spec``), tables (``tables``), the publishing itself (``publish``).
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ct_assets.errors import UsageError, did_you_mean
from ct_assets.settings import Settings

if TYPE_CHECKING:
    from ct_assets.contracts.model import DatasetSchema
    from ct_assets.platform.spec import PipelineSpec

_PACKAGE = Path(__file__).parent.parent
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Rollup:
    """A SELECT over the revision being published; its rows become ``clean.<name>``.

    The SQL reads ``store.<dataset> where _revision_id = :revision_id`` and may use ``:day``.
    """

    name: str
    sql: str

    @property
    def digest(self) -> str:
        """Of the SQL; a revision that was rolled up by another one is rolled up again."""
        return hashlib.sha256(self.sql.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PublishedDataset:
    """What is published, under which contract, by which code. ``name`` is the table's name."""

    pipeline: str
    schema: DatasetSchema
    code_version: str
    rollups: tuple[Rollup, ...] = ()
    late_correction: str = "auto"  # or "approve": a later revision waits until somebody approves it

    @property
    def name(self) -> str:
        """Name of the table in ``clean`` and ``quarantine``."""
        return identifier(self.schema.physical_name or self.schema.name)

    @property
    def dated(self) -> bool:
        """Whether the file's name says the business day (else each file name is a part of its own)."""
        return self.schema.delivery_day == "fileName"

    @property
    def zone(self) -> str:
        """Time zone of the business day."""
        zones = (column.time_zone for column in self.schema.columns if column.time_zone)
        return self.schema.time_zone or next(zones, "UTC")


def identifier(name: str) -> str:
    """``name`` when it may be a table's name; anything else is refused (identifiers come from contracts only)."""
    if not _IDENTIFIER.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a table",
            hint="lower-case letters, digits and _, beginning with a letter, at most 63",
        )
    return name


def published_dataset(spec: PipelineSpec, settings: Settings) -> PublishedDataset:
    """Read contract and rollups of ``spec`` now; later changes of the files do not reach this run."""
    from ct_assets.contracts.names import check_publishable
    from ct_assets.contracts.odcs import load_contract

    contract = load_contract(spec.source.contract)
    schema = contract.schema(spec.source.schema)
    check_publishable(contract, schema)
    rollups = tuple(Rollup(identifier(path.stem), path.read_text(encoding="utf-8")) for path in spec.rollups)
    version = settings.code_version or code_version()
    return PublishedDataset(spec.name, schema, version, rollups, spec.source.late_correction)


def pipeline_dataset(pipeline: str | None, settings: Settings) -> PublishedDataset:
    """The dataset of the pipeline of that name; :class:`UsageError` with the nearest name when there is none."""
    return published_dataset(daily_spec(pipeline), settings)


def daily_spec(pipeline: str | None) -> PipelineSpec:
    """As :func:`pipeline_spec`, of a pipeline that takes daily files; :class:`UsageError` says what a stream has instead."""
    spec = pipeline_spec(pipeline)
    if spec.source.mode == "streaming":
        raise UsageError(
            f"pipeline {spec.name!r} reads a stream and takes no files",
            hint="ct events produce FILE --to TOPIC sends events; ct stream status and ct dead-letter list show what came of them",
        )
    return spec


def load_specs(broken: list[UsageError] | None = None) -> dict[str, PipelineSpec]:
    """Every pipeline of this code location by name; ``broken`` as in ``load_pipelines``."""
    from ct_assets.platform.spec import load_pipelines

    return load_pipelines(Path(__file__).parent.parent / "defs", broken)


def stream_files() -> list[Path]:
    """The stream definitions of every pipeline of this code location (``defs/<team>/<pipeline>/streams/*.yaml``)."""
    return sorted((Path(__file__).parent.parent / "defs").rglob("streams/*.yaml"))


def pipeline_spec(pipeline: str | None) -> PipelineSpec:
    """The spec of the pipeline of that name, or of the only one with daily files; else :class:`UsageError` with the
    nearest name. A mistake in another team's file is no reason to stop this one."""
    broken: list[UsageError] = []
    specs = load_specs(broken)
    if broken and pipeline not in specs:
        raise broken[0]  # it may be the one that was meant
    known = f"one of: {', '.join(sorted(specs)) or '(none is defined)'}"
    daily = [spec for spec in specs.values() if spec.source.mode == "daily"]
    if pipeline is None and len(daily) == 1:
        return daily[0]
    if pipeline is None:
        raise UsageError("there are several pipelines: which one?", hint=f"--pipeline {known}")
    if pipeline not in specs:
        raise UsageError(f"no pipeline {pipeline!r}", hint=did_you_mean(pipeline, specs) or known)
    return specs[pipeline]


@functools.cache
def code_version() -> str:
    """Digest of the package's own code and SQL as this process found it, after the package's version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("ct-assets")
    except PackageNotFoundError:
        number = "0"
    return f"{number}+{code_digest(_PACKAGE)[:12]}"


@functools.cache
def features_code() -> str:
    """Digest of the code that features are computed by, as this process found it: other code, other values."""
    return code_digest(_PACKAGE / "features")


def code_digest(root: Path) -> str:
    """SHA-256 of the Python and SQL files below ``root``: names and bytes."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".sql") and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
