"""The verdict of an audit: reasons against training on a reward, in numbers, and advice."""

from __future__ import annotations

from typing import Literal

from rwml_gym.diagnostics.audit_result import Audit, Finding
from rwml_gym.diagnostics.calibration import Calibration
from rwml_gym.reward.distances import DISTANCES
from rwml_gym.text import percent, shown

__all__ = ["judge"]

# Each constant decides a verdict, so each has its reason. None depends on the environment.

MIN_PRECISION = 0.75
"""Half-way between chance (0.5 for balanced pairs) and always right: below it, one rewarded answer in four is wrong.
The public failure on WebShop had 0.68 at best."""

MIN_RECALL = 0.2
"""Below it, a paraphrased answer is hardly ever rewarded: the answer must be word for word (`Calibration.advice`)."""

_NEARLY = 0.05
"""A precision this far below the target may be chance; further below it, the threshold does not hold on other games."""

MIN_SIGNAL = 0.2
"""Below it, fewer than one group in five has a gradient, at the cost of five. WebShop's failure: 0 to 12 %."""

MIN_PREDICTABLE = 0.5
"""Below it, most generated predictions cannot be right after any training. WebShop's failure: 47 % at most."""

MAX_BLIND = {"binary": 0.5, "continuous": 0.9, "stepped": 0.9}
"""Maximal reward of an answer without the state, or without word order: half the reward of the truth. A continuous
or stepped reward gives most of the maximum to every answer, and teaches by the rest."""

MAX_KNOWN = 0.9
"""Above it, the most frequent outcome in the recorded data gets nearly the full reward, and so does a table."""

MIN_TO_LEARN = 0.05
"""Below it, hardly any transition is predictable that the most frequent outcome does not already get right."""

EXACT_WORLD = 0.5
"""Above it, observations repeat word for word so often that a reward for nearly the exact words is reasonable."""

LARGE = 0.05
"""A message role or type of action with a smaller share of the transitions is ignored."""


def judge(audit: Audit) -> list[Finding]:
    """Return all findings, with the warnings first."""
    found = [*_threshold(audit), *_predictable(audit), *_baselines(audit), *_signal(audit)]
    return sorted(found, key=lambda finding: finding.level != "warning")


def _threshold(audit: Audit) -> list[Finding]:
    found = []
    for role, result in audit.calibrations.items():
        if audit.roles[role] < LARGE * audit.transitions or audit.measures[role].shape != "binary":
            continue
        of = f" on messages of role {shown(role)!r}" if role else ""
        precision, recall = audit.quality[role]
        if not isinstance(result, Calibration):
            if precision >= MIN_PRECISION:
                continue
            reason = f"The threshold{of} does not separate the few states (precision {precision:.2f})."
            found.append(Finding("caution", "threshold", reason, "Use a stronger --encoder, or --gap rouge."))
            continue
        gap = DISTANCES[result.gap].called(shown(result.encoder, 60))
        at = f"τ_d {audit.measures[role].threshold:.4g}"
        other = DISTANCES[result.gap].stronger
        wrong = (
            f"with {gap}{of}, {at} has a precision of {precision:.2f}: {1 - precision:.0%} of what it rewards is wrong"
        )
        if audit.chosen_threshold is not None and precision < result.target_precision <= result.precision:
            advice = f"Use the threshold {result.threshold:.4g}, which has {result.precision:.2f}."
            level: Literal["warning", "caution"] = "warning" if precision < MIN_PRECISION else "caution"
            found.append(Finding(level, "threshold", _sentence(wrong), advice))
        elif precision < MIN_PRECISION:
            none = "" if result.reached else f", and no threshold reaches {result.target_precision:.2f}"
            found.append(Finding("warning", "threshold", _sentence(wrong + none), f"Use {other}."))
        elif not result.reached:
            none = f"no threshold reaches {result.target_precision:.2f}"
            found.append(Finding("caution", "threshold", _sentence(f"{wrong}; {none}"), f"Use {other}."))
        elif audit.chosen_threshold is None and precision < result.target_precision - _NEARLY:
            chose = f"; it reached {result.fit_precision:.2f} on the {audit.unit} that chose it"
            found.append(
                Finding("caution", "threshold", _sentence(wrong + chose), f"Record more games, or use {other}.")
            )
        elif recall < MIN_RECALL and audit.repeated_elsewhere < EXACT_WORLD:
            reason = (
                f"with {gap}{of}, {at} rewards {recall:.0%} of the rewordings, and only "
                f"{audit.repeated_elsewhere:.0%} of the answers occur word for word in another game"
            )
            found.append(Finding("caution", "threshold", _sentence(reason), f"Use {other}, or a lower --precision."))
    return found


