"""Placebos: answers that teach nothing about the world, in the place of its own.

An auxiliary objective can help for reasons that have nothing to do with what it predicts: it adds gradient, noise or
regularisation. On ALFWorld an auxiliary loss on shuffled observations gained as much as one on the true ones (arXiv
2607.21273). So a gain counts only beside that of a placebo.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from rwml_gym.agents.language.prompts import Tokenizer
from rwml_gym.agents.learning.options import Placebo

__all__ = ["placebo_answers", "vocabulary"]


def placebo_answers(
    answers: Sequence[str],
    kinds: Sequence[str],
    placebo: Placebo,
    seed: int,
    tokenizer: Tokenizer,
    words: Sequence[int],
) -> list[str]:
    """Return what stands in the place of the world's answers.

    Args:
        answers: The world's answers to n turns.
        kinds: The task type of each turn, or whatever an answer may not be taken across.
        placebo: `none` for the answers themselves; `shuffled` for those of other turns of the same type, each used
            once; `random` for as many tokens as the answer has, drawn from `words`.
        seed: Seed of the shuffling and the drawing.
        tokenizer: Counts tokens and spells drawn ones.
        words: Token ids to draw from, see `vocabulary`.
    """
    rng = random.Random(seed)
    if placebo == "none":
        return list(answers)
    if placebo == "random":
        return [
            tokenizer.decode(rng.choices(words, k=max(1, len(tokenizer.encode(answer, add_special_tokens=False)))))
            for answer in answers
        ]
    result = list(answers)
    for kind in sorted(set(kinds)):
        places = [place for place, found in enumerate(kinds) if found == kind]
        # A random cycle: every turn gets the answer to another one. The texts may be equal all the same.
        rng.shuffle(places)
        for place, donor in zip(places, places[1:] + places[:1], strict=True):
            result[place] = answers[donor]
    return result


def vocabulary(tokenizer: object) -> list[int]:
    """Return the token ids of a tokenizer that spell text: all but the special ones."""
    special = set(getattr(tokenizer, "all_special_ids", ()))
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return [number for number in range(len(tokenizer)) if number not in special and number not in added]  # type: ignore[arg-type]
