"""The audit: measure before training, on recorded transitions, whether a reward can teach anything.

A public attempt on WebShop did not learn: 53 % of its transitions were search pages that nobody can predict, no
threshold had a precision above 68 %, and 0 to 12 % of its groups had a reward difference. The audit measures them::

    print(audit_table(audit(TransitionDataset.load("transitions"), "all-MiniLM-L6-v2")))

Its measures of predictability are proxies, see `predictability`; `audit_verdict` gives the verdict's constants.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from rwml_gym.checks import one_of
from rwml_gym.diagnostics.audit_baselines import baseline_answers, choose, rewards_of_answers
from rwml_gym.diagnostics.audit_result import Audit, Row
from rwml_gym.diagnostics.audit_verdict import judge
from rwml_gym.diagnostics.calibration import Calibration, NoPairsError, calibrate_by_role
from rwml_gym.diagnostics.group_signal import GroupSignal, group_signal
from rwml_gym.diagnostics.predictability import repeated_situations, type_of, unseen_names
from rwml_gym.encoders.cached import DEFAULT_ENCODER, EncoderLike, make_encoder
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DISTANCES, TOOL_ROLE, GapName, gap_for
from rwml_gym.reward.gap import GapReward, Measure, RewardShape
from rwml_gym.reward.views import ViewName, check_view, in_view
from rwml_gym.statistics import share_interval
from rwml_gym.text import is_blank
from rwml_gym.transitions import InvalidDatasetError, Transition, TransitionDataset, unit_of

__all__ = ["GapChoice", "audit"]

if TYPE_CHECKING:
    GapChoice = str
else:
    GapChoice = Literal["auto", *DISTANCES]
"""A name in `DISTANCES`, or `auto`, which chooses the distance by message role (`distances.gap_for`)."""

Sampler = Callable[[Sequence[Transition]], Sequence[Sequence[str]]]
"""Samples `k` predictions for each of `n` transitions, as training would."""

# Maximal number of states that are compared with one another, for a role that cannot be calibrated.
_MAX_COMPARED_STATES = 20
# A type of action with fewer scored transitions has no baseline rewards of its own in the table.
_MIN_ROW = 8


def audit(
    transitions: Sequence[Transition],
    encoder: EncoderLike = DEFAULT_ENCODER,
    threshold: float | None = None,
    *,
    gap: GapChoice = "auto",
    view: ViewName = "raw",
    reward: RewardShape = "binary",
    precision: float = 0.9,
    sample: Sampler | None = None,
    prompts: int = 64,
    rewards: np.ndarray | None = None,
    rewards_of: Sequence[Transition] | None = None,
    group_size: int = 8,
    pairs_per_perturbation: int = 50,
    limit: int = 200,
    seed: int = 0,
) -> Audit:
    """Measure whether a reward can teach anything on these transitions.

    Args:
        transitions: Recorded transitions of at least two games; half of the games are held out.
        encoder: See `encoders.cached.make_encoder`, also for its errors.
        threshold: τ_d of every message role; calibrated if absent.
        gap: The distance, or `auto`.
        view: What of the results of tools is predicted and compared, a name in `views.VIEWS`.
        reward: Shape of the reward.
        precision: Target precision of the threshold.
        sample: Samples `k` predictions of a model for each transition, at the temperature of training.
        prompts: Number of held-out transitions that `sample` gets.
        rewards: Recorded rewards instead of `sample`: an `(n, k)` array.
        rewards_of: The `n` transitions of the rewards, if known.
        group_size: Completions per group, G, for the expected share of groups with signal.
        pairs_per_perturbation: Maximal number of pairs per perturbation in the calibration, see `calibrate`.
        limit: Maximal number of held-out transitions that baselines are scored on.
        seed: Seed of all random choices.

    Raises:
        InvalidDatasetError: If there are no transitions, or all of them are blank.
        NoPairsError: If there are fewer than two games.
        InvalidConfigError: If an argument is out of range, or there are no results of tools for the view.
        DependencyNotInstalled: If ROUGE needs a library that is not installed.
    """
    _check(gap, reward, precision, group_size, prompts, limit, pairs_per_perturbation)
    if sample is not None and rewards is not None:
        raise InvalidConfigError("Expected `sample` or recorded `rewards`, actual: both. Remove one.")
    if rewards is None and rewards_of is not None:
        raise InvalidConfigError("Expected `rewards` with `rewards_of`, actual: none. Give both or neither.")
    check_view(transitions, view)
    transitions = in_view(transitions, view)
    said = TransitionDataset(t for t in transitions if not is_blank(t.next_state))
    if not said:
        raise InvalidDatasetError(
            f"Expected transitions with text, actual: none of {len(transitions)}. Record games first "
            "(`rwml-gym record`)."
        )
    if len(said.games) < 2:
        raise NoPairsError(
            f"Expected transitions of at least 2 games, actual: {len(said.games)}. Record more games "
            "(`rwml-gym record --games 40`)."
        )
    roles = Counter(t.role for t in said)
    gaps: dict[str, GapName] = {role: gap_for(role) if gap == "auto" else gap for role in sorted(roles)}
    for name in set(gaps.values()):
        if threshold is not None:
            Measure(name, threshold, reward)  # rejects a value out of range before the encoder is loaded
        DISTANCES[name].require()
    encode = make_encoder(encoder)
    with warnings.catch_warnings():
        # A missed target precision is a finding here; an encoder's warnings are still shown.
        warnings.filterwarnings("ignore", "Expected a threshold with a precision", UserWarning)
        calibrate_roles = partial(
            calibrate_by_role, said, encode, gaps, precision, seed, pairs_per_perturbation, view=view
        )
        calibrated = calibrate_roles()
        measured = calibrated if threshold is None else calibrate_roles(threshold=threshold)
    found = {role: result if isinstance(result, Calibration) else str(result) for role, result in calibrated.items()}
    measures = _measures(gaps, calibrated, threshold, reward, view)
    score = GapReward(encode, measures=measures)

    fit, held_out = said.split_by_game(0.5, seed)
    rng = np.random.default_rng(seed)
    chosen = choose(held_out, limit, rng)
    unseen = dict(zip(map(id, said), unseen_names(said), strict=True))
    baselines = baseline_answers(fit, chosen, said, score, rng)
    earned = {name: rewards_of_answers(score, answers, chosen) for name, answers in baselines.items()}
    known = np.array([not unseen[id(t)] for t in chosen])
    signal, signal_of = _signal(sample, rewards, rewards_of, choose(held_out, prompts, rng), score, group_size)
    result = Audit(
        transitions=len(said),
        silent=len(transitions) - len(said),
        games=len(said.games),
        unit=unit_of(said.games),
        scored=len(chosen),
        encoder=encode.name,
        chosen_threshold=threshold,
        measures={role: score.measure(role) for role in gaps},
        roles=dict(sorted(roles.items())),
        calibrations=found,
        quality={role: _quality(result, score, said, role) for role, result in measured.items()},
        predictable=float(np.mean([not unseen[id(t)] for t in said])),
        unseen=_examples(unseen.values(), rng),
        repeats=repeated_situations(said),
        repeated_elsewhere=float(
            np.mean([a == t.next_state for a, t in zip(baselines["nearest elsewhere"], chosen, strict=True)])
        ),
        to_learn=float(np.mean(known * (1 - earned["most frequent"]))),
        earned={name: share_interval(values, [t.game for t in chosen]) for name, values in earned.items()},
        by_action=_rows(type_of, said, unseen, chosen, earned, signal, signal_of),
        by_role=_rows(lambda t: t.role, said, unseen, chosen, earned, signal, signal_of),
        signal=signal,
        findings=(),
        seed=seed,
    )
    return replace(result, findings=tuple(judge(result)))


def _check(gap: str, reward: str, precision: float, group_size: int, *at_least_one: int) -> None:
    one_of("`gap`", gap, ("auto", *DISTANCES))
    one_of("`reward`", reward, get_args(RewardShape))
    if not 0 < precision <= 1:
        raise InvalidConfigError(f"Expected `precision` in (0, 1], actual: {precision}.")
    if group_size < 2:
        raise InvalidConfigError(f"Expected a group size of at least 2, actual: {group_size}.")
    if min(at_least_one) < 1:
        raise InvalidConfigError(
            f"Expected `prompts`, `limit` and `pairs_per_perturbation` of at least 1, actual: {list(at_least_one)}."
        )


def _measures(
    gaps: Mapping[str, GapName],
    calibrated: Mapping[str, Calibration | NoPairsError],
    threshold: float | None,
    reward: RewardShape,
    view: ViewName,
) -> dict[str, dict[str, Any]]:
    """Return the measures as `GapReward` takes them; a role without a calibration has its gap's default threshold."""
    measures: dict[str, dict[str, Any]] = {}
    for role, gap in gaps.items():
        result = calibrated[role]
        measures[role] = {"gap": gap, "shape": reward, "view": view if role == TOOL_ROLE else "raw"}
        if threshold is not None:
            measures[role]["threshold"] = threshold
        elif isinstance(result, Calibration):
            measures[role]["threshold"] = result.threshold
    return measures