def _predictable(audit: Audit) -> list[Finding]:
    share = audit.predictable
    if share >= MIN_PREDICTABLE:
        return []
    reason = f"Only {share:.0%} of the transitions are predictable: the others have content that was never seen before"
    large = [row for row in audit.by_action if row.share >= LARGE]
    bad = [row for row in large if row.predictable < MIN_PREDICTABLE]
    rest = [row for row in audit.by_action if row not in bad]
    names = ", ".join(
        f"{shown(row.name)!r} ({row.share:.0%} of all, {row.predictable:.0%} predictable)" for row in bad[:4]
    )
    remaining = sum(row.transitions for row in rest)
    if remaining and bad:
        then = sum(row.predictable * row.transitions for row in rest) / remaining
        advice = f"Leave out {names}: {then:.0%} of the rest are predictable."
    else:
        advice = f"No type of action is better: {names}. Train on another environment, or with a longer --history."
    if audit.unseen:
        reason += f" (such as {', '.join(repr(shown(name)) for name in audit.unseen[:3])})"
    return [Finding("warning" if share < MIN_SIGNAL else "caution", "predictable", f"{reason}.", advice)]


def _baselines(audit: Audit) -> list[Finding]:
    found = []
    earned = {name: value[0] for name, value in audit.earned.items()}
    n = sum(audit.roles.values())
    limit = sum(count * MAX_BLIND[audit.measures[role].shape] for role, count in audit.roles.items()) / n
    for name, what in (
        ("best constant", "A constant answer"),
        ("words of the state", "A bag of the state's words"),
        ("shuffled truth", "The truth with its words shuffled"),
    ):
        if earned[name] > limit:
            reason = f"{what} earns {earned[name]:.2f} on held-out {audit.unit}, and the truth earns 1.00."
            advice = "Lower the --threshold, or use another --encoder or --gap: this reward needs no world model."
            found.append(Finding("warning", "baselines", reason, advice))
    if earned["most frequent"] > MAX_KNOWN:
        reason = f"The most frequent outcome of an action earns {earned['most frequent']:.2f} on held-out {audit.unit}."
        advice = "There is little left to learn: record harder games, or drop easy transitions."
        found.append(Finding("caution", "baselines", reason, advice))
    elif audit.to_learn < MIN_TO_LEARN:
        reason = (
            f"Only {audit.to_learn:.0%} of the transitions are predictable and not already predicted by the most "
            "frequent outcome of their action."
        )
        advice = "There is little left to learn: record other games, or use a longer --history."
        found.append(Finding("caution", "baselines", reason, advice))
    return found


def _signal(audit: Audit) -> list[Finding]:
    signal = audit.signal
    if signal is None:
        return []
    share, low, _ = signal.share
    if low >= MIN_SIGNAL:
        return []
    reason = (
        f"{percent(share)} [{percent(low)}, {percent(signal.share[2])}] of the groups of {signal.group_size} will have "
        f"a reward difference, estimated from {signal.samples} samples of {signal.prompts} prompts; their mean reward "
        f"is {signal.reward[0]:.3f}, {percent(signal.hopeless)} of the prompts are never rewarded, "
        f"{percent(signal.perfect)} always."
    )
    if signal.perfect > signal.hopeless:
        advice = "The model already predicts most of it: drop easy transitions, or record harder games."
    else:
        advice = "Start from a stronger model or one after SFT on next states (warm start), or reward 1 - d (--reward)."
    return [Finding("warning" if share < MIN_SIGNAL else "caution", "signal", reason, advice)]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
