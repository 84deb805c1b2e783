"""The spec of a retraining pipeline: what a team writes in `defs/<team>/<pipeline>/defs.yaml`, typed and checked.

What goes here: the keys, their types, their defaults, and :func:`load_pipelines`. What does not: assets (components
build them), contracts (`ct_assets.contracts` reads them).

A pipeline of your own needs two files and no code:

1. `ct_assets/defs/<team>/<name>/contracts/<something>.odcs.yaml`: what the CSV must look like
   (`ct contract infer FILE` proposes one);
2. `ct_assets/defs/<team>/<name>/defs.yaml`::

       type: ct_assets.components.RetrainingPipeline
       attributes:
         name: orders
         owner: {team: logistics, oncall: logistics-oncall}
         source: {contract: contracts/orders.odcs.yaml, start: 2024-01-01}

Then `ct deliver --pipeline orders FILE...` and `ct run --pipeline orders` bring it to the table `clean.<schema name>`.
`features`, `model`, `gates`, `retrain` and `freshness` are added when there is something to train.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ct_assets.contracts.names import TABLE, table_name
from ct_assets.errors import UsageError, did_you_mean
from ct_assets.platform.document import SpecError, Value, read_document

COMPONENT_TYPE = "ct_assets.components.RetrainingPipeline"
FILE_NAME = "defs.yaml"
EVERY = {"1d": "0 5 * * *", "7d": "0 5 * * 1", "30d": "0 5 1 * *"}  # cadence -> cron in the contract's time zone
MEASURES = ("deviance", "wape", "coverage")
MODES = ("daily", "streaming")
PROPENSITY = "ct_assets.training.propensity:recipe"  # the trainer that learns from a stream's clicks


@dataclass(frozen=True)
class Owner:
    """Who answers for the pipeline: the team owns its assets, ``oncall`` gets its alerts."""

    team: str
    oncall: str
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where the data comes from. ``start`` is the first day that may be delivered, or that has hourly snapshots.

    ``stream``: the file of the rolling aggregates of a pipeline in mode ``streaming``.
    """

    contract: Path
    start: dt.date
    schema: str | None = None
    mode: str = "daily"
    late_correction: str = "auto"
    stream: Path | None = None


@dataclass(frozen=True)
class ModelSpec:
    """What is trained: ``trainer`` is `module:function`, resolved only when training runs."""

    name: str
    trainer: str
    seed: int = 7


@dataclass(frozen=True)
class FreshnessSpec:
    """How old the newest data and the newest model may be, and what a breach does."""

    data: dt.timedelta | None = None
    model: dt.timedelta | None = None
    on_breach: str = "warn"


@dataclass(frozen=True)
class Retrain:
    """When to retrain: any of these. ``every`` is a key of :data:`EVERY`."""

    every: str | None = None
    new_data: bool = False


@dataclass(frozen=True)
class Gate:
    """One measure a candidate must keep: its margin below the champion (a share of the champion's value), the confidence, and
    the interval an absolute value must lie in."""

    measure: str
    not_worse_than_champion_by: float | None = None
    confidence: float = 0.95
    between: tuple[float, float] | None = None


@dataclass(frozen=True)
class ForecastBounds:
    """What is published: ``total``: units per open day within these multiples of the last 8 weeks' median; ``product``: a
    product's week up to this multiple of its second largest (the rule: ``training.plausibility``)."""

    total: tuple[float, float] = (0.25, 4.0)
    product: float = 5.0


@dataclass(frozen=True)
class PipelineSpec:
    """A pipeline, checked. ``folder`` holds its files; ``domain`` is the middle part of its asset keys."""

    name: str
    domain: str
    owner: Owner
    source: Source
    folder: Path
    file: Path
    tier: int = 2
    description: str = ""
    rollups: tuple[Path, ...] = ()
    features: tuple[str, ...] = ()
    model: ModelSpec | None = None
    freshness: FreshnessSpec = FreshnessSpec()
    retrain: Retrain = Retrain()
    gates: Mapping[str, Gate] = field(default_factory=dict)
    forecast: ForecastBounds = ForecastBounds()


def _owner(value: Value) -> Owner:
    got = value.mapping(("team", "oncall", "approvers"), required=("team", "oncall"))
    approvers = tuple(item.text() for item in got["approvers"].items()) if "approvers" in got else ()
    return Owner(got["team"].text(), got["oncall"].text(), approvers)