def _quality(
    result: Calibration | NoPairsError, score: GapReward, said: Sequence[Transition], role: str
) -> tuple[float, float]:
    """Return precision and recall of a role's threshold; for a role with few states, how well it separates these."""
    if not isinstance(result, Calibration):
        states = list(dict.fromkeys(t.next_state for t in said if t.role == role))[:_MAX_COMPARED_STATES]
        pairs = [(a, b) for a in states for b in states if a != b]
        confused = score([a for a, _ in pairs], [b for _, b in pairs], [role] * len(pairs)).distances
        false = float(np.mean(confused < score.measure(role).threshold)) if pairs else 0.0
        return 1 / (1 + false), 1.0
    return result.precision, result.recall


def _examples(unseen: Iterable[tuple[str, ...]], rng: np.random.Generator) -> tuple[str, ...]:
    """Choose five names at random, of at least four characters if possible: `b09kp78g37` is clearer than `12`."""
    names = list(dict.fromkeys(name for found in unseen for name in found))
    names = [name for name in names if len(name) > 3] or names
    return tuple(names[i] for i in rng.permutation(len(names))[:5])


def _signal(
    sample: Sampler | None,
    rewards: np.ndarray | None,
    rewards_of: Sequence[Transition] | None,
    prompts: Sequence[Transition],
    score: GapReward,
    group_size: int,
) -> tuple[GroupSignal | None, Sequence[Transition]]:
    """Return the signal, and the transitions it was sampled from, if known."""
    if sample is not None and rewards is None:
        attempts = sample(prompts)
        lengths = {0 if isinstance(row, str) else len(row) for row in attempts}
        if len(attempts) != len(prompts) or len(lengths) != 1 or 0 in lengths:
            raise InvalidConfigError(
                f"Expected k samples, at least 1, for each of {len(prompts)} transitions, actual: {len(attempts)} "
                f"transitions with {sorted(lengths)} samples."
            )
        flat = [text for row in attempts for text in row]
        if odd := [text for text in flat if not isinstance(text, str)]:
            raise InvalidConfigError(f"Expected samples of text, actual: {odd[0]!r} ({type(odd[0]).__name__}).")
        of = [t for t, row in zip(prompts, attempts, strict=True) for _ in row]
        rewards, rewards_of = rewards_of_answers(score, flat, of).reshape(len(prompts), -1), prompts
    if rewards is None:
        return None, ()
    games = [t.game for t in rewards_of] if rewards_of is not None else None
    return group_signal(rewards, group_size, games), rewards_of or ()


def _rows(
    name_of: Callable[[Transition], str],
    said: Sequence[Transition],
    unseen: Mapping[int, tuple[str, ...]],
    chosen: Sequence[Transition],
    earned: Mapping[str, np.ndarray],
    signal: GroupSignal | None,
    signal_of: Sequence[Transition],
) -> tuple[Row, ...]:
    names = [name_of(t) for t in said]
    scored, sampled = np.array([name_of(t) for t in chosen]), np.array([name_of(t) for t in signal_of])
    rows = []
    for name, count in sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])):
        here, asked = scored == name, sampled == name
        row = Row(
            name=name,
            transitions=count,
            share=count / len(said),
            predictable=float(np.mean([not unseen[id(t)] for t, n in zip(said, names, strict=True) if n == name])),
            scored=int(here.sum()),
            earned={b: float(v[here].mean()) for b, v in earned.items()} if here.sum() >= _MIN_ROW else {},
        )
        if signal is not None and asked.any():
            by_prompt, rates = np.array(signal.by_prompt)[asked], np.array(signal.rates)[asked]
            row = replace(row, reward=float(rates.mean()), signal=float(by_prompt.mean()))
        rows.append(row)
    return tuple(rows)
