"""Tags that mark the prediction of the next state inside an action text."""

from __future__ import annotations

from collections.abc import Iterator

from rwml_gym.errors import InvalidConfigError

__all__ = ["CLOSE_TAG", "OPEN_TAG", "check_tags", "prediction_span", "split_prediction"]

OPEN_TAG = "<next_state>"
CLOSE_TAG = "</next_state>"


def split_prediction(action_text: str, open_tag: str = OPEN_TAG, close_tag: str = CLOSE_TAG) -> tuple[str, str | None]:
    """Split an agent's text into the action for the environment and the prediction for the reward.

    The action has no tag; the prediction is `None` if there is none. A prediction runs from an opening tag to the next
    closing tag. Other cases are handled as follows:

    - *No tags*: the text is the action, unchanged, including white space.
    - *Never closed*: the prediction runs to the end. A generation that stops at the closing tag usually omits that tag,
      and a prediction that was cut off must not reach the environment.
    - *Several*: the last one is used, like a corrected answer, because scoring the best one would reward many guesses.
    - *Empty or blank*: there is no prediction, even if an earlier block had one.
    - *Nested*: tags do not nest. The first closing tag ends the prediction; an opening tag inside it is dropped.
    - *A closing tag alone*: it is dropped from the action.

    If there are tags, the remaining parts are stripped and joined with single blanks, so that removing a tag never
    creates a new one. Tags are matched exactly; the time is linear in the length of the text.

    Args:
        action_text: The agent's text.
        open_tag: Opens a prediction.
        close_tag: Closes a prediction.

    Raises:
        InvalidConfigError: If the tags are not distinguishable (`check_tags`).

    >>> split_prediction("go to fridge 1 <next_state>The fridge 1 is closed.</next_state>")
    ('go to fridge 1', 'The fridge 1 is closed.')
    >>> split_prediction("look")
    ('look', None)
    """
    check_tags(open_tag, close_tag)
    if open_tag not in action_text and close_tag not in action_text:
        return action_text, None
    outside: list[str] = []
    prediction: str | None = None
    position = 0
    for start, end in _blocks(action_text, open_tag, close_tag):
        outside += action_text[position:start].split(close_tag)
        inside = action_text[start + len(open_tag) : end].removesuffix(close_tag)
        prediction = _join(inside.split(open_tag)) or None
        position = end
    outside += action_text[position:].split(close_tag)
    return _join(outside), prediction


def prediction_span(text: str, begin: int = 0) -> tuple[int, int] | None:
    """Return where the prediction stands that `split_prediction` reads, from tag to tag; `None` without a tag.

    Args:
        text: The agent's text.
        begin: Where the text begins that is read.

    >>> prediction_span("look <next_state>A mug.</next_state>")
    (5, 36)
    """
    spans = [(begin + start, begin + end) for start, end in _blocks(text[begin:], OPEN_TAG, CLOSE_TAG)]
    return spans[-1] if spans else None


def check_tags(open_tag: str, close_tag: str) -> None:
    """Check that two tags are distinguishable.

    Args:
        open_tag: Opens a prediction.
        close_tag: Closes a prediction.

    Raises:
        InvalidConfigError: If a tag is empty or has white space, or one tag is part of the other.
    """
    for tag in (open_tag, close_tag):
        if not isinstance(tag, str) or not tag or len(tag.split()) != 1 or tag != tag.strip():
            raise InvalidConfigError(f"Expected tags of at least one character without white space, actual: {tag!r}.")
    if open_tag in close_tag or close_tag in open_tag:
        raise InvalidConfigError(
            f"Expected tags that are not part of each other, actual: {open_tag!r} and {close_tag!r}."
        )


def _blocks(text: str, open_tag: str, close_tag: str) -> Iterator[tuple[int, int]]:
    """Yield where each prediction begins and ends, with its tags."""
    position = 0
    while (start := text.find(open_tag, position)) >= 0:
        end = text.find(close_tag, start + len(open_tag))
        position = end + len(close_tag) if end >= 0 else len(text)
        yield start, position


def _join(parts: list[str]) -> str:
    return " ".join(stripped for part in parts if (stripped := part.strip()))
