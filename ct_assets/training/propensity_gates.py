"""The gates of a propensity model: may this candidate lead? In doubt, no.

What goes here: verdicts over an evaluation, with the types of ``rules`` and ``gates`` that all models share. What does not:
computing evaluations, moving the pointer.

Every comparison is of log loss (half the deviance of a yes/no outcome), paired on the same clicks, users drawn with
replacement: the upper bound of the excess must lie below -0.5 % against each baseline. On a stream without signal no model is
better than the base rate, and this is where it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ct_assets.training.comparison import Excess, holm
from ct_assets.training.propensity_evaluation import BASELINES, SLICES, Evaluation
from ct_assets.training.propensity_measures import Draws, log_losses
from ct_assets.training.rules import GateResult, GateRules, Kind, Verdict, unknown

MIN_USERS = 30
MIN_SLICE_USERS = 20
MAX_CALIBRATION_ERROR = 0.05
MIN_GAIN = 0.005  # of a baseline's log loss: less is not worth a model, and noise alone would pass one time in twenty
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rehearsed:
    """The champion on the candidate's clicks. ``refitted``: its recipe at each fold; ``fixed``: its stored model;
    ``cutoff_us``: the newest click that one has seen; ``problem``: why there is nothing to compare with."""

    refitted: F64 | None
    fixed: F64 | None
    cutoff_us: int
    problem: str | None = None


@dataclass(frozen=True)
class Refitted:
    """What is known of the model refitted on all clicks. ``again``: its forecasts of the newest fold, ``reloaded`` the same
    after storing and loading, ``evaluated`` those that were judged; ``gaps``: its forecasts of rows without any value."""

    again: F64
    reloaded: F64
    evaluated: F64
    gaps: F64
    artefact_bytes: int
    predict_seconds: float


def baseline_gates(evaluation: Evaluation, rules: GateRules) -> list[GateResult]:
    """Better than each baseline, with confidence."""
    results = []
    for name in BASELINES:
        gate, limit = f"beats_{name}", f"< {-MIN_GAIN:+.3f}"
        found = excess(evaluation, evaluation.probability(name))
        if found is None:
            results.append(unknown(gate, limit, "too few users, or forecasts that are no probabilities"))
            continue
        bound = found.upper(rules.confidence)
        text = (
            f"log loss {found.figure:+.2%} against {name}, at most {bound:+.2%} with {rules.confidence:.0%} confidence"
        )
        passed = bound < -MIN_GAIN
        text += "" if passed else ": no better than the baseline"
        results.append(GateResult(gate, bound, limit, "pass" if passed else "fail", text))
    return results


def calibration_gate(evaluation: Evaluation) -> GateResult:
    """Probabilities mean what they say: calibration error over ten bins."""
    limit = f"<= {MAX_CALIBRATION_ERROR}"
    if not _usable(evaluation, evaluation.probability("candidate")):
        return unknown("calibration", limit, "too few users, or forecasts that are no probabilities")
    found = evaluation.measures["candidate"]["calibration_error"]
    if not math.isfinite(found.figure):
        return unknown("calibration", limit, "not measured")
    verdict: Verdict = "pass" if found.figure <= MAX_CALIBRATION_ERROR else "fail"
    text = (
        f"forecast and share of purchases differ by {found.figure:.3f} on average [{found.low:.3f}, {found.high:.3f}]"
    )
    return GateResult("calibration", found.figure, limit, verdict, text)


def champion_gates(evaluation: Evaluation, champion: Rehearsed, rules: GateRules, kind: Kind) -> list[GateResult]:
    """Against the champion's recipe (a challenger must win; a refresh is the same recipe), by slice, and its stored model."""
    limit = 0.0 if kind == "challenger" else rules.deviance_margin
    threshold = f"{'<' if kind == 'challenger' else '<='} {limit:+.3f}"
    found = None if champion.refitted is None else excess(evaluation, champion.refitted)
    if found is None:
        why = champion.problem or "too few users, or forecasts that are no probabilities"
        results = [unknown("champion_log_loss", threshold, f"the champion's recipe could not be judged: {why}")]
    else:
        bound = found.upper(rules.confidence)
        passed = bound < limit if kind == "challenger" else bound <= limit
        text = f"log loss {found.figure:+.2%} against the champion's, at most {bound:+.2%}"
        results = [GateResult("champion_log_loss", bound, threshold, "pass" if passed else "fail", text)]
    return [*results, _slices(evaluation, champion, rules), _artefact(evaluation, champion, rules)]


