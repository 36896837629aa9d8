"""Which tokens a part of a text came from."""

from __future__ import annotations

from collections.abc import Sequence

from rwml_gym.agents.language.prompts import Prompts, Tokenizer

__all__ = ["action_tokens", "find_tokens", "prediction_tokens"]


def find_tokens(tokenizer: Tokenizer, tokens: Sequence[int], text: str) -> range:
    """Return the positions of the tokens that spell the last occurrence of a text; an empty range without one.

    A token that spells the text only in part belongs to it.

    Args:
        tokenizer: Decodes the tokens. A tokenizer that changes texts may not find one.
        tokens: Token ids.
        text: What to look for.
    """
    start = tokenizer.decode(list(tokens)).rfind(text) if text else -1
    return range(0) if start < 0 else _between(tokenizer, tokens, start, start + len(text))


def prediction_tokens(prompts: Prompts, tokens: Sequence[int]) -> range:
    """Return the positions of a turn's tokens that decided its prediction.

    They spell the prediction that the environment was handed, with its tags, and the end of the turn if only that
    follows. In a turn without a prediction it is the last token, which ended the turn in the place of a tag.

    Args:
        prompts: The prompts that the turn answered; they read the prediction.
        tokens: The token ids of a turn.
    """
    text = prompts.tokenizer.decode(list(tokens))
    span = prompts.prediction_span(text)
    if span is None:
        return range(max(0, len(tokens) - 1), len(tokens))
    found = _between(prompts.tokenizer, tokens, *span)
    rest = text[span[1] :]
    for end in prompts.special:
        rest = rest.replace(end, "")
    return found if rest.strip() else range(found.start, len(tokens))


def action_tokens(prompts: Prompts, tokens: Sequence[int]) -> frozenset[int]:
    """Return the positions of a turn's tokens that its prediction is not made of: all of a turn without one."""
    places = frozenset(range(len(tokens)))
    if prompts.prediction_span(prompts.tokenizer.decode(list(tokens))) is None:
        return places
    return places - frozenset(prediction_tokens(prompts, tokens))


def _between(tokenizer: Tokenizer, tokens: Sequence[int], start: int, end: int) -> range:
    """Return the positions of the tokens that spell the characters from `start` to `end`."""
    first = _reaching(tokenizer, tokens, start)
    if len(_whole(tokenizer, tokens[:first])) > start:  # that token spells the text's beginning, too
        first -= 1
    return range(first, _reaching(tokenizer, tokens, end))


def _reaching(tokenizer: Tokenizer, tokens: Sequence[int], length: int) -> int:
    """Return the smallest number of first tokens whose text has at least so many characters."""
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if len(_whole(tokenizer, tokens[:middle])) >= length:
            high = middle
        else:
            low = middle + 1
    return low


def _whole(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Return the text of tokens without a character of which the last ones spell a part."""
    return tokenizer.decode(list(tokens)).rstrip("\ufffd")
