"""ROUGE-L as a distance between texts: how much of the words, in their order, a prediction shares with the truth.

ROUGE-L (Lin 2004) is the F-measure of the longest common subsequence of tokens. F-measure and, of ASCII text, tokens
are those of `rouge-score`; the subsequence is computed here, 64 cells at a time, as the library's table of Python
integers takes a fifth of a second for two texts of 1,000 tokens, and minutes for two of 30,000.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence

from gymnasium.error import DependencyNotInstalled

__all__ = ["MAX_TOKENS", "require", "rouge_distance"]

MAX_TOKENS = 4_096
"""Tokens of a text that are aligned, once the beginnings and ends that both share are set aside."""

_TOKEN = re.compile(r"[a-z0-9]+|[^\W_a-z0-9]+")


def require() -> None:
    """Raises `DependencyNotInstalled` unless `rouge-score` can be found; imports nothing."""
    if importlib.util.find_spec("rouge_score") is None:
        raise DependencyNotInstalled('The ROUGE-L gap needs rouge-score: run `pip install "rwml-gym[tau2]"`.')


def rouge_distance(prediction: str, truth: str) -> float:
    """1 - F1 of ROUGE-L, without stemming.

    A token is a run of `a` to `z` and `0` to `9` in the text in lower case, or a run of other letters and digits. The
    library leaves out the latter, so that a truth denied in Chinese would earn as much as the truth. Case, punctuation
    and symbols count for nothing: `{"a": 1}` and `A=1.` are at distance 0. Where neither text has a token, the distance
    is 0 if they are equal and 1 if not; where one has none, it is 1.

    Of texts that differ in more than `MAX_TOKENS` tokens, only so many are aligned, but all are counted: the distance
    is then an upper bound, and the time stays linear. A prediction gains nothing by being long.

    Args:
        prediction: What was predicted.
        truth: What happened.

    Returns:
        The distance, in `[0, 1]`; it is symmetric.

    Raises:
        DependencyNotInstalled: If `rouge-score` is not installed.

    >>> rouge_distance('{"status": "pending"}', '{"status": "delivered"}')
    0.5
    """
    require()
    from rouge_score.scoring import fmeasure

    ours, theirs = _TOKEN.findall(prediction.lower()), _TOKEN.findall(truth.lower())
    if not ours or not theirs:
        return 0.0 if prediction == truth else 1.0
    common = _common(ours, theirs)
    return 1.0 - float(fmeasure(common / len(ours), common / len(theirs)))


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, exact up to `MAX_TOKENS` tokens that differ."""
    shortest = min(len(a), len(b))
    start = next((i for i in range(shortest) if a[i] != b[i]), shortest)
    rest = shortest - start
    end = next((i for i in range(rest) if a[-1 - i] != b[-1 - i]), rest)
    middle_a, middle_b = a[start : len(a) - end], b[start : len(b) - end]
    return start + end + _subsequence(middle_a[:MAX_TOKENS], middle_b[:MAX_TOKENS])


def _subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time as one integer (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full  # a zero at i: the subsequence grows by one at a[i]
    for token in b:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(a) - row.bit_count()