def _slices(evaluation: Evaluation, champion: Rehearsed, rules: GateRules) -> GateResult:
    """Not worse by ``slice_margin`` on any guard slice: each hypothesis "it is" must be rejected, after Holm."""
    name, threshold = "slices_log_loss", f"<= {1 - rules.confidence:.3g}"
    where = evaluation.rows["slice"].to_numpy()
    found = {}
    for part in SLICES:
        mask = where == part
        if len(np.unique(evaluation.judged.user[mask])) >= MIN_SLICE_USERS and champion.refitted is not None:
            found[part] = excess(evaluation, champion.refitted, mask)
    known = {part: value for part, value in found.items() if value is not None}
    if not known or len(known) < len(found):
        return unknown(name, threshold, "no evidence on a slice")
    adjusted = dict(zip(known, holm([v.p_value(rules.slice_margin) for v in known.values()]), strict=True))
    worst = max(adjusted, key=lambda part: (adjusted[part], known[part].figure))
    text = f"worst on {worst}: log loss {known[worst].figure:+.2%} against the champion's (Holm, {len(known)} slices)"
    verdict: Verdict = "pass" if adjusted[worst] <= 1 - rules.confidence else "fail"
    return GateResult(name, adjusted[worst], threshold, verdict, text)


def _artefact(evaluation: Evaluation, champion: Rehearsed, rules: GateRules) -> GateResult:
    """The folds' models against the champion's, both fixed, on clicks later than what it has seen."""
    name, threshold = "artefact_log_loss", f"<= {rules.artefact_margin:+.3f}"
    if champion.fixed is None:
        return unknown(name, threshold, f"the champion's model could not be judged: {champion.problem}")
    later = evaluation.rows["at"].to_numpy() > champion.cutoff_us
    if not later.any():
        return GateResult(
            name, None, threshold, "not_applicable", "no labelled click is later than the champion's last"
        )
    found = excess(evaluation, champion.fixed, later)
    if found is None:
        return unknown(name, threshold, f"only {int(later.sum())} clicks are later than the champion's last")
    bound = found.upper(rules.confidence)
    text = f"log loss {found.figure:+.2%} against the champion's model on {int(later.sum())} later clicks, at most {bound:+.2%}"
    return GateResult(name, bound, threshold, "pass" if bound <= rules.artefact_margin else "fail", text)


def refit_gates(refit: Refitted | None, rules: GateRules) -> list[GateResult]:
    """The refit behaves like the models that were judged, survives storage and gaps, is small and fast."""
    low, high = rules.refit_ratio
    threshold = f"{low} to {high}"
    if refit is None or not len(refit.again):
        return [unknown("refit_sane", threshold, "there is no forecast of the refitted model")]
    results = [_sane(refit, rules, threshold)]
    same = np.array_equal(refit.again, refit.reloaded)
    text = "stored, loaded and asked again: the same" if same else "forecasts differ after storing and loading"
    results.append(GateResult("reload_equal", float(same), "1", "pass" if same else "fail", text))
    whole = bool(len(refit.gaps)) and _probabilities(refit.gaps)
    text = "rows without any value get a probability" if whole else "a row without any value gets no probability"
    results.append(GateResult("robust_to_gaps", float(whole), "1", "pass" if whole else "fail", text))
    results.append(_at_most("artefact_bytes", refit.artefact_bytes, rules.max_artefact_bytes))
    results.append(_at_most("predict_seconds", refit.predict_seconds, rules.max_predict_seconds))
    return results


def _sane(refit: Refitted, rules: GateRules, threshold: str) -> GateResult:
    low, high = rules.refit_ratio
    if not _probabilities(refit.again):
        return GateResult("refit_sane", None, threshold, "fail", "a forecast is no probability")
    before = float(refit.evaluated.sum())
    if not before > 0 or len(refit.evaluated) != len(refit.again):
        return unknown("refit_sane", threshold, "the judged model gave no forecast to compare with")
    ratio = float(refit.again.sum()) / before
    verdict: Verdict = "pass" if low <= ratio <= high else "fail"
    text = f"on the newest fold the refit expects {ratio:.2f} times the purchases of the judged model"
    return GateResult("refit_sane", ratio, threshold, verdict, text)


def _at_most(name: str, figure: float, limit: float) -> GateResult:
    if not math.isfinite(figure):
        return unknown(name, f"<= {limit:g}", "not measured")
    return GateResult(name, float(figure), f"<= {limit:g}", "pass" if figure <= limit else "fail", f"{figure:.3g}")


def excess(evaluation: Evaluation, other: F64, where: npt.NDArray[np.bool_] | None = None) -> Excess | None:
    """The candidate's log loss over another's, less 1, on the same clicks; None when there is not enough to say."""
    judged, own = evaluation.judged, evaluation.probability("candidate")
    mask = np.ones(len(judged), bool) if where is None else where
    enough = MIN_USERS if where is None else MIN_SLICE_USERS
    if not (_probabilities(own[mask]) and len(other) == len(own) and _probabilities(other[mask])):
        return None
    if len(np.unique(judged.user[mask])) < enough:
        return None
    draws, weight = Draws(judged.user[mask]), judged.weight[mask]
    mine, theirs = (log_losses(judged.label[mask], p[mask]) * weight for p in (own, other))
    if not theirs.sum() > 0:
        return None
    ratio = draws.sums(mine) / np.maximum(draws.sums(theirs), 1e-12) - 1
    return Excess(float(mine.sum() / theirs.sum() - 1), ratio, "users")


def _usable(evaluation: Evaluation, probability: F64) -> bool:
    return _probabilities(probability) and len(np.unique(evaluation.judged.user)) >= MIN_USERS


def _probabilities(values: F64) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all())
