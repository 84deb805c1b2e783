"""The gates against the champion: its recipe refitted beside the candidate's, slice by slice, and its model as it is.

What goes here: verdicts over paired losses. What does not: resampling (``comparison``), the other gates (``gates``).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import polars as pl

from ct_assets.training.comparison import excess, guarded, holm, paired
from ct_assets.training.evaluation import Evaluation, Fold
from ct_assets.training.rules import GateResult, GateRules, Kind, unknown

COMPARED = ("deviance", "wape")


def champion_gates(
    candidate: Evaluation, champion: Evaluation | None, rules: GateRules, kind: Kind
) -> list[GateResult]:
    """Deviance and WAPE against the champion's recipe at the same origins, whole and by slice; a challenger's deviance
    must be lower."""
    results = []
    for measure in COMPARED:
        losses = None if champion is None else paired(candidate.folds, champion.folds, measure)
        must_win = kind == "challenger" and measure == "deviance"
        rule = _Rule(measure, 0.0 if must_win else rules.margin(measure), must_win)
        results += [_whole("champion", losses, rule, rules), _slices(losses, rule, rules)]
    return results


@dataclass(frozen=True)
class FixedArtefact:
    """A champion's model as it is, on weeks later than its ``cutoff``; ``problem``: why it could not be judged."""

    version: int
    cutoff: dt.date
    folds: tuple[Fold, ...]
    problem: str | None = None


def artefact_gates(candidate: Evaluation, artefact: FixedArtefact, rules: GateRules) -> list[GateResult]:
    """The folds' models against the stored champion's, both fixed, on rows later than both cut-offs: not worse."""
    results, whose = [], f"that of version {artefact.version} (cut-off {artefact.cutoff})"
    for measure in COMPARED:
        rule = _Rule(measure, rules.artefact_margin, False)
        name = f"artefact_{measure}"
        if artefact.problem is not None:
            text = f"the stored model of version {artefact.version} could not be judged: {artefact.problem}"
            results.append(unknown(name, rule.threshold, text))
        elif not artefact.folds:
            text = (
                f"no week with known sales is later than the cut-off of the first champion,"
                f" version {artefact.version} ({artefact.cutoff})"
            )
            results.append(GateResult(name, None, rule.threshold, "not_applicable", text))
        else:
            origins = [fold.origin for fold in artefact.folds]
            own = [fold for fold in candidate.folds if fold.origin in origins]
            results.append(_whole("artefact", paired(own, artefact.folds, measure), rule, rules, whose))
    return results


@dataclass(frozen=True)
class _Rule:
    measure: str
    limit: float
    must_win: bool

    @property
    def threshold(self) -> str:
        return f"{'<' if self.must_win else '<='} {self.limit:+.3f}"


def _whole(
    against: str, losses: pl.DataFrame | None, rule: _Rule, rules: GateRules, whose: str = "the champion's"
) -> GateResult:
    name = f"{against}_{rule.measure}"
    if losses is None:
        return unknown(name, rule.threshold, "the champion's recipe was not evaluated at the same origins")
    found = excess(losses)
    if found is None:
        return unknown(name, rule.threshold, "too few products in common, or errors that are not finite")
    bound = found.upper(rules.confidence)
    passed = bound < rule.limit if rule.must_win else bound <= rule.limit
    weeks = losses["origin"].n_unique()
    text = (
        f"{rule.measure} {found.figure:+.2%} against {whose}, at most {bound:+.2%} with"
        f" {rules.confidence:.0%} confidence (bootstrap over {found.unit}, {weeks} week{'s' * (weeks > 1)})"
    )
    return GateResult(name, bound, rule.threshold, "pass" if passed else "fail", text)


def _slices(losses: pl.DataFrame | None, rule: _Rule, rules: GateRules) -> GateResult:
    """Not worse than ``slice_margin`` on every guard slice: each hypothesis "it is" must be rejected, after Holm."""
    name, level = f"slices_{rule.measure}", 1 - rules.confidence
    threshold = f"<= {level:.3g}"
    groups = {} if losses is None else {group: excess(rows) for group, rows in guarded(losses)}
    found = {group: value for group, value in groups.items() if value is not None}
    if not groups or len(found) < len(groups):
        missing = ", ".join(sorted(set(groups) - set(found))) or "every slice"
        return unknown(name, threshold, f"no evidence on {missing}")
    adjusted = dict(zip(found, holm([value.p_value(rules.slice_margin) for value in found.values()]), strict=True))
    worst = max(adjusted, key=lambda group: (adjusted[group], found[group].figure))
    text = (
        f"worst on {worst}: {rule.measure} {found[worst].figure:+.2%} against the champion's; p of"
        f" {rules.slice_margin:+.0%} or more is {adjusted[worst]:.3f} (Holm, {len(found)} slices)"
    )
    return GateResult(name, adjusted[worst], threshold, "pass" if adjusted[worst] <= level else "fail", text)
