"""One model version as a page of text: figures in tables, gates in words, the moves of the champion pointer.

What goes here: words and tables. What does not: reading the ledger (``model.py``), what a gate decides (``training``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from ct_assets.cli.output import table

VERDICTS = {
    "pass": "passed",
    "fail": "FAILED",
    "insufficient_evidence": "NOT ENOUGH EVIDENCE",
    "not_applicable": "does not apply",
}
TITLES = {
    "per_fold": "each week it was tried on (deviance and bias of the mean, WAPE of P50, coverage of P90)",
    "baselines": "what a planner would do without a model (means of the folds)",
    "slices": "parts of the range",
}


def page(row: Mapping[str, Any]) -> str:
    """The whole page of ``row``, which is what ``ct model show --json`` prints."""
    head = f"{row['model']} version {row['version']}: {row['decision']}{' (champion)' if row['champion'] else ''}"
    parts = [head, *_why(row), *_metrics(row["metrics"]), _gates(row["gates"])]
    parts += [_block(title, row[key]) for key, title in (("provenance", "made from"), ("recipe", "recipe"))]
    parts += [_block("stored", row["artefact"]), _moves(row["history"])]
    return "\n\n".join(part for part in parts if part)


def _why(row: Mapping[str, Any]) -> list[str]:
    """The gates that stood in the way, first of all: it is what a person asks."""
    stopped = [
        gate
        for gate in row["gates"].values()
        if isinstance(gate, Mapping) and gate.get("verdict") not in ("pass", "not_applicable")
    ]
    if row["decision"] != "refused" or not stopped:
        return []
    return ["\n".join(["refused because", *(f"  {g.get('name', '')}: {g.get('reason', '')}" for g in stopped)])]


def _metrics(metrics: Mapping[str, Any]) -> list[str]:
    """Single figures first, then one table for each group of figures."""
    single = {k: v for k, v in metrics.items() if not isinstance(v, (Mapping, list))}
    parts = ["\n".join(["figures", _indent(table([{"figure": k, "value": figure(v)} for k, v in single.items()]))])]
    for name, value in metrics.items():
        rows = _rows(name, value)
        if rows:
            parts.append("\n".join([TITLES.get(name, name.replace("_", " ")), _indent(table(_shown(rows)))]))
        elif isinstance(value, list) and value and name != "folds":
            parts.append(f"{name.replace('_', ' ')}\n  {', '.join(figure(v) for v in value)}")
        elif isinstance(value, Mapping) and value:
            parts.append(_block(name.replace("_", " "), value))
    return parts


def _rows(name: str, value: Any) -> list[Mapping[str, Any]]:
    """Rows of a table: a list of mappings, or a mapping of mappings with its key as the first column."""
    if isinstance(value, Mapping) and value and all(isinstance(v, Mapping) for v in value.values()):
        return [{name.rstrip("s"): key, **inner} for key, inner in value.items()]
    if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        return list(value)
    return []


def _shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [{column: figure(row[column]) if column in row else "" for column in columns} for row in rows]


def _gates(gates: Mapping[str, Any]) -> str:
    if not gates:
        return "gates\n  none was evaluated"
    rows = [
        {
            "gate": name,
            "verdict": VERDICTS.get(str(gate.get("verdict")), str(gate.get("verdict"))),
            "figure": figure(gate.get("figure")),
            "wanted": gate.get("threshold"),
            "reason": gate.get("reason"),
        }
        for name, gate in gates.items()
        if isinstance(gate, Mapping)
    ]
    return "\n".join(["gates", _indent(table(rows))])


def _moves(history: Sequence[Mapping[str, Any]]) -> str:
    if not history:
        return "champion pointer\n  it has never been moved: no version has passed its gates"
    lines = [f"{m['generation']}. version {m['version']} at {_minute(m['decided_at'])}: {m['reason']}" for m in history]
    return "\n".join(["champion pointer", *(f"  {line}" for line in lines)])


def _block(title: str, values: Mapping[str, Any]) -> str:
    """Keys and values in two columns; a mapping within is flattened to ``outer.inner``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        flat |= {f"{key}.{k}" if k else key: v for k, v in inner}
    width = max((len(key) for key in flat), default=0)
    return "\n".join([title, *(f"  {key.ljust(width)}  {figure(value)}" for key, value in flat.items())])


def figure(value: Any) -> str:
    """A value for a person: four digits are enough of a measure; a missing one is a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, dt.datetime):
        return _minute(value)
    return ", ".join(map(figure, value)) if isinstance(value, list) else str(value)


def _minute(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
