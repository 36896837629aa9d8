"""Which token of which episode gets which advantage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwml_gym.agents.language.sampling import Completion
from rwml_gym.agents.learning.credit import episode_groups
from rwml_gym.agents.learning.grpo import group_advantages
from rwml_gym.agents.players.language_model import TurnRecord
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec

PROMPT = [1, 2, 3]


def played(reward: float, turns: int = 2, gaps=(), error=None, whole: bool = True) -> Episode:
    """An episode whose prompts go on from turn to turn, or are others each time."""
    written, prompt = [], list(PROMPT)
    for turn in range(turns):
        tokens = [100 + turn, 110 + turn]
        completion = Completion(tokens, [-0.1 * (turn + 1), -0.2], "x", True)
        written.append(TurnRecord(list(prompt), completion, "x"))
        prompt = [*prompt, *tokens, 50 + turn] if whole else [7, turn]
    rewards = [0.0] * (turns - 1) + [reward]
    return Episode(EpisodeSpec("g"), rewards, list(gaps), [False] * turns, {"won": reward > 0}, written, error)


def test_an_episode_is_one_sequence_with_the_worlds_words_masked():
    (group,) = episode_groups([played(1.0), played(0.0, 3)], scale=False)
    assert group.prompt == tuple(PROMPT)
    assert group.completions == [[100, 110, 50, 101, 111], [100, 110, 50, 101, 111, 51, 102, 112]]
    assert group.mask == [[1, 1, 0, 1, 1], [1, 1, 0, 1, 1, 0, 1, 1]]
    assert group.advantages == [[0.5, 0.5, 0, 0.5, 0.5], [-0.5, -0.5, 0, -0.5, -0.5, 0, -0.5, -0.5]]
    assert group.logprobs[0] == [-0.1, -0.2, 0.0, -0.2, -0.2]
    assert group.allowed is None


def test_turn_by_turn_every_turn_is_a_row():
    groups = episode_groups([played(1.0), played(0.0)], sequence="turn", scale=False)
    assert [(list(g.prompt), g.completions, g.advantages) for g in groups] == [
        (PROMPT, [[100, 110]] * 2, [[0.5, 0.5], [-0.5, -0.5]]),  # both episodes begin alike: the prompt is shared
        ([*PROMPT, 100, 110, 50], [[101, 111]] * 2, [[0.5, 0.5], [-0.5, -0.5]]),
    ]


def test_a_prompt_that_does_not_go_on_begins_a_new_sequence():
    groups = episode_groups([played(1.0, whole=False), played(0.0, whole=False)])
    assert [list(g.prompt) for g in groups] == [PROMPT, [7, 0]]
    assert all(len(g.completions) == 2 for g in groups)


def test_a_turn_answers_for_its_own_prediction():
    episodes = [played(0.0, 2, [1.0, 0.0]), played(0.0, 2, [0.0, 0.0])]
    assert episode_groups(episodes) == []  # nobody won, and predictions have no weight
    (group,) = episode_groups(episodes, world_model_weight=2.0, scale=False)
    assert group.advantages == [[1.5, 1.5, 0, -0.5, -0.5], [-0.5, -0.5, 0, -0.5, -0.5]]
    # Both together: the weighted sum.
    episodes[0].rewards[-1] = 1.0
    (both,) = episode_groups(episodes, task_weight=0.5, world_model_weight=2.0, scale=False)
    assert both.advantages[0] == [1.75, 1.75, 0, -0.25, -0.25]


def test_turns_answer_for_nothing_if_the_predictions_of_one_episode_were_not_scored():
    episodes = [played(1.0, 2, [1.0, 0.0]), played(0.0, 2), played(0.0, 2, [0.0, 1.0])]
    plain = episode_groups(episodes, scale=False)
    assert episode_groups(episodes, world_model_weight=2.0, scale=False) == plain


def test_scaled_advantages_are_those_of_the_group():
    rewards, gaps = [1.0, 0.0, 0.0], [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    (group,) = episode_groups([played(r, 2, g) for r, g in zip(rewards, gaps, strict=True)], world_model_weight=0.25)
    tasks = group_advantages(np.array([rewards]))[0]
    turns = group_advantages(np.array(gaps).reshape(1, -1))[0].reshape(3, 2)
    for i, row in enumerate(group.advantages):
        assert row[0] == row[1] == pytest.approx(tasks[i] + 0.25 * turns[i, 0])
        assert row[3] == row[4] == pytest.approx(tasks[i] + 0.25 * turns[i, 1])


def test_failed_episodes_are_left_out():
    assert episode_groups([played(1.0), played(0.0, error="OSError: x")]) == []
    (group,) = episode_groups([played(1.0), played(5.0, error="OSError: x"), played(0.0)], scale=False)
    assert [row[0] for row in group.advantages] == [0.5, -0.5]


def test_actions_of_others_teach_nothing():
    episode = played(1.0, 3)
    episode.written[1] = TurnRecord([], None, "look")
    groups = episode_groups([episode, played(0.0, 3)])
    lengths = sorted(len(c) for g in groups for c in g.completions)
    # The third turn's prompt holds the first one's words, so it goes on from there.
    assert lengths == [8, 8]
    assert sorted(sum(m) for g in groups for m in g.mask) == [4, 6]


def test_what_could_be_chosen_goes_along():
    episode = played(1.0, 1)
    completion = Completion([100, 110], [-0.1, 0.0], "x", True, [[100, 105], [110]])
    episode.written[0] = TurnRecord(PROMPT, completion, "x")
    (group,) = episode_groups([episode, played(0.0, 1)])
    assert group.allowed == [[[100, 105], [110]], [None, None]]


rewards = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=6)


@given(rewards, st.sampled_from(["episode", "turn"]), st.lists(st.integers(1, 4), min_size=6, max_size=6))
@settings(deadline=None)
def test_every_token_of_the_model_counts_once(earned, rows, turns):
    episodes = [played(r, t) for r, t in zip(earned, turns, strict=False)]
    groups = episode_groups(episodes, rows)
    assert bool(groups) == (len(set(earned)) > 1)
    written = sum(len(w.completion.tokens) for e in episodes for w in e.written)
    counted = sum(sum(m) for g in groups for m in g.mask)
    assert counted == (written if groups else 0)
    for group in groups:
        for mask, tokens, advantages, logprobs in zip(
            group.mask, group.completions, group.advantages, group.logprobs, strict=True
        ):
            assert len(mask) == len(tokens) == len(advantages) == len(logprobs)
            assert all(a == 0 for a, m in zip(advantages, mask, strict=True) if not m)