def _source(value: Value) -> Source:
    keys = ("contract", "schema", "mode", "start", "late_correction", "stream")
    got = value.mapping(keys, required=("contract", "start"))
    mode = got["mode"].one_of(MODES) if "mode" in got else "daily"
    if mode == "streaming" and "stream" not in got:
        raise SpecError(value, "a streaming source needs the file of its aggregates", "add `stream: streams/NAME.yaml`")
    for key, wanted in (("stream", "streaming"), ("late_correction", "daily")):
        if key in got and mode != wanted:
            raise SpecError(got[key], f"{key!r} is about mode {wanted}, but the mode is {mode}", f"remove {key!r}")
    return Source(
        contract=got["contract"].existing_file(),
        start=got["start"].date(),
        schema=got["schema"].text() if "schema" in got else None,
        mode=mode,
        late_correction=got["late_correction"].one_of(("auto", "approve")) if "late_correction" in got else "auto",
        stream=got["stream"].existing_file() if "stream" in got else None,
    )


def _model(value: Value) -> ModelSpec:
    got = value.mapping(("name", "trainer", "seed"), required=("name", "trainer"))
    trainer = got["trainer"].text()
    module, _, function = trainer.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or not function.isidentifier():
        raise got["trainer"].wrong("package.module:function", "for instance ct_assets.training.demand:recipe")
    return ModelSpec(got["name"].identifier(), trainer, got["seed"].integer(0, 2**31 - 1) if "seed" in got else 7)


def _freshness(value: Value) -> FreshnessSpec:
    got = value.mapping(("data", "model", "on_breach"))
    return FreshnessSpec(
        data=got["data"].duration() if "data" in got else None,
        model=got["model"].duration() if "model" in got else None,
        on_breach=got["on_breach"].one_of(("page", "warn")) if "on_breach" in got else "warn",
    )


def _retrain(value: Value) -> Retrain:
    every, new_data = None, False
    for item in value.mapping(("any",), required=("any",))["any"].items():
        if item.is_scalar():
            item.one_of(("new_data",))
            new_data = True
        else:
            every = item.mapping(("every",), required=("every",))["every"].one_of(tuple(EVERY))
    return Retrain(every, new_data)


def _gates(value: Value) -> dict[str, Gate]:
    gates = {}
    for measure, entry in value.mapping(MEASURES).items():
        got = entry.mapping(("not_worse_than_champion_by", "confidence", "between"))
        between = got["between"].items() if "between" in got else []
        if between and len(between) != 2:
            raise got["between"].wrong("two numbers, [low, high]")
        low_high = tuple(item.number(-1e9, 1e9) for item in between)
        if low_high and low_high[0] > low_high[1]:
            raise got["between"].wrong("the lower number first")
        margin = got.get("not_worse_than_champion_by")
        gates[measure] = Gate(
            measure,
            margin.number(0, 1) if margin else None,
            got["confidence"].number(0.5, 0.999) if "confidence" in got else 0.95,
            (low_high[0], low_high[1]) if low_high else None,
        )
    return gates


def _forecast(value: Value) -> ForecastBounds:
    got = value.mapping(("total", "product"))
    bounds = ForecastBounds()
    if "total" in got:
        items = [item.number(0, 1e6) for item in got["total"].items()]
        if len(items) != 2 or items[0] >= items[1]:
            raise got["total"].wrong("two numbers, [low, high]: multiples of the median of the last 8 weeks")
        bounds = ForecastBounds((items[0], items[1]))
    return ForecastBounds(bounds.total, got["product"].number(1, 1e6) if "product" in got else bounds.product)


KEYS = (
    "name", "domain", "description", "owner", "tier", "source", "rollups", "features", "model", "freshness", "retrain", "gates",
    "forecast",
)  # fmt: skip


def parse_pipeline(file: Path) -> PipelineSpec:
    """Read one pipeline file. Raises :class:`SpecError` with line and column; anything unknown is refused."""
    top = read_document(file).mapping(("type", "attributes"), required=("type", "attributes"))
    top["type"].one_of((COMPONENT_TYPE,))
    got = top["attributes"].mapping(KEYS, required=("name", "owner", "source"))
    name = got["name"].identifier()
    spec = PipelineSpec(
        name=name,
        domain=got["domain"].identifier() if "domain" in got else name,
        description=got["description"].text() if "description" in got else "",
        owner=_owner(got["owner"]),
        tier=got["tier"].integer(1, 3) if "tier" in got else 2,
        source=_source(got["source"]),
        rollups=tuple(item.existing_file() for item in got["rollups"].items()) if "rollups" in got else (),
        features=tuple(item.identifier() for item in got["features"].items()) if "features" in got else (),
        model=_model(got["model"]) if "model" in got else None,
        freshness=_freshness(got["freshness"]) if "freshness" in got else FreshnessSpec(),
        retrain=_retrain(got["retrain"]) if "retrain" in got else Retrain(),
        gates=_gates(got["gates"]) if "gates" in got else {},
        forecast=_forecast(got["forecast"]) if "forecast" in got else ForecastBounds(),
        folder=file.parent,
        file=file,
    )
    _check_together(spec, got, top["attributes"])
    return spec


def _check_together(spec: PipelineSpec, got: Mapping[str, Value], whole: Value) -> None:
    """What one key asks of another."""
    streaming = spec.source.mode == "streaming"
    if streaming:
        _check_streaming(spec, got)
    if spec.model and not spec.features and not streaming:
        raise SpecError(got["model"], "a model needs features to learn from", "add `features: [...]`")
    for key in ("gates", "retrain", "forecast"):
        if key in got and not spec.model:
            raise SpecError(
                got[key], f"{key!r} is about a model, but the pipeline has none", "add `model:` or remove it"
            )
    if spec.freshness.model and not spec.model:
        raise SpecError(got["freshness"], "freshness.model is about a model, but the pipeline has none", "add `model:`")
    for rollup in spec.rollups:
        if rollup.suffix != ".sql" or not TABLE.fullmatch(rollup.stem):
            hint = f"a rollup is `<table>.sql`, for instance {table_name(rollup.stem) or 'daily'}.sql"
            raise SpecError(got["rollups"], f"{rollup.name!r} names no table", hint)


def _check_streaming(spec: PipelineSpec, got: Mapping[str, Value]) -> None:
    """What a streaming pipeline takes from elsewhere."""
    elsewhere = {
        "features": "the features of a streaming pipeline are the aggregates of `source.stream`",
        "rollups": "a stream has no rollups: write an aggregate into `source.stream`",
        "gates": "the gates of the propensity are fixed (docs/serving.md)",
        "forecast": "a stream's model scores, it forecasts nothing",
    }
    for key, why in elsewhere.items():
        if key in got:
            raise SpecError(got[key], why, f"remove {key!r}")
    if spec.model and spec.model.trainer != PROPENSITY:
        raise SpecError(got["model"], f"a stream is learnt from by {PROPENSITY}, not {spec.model.trainer}")


def load_pipelines(root: Path, broken: list[UsageError] | None = None) -> dict[str, PipelineSpec]:
    """Every pipeline below ``root`` (the `defs` folder), by name. Raises :class:`UsageError` for a file that cannot be
    used and for two of one name; with a list ``broken`` these are put there and the others returned."""
    found: dict[str, PipelineSpec] = {}
    for file in sorted(root.rglob(FILE_NAME)):
        try:
            spec = parse_pipeline(file)
            if spec.name in found:
                raise UsageError(
                    f"two pipelines are named {spec.name!r}: {found[spec.name].file} and {file}",
                    hint="rename one of them",
                )
        except UsageError as error:
            if broken is None:
                raise
            broken.append(error)
            continue
        found[spec.name] = spec
    _check_shared_names(found)
    return found


def _check_shared_names(found: Mapping[str, PipelineSpec]) -> None:
    """Tables and model versions are known by their name alone: no two pipelines may use one."""
    used: dict[tuple[str, str], PipelineSpec] = {}
    for spec in found.values():
        named = [("rollup", rollup.stem) for rollup in spec.rollups]
        for key in [*named, ("model", spec.model.name)] if spec.model else named:
            other = used.setdefault(key, spec)
            if other is not spec:
                raise UsageError(
                    f"two pipelines have a {key[0]} named {key[1]!r}: {other.file} and {spec.file}",
                    hint="rename one of them",
                )


def choose_pipeline(pipelines: Mapping[str, PipelineSpec], name: str) -> PipelineSpec:
    """The pipeline of that name. Raises :class:`UsageError` with the nearest one."""
    if name not in pipelines:
        raise UsageError(
            f"there is no pipeline {name!r}",
            hint=did_you_mean(name, pipelines) or f"there is: {', '.join(sorted(pipelines)) or 'none yet'}",
        )
    return pipelines[name]
