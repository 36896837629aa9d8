"""Which token of which episode gets which advantage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.sampling import Completion
from rwml_gym.agents.learning.credit import Answers, Credit, Delivery, credit_episodes
from rwml_gym.agents.learning.grpo import group_advantages
from rwml_gym.agents.players.language_model import TurnRecord
from rwml_gym.agents.players.rollout import Episode, EpisodeSpec
from rwml_gym.errors import InvalidConfigError

PROMPT = [1, 2, 3]


class Letters:
    """A tokenizer with one token a character."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, token_ids) -> str:
        return "".join(map(chr, token_ids))


PROMPTS = Prompts(Letters(), history=0, max_tokens=10_000)
PLAIN = Delivery(scale=False)


def episode_groups(episodes, sequence="episode", delivery=PLAIN, answers=None):
    return credit_episodes(episodes, PROMPTS, sequence, delivery, answers).groups


def both(gap_weight: float, **settings) -> Delivery:
    return Delivery(**{"gap_weight": gap_weight, "scale": False, "gap_in_failed_groups": True, **settings})


def played(reward: float, turns: int = 2, gaps=(), error=None, whole: bool = True) -> Episode:
    """An episode whose prompts go on from turn to turn, or are others each time."""
    written, prompt = [], list(PROMPT)
    for turn in range(turns):
        tokens = [100 + turn, 110 + turn]
        completion = Completion(tokens, [-0.1 * (turn + 1), -0.2], "x", True)
        written.append(TurnRecord(list(prompt), completion, "x"))
        prompt = [*prompt, *tokens, 50 + turn] if whole else [7, turn]
    rewards = [0.0] * (turns - 1) + [reward]
    info = {"won": reward > 0}
    return Episode(EpisodeSpec("g"), rewards, list(gaps), info=info, written=written, error=error)


def test_an_episode_is_one_sequence_with_the_worlds_words_masked():
    (group,) = episode_groups([played(1.0), played(0.0, 3)])
    assert group.prompt == tuple(PROMPT)
    assert group.completions == [[100, 110, 50, 101, 111], [100, 110, 50, 101, 111, 51, 102, 112]]
    assert group.mask == [[1, 1, 0, 1, 1], [1, 1, 0, 1, 1, 0, 1, 1]]
    assert group.advantages == [[0.5, 0.5, 0, 0.5, 0.5], [-0.5, -0.5, 0, -0.5, -0.5, 0, -0.5, -0.5]]
    assert group.logprobs[0] == [-0.1, -0.2, 0.0, -0.2, -0.2]
    assert group.allowed is None


def test_turn_by_turn_every_turn_is_a_row():
    groups = episode_groups([played(1.0), played(0.0)], sequence="turn")
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
    (group,) = episode_groups(episodes, delivery=both(2.0, gap_tokens="all"))
    assert group.advantages == [[1.5, 1.5, 0, -0.5, -0.5], [-0.5, -0.5, 0, -0.5, -0.5]]
    # Both together: the weighted sum.
    episodes[0].rewards[-1] = 1.0
    (summed,) = episode_groups(episodes, delivery=both(2.0, task_weight=0.5, gap_tokens="all"))
    assert summed.advantages[0] == [1.75, 1.75, 0, -0.25, -0.25]
    # The fake turns have no prediction: its advantage is that of the token that ended the turn.
    (last,) = episode_groups(episodes, delivery=both(2.0, task_weight=0.5))
    assert last.advantages[0] == [0.25, 1.75, 0, 0.25, -0.25]


def test_turns_answer_for_nothing_if_the_predictions_of_one_episode_were_not_scored():
    episodes = [played(1.0, 2, [1.0, 0.0]), played(0.0, 2), played(0.0, 2, [0.0, 1.0])]
    assert episode_groups(episodes, delivery=both(2.0)) == episode_groups(episodes)


def test_scaled_advantages_are_those_of_the_group():
    rewards, gaps = [1.0, 0.0, 0.0], [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    delivery = Delivery(gap_weight=0.25, gap="z_score", gap_tokens="all")
    (group,) = episode_groups([played(r, 2, g) for r, g in zip(rewards, gaps, strict=True)], delivery=delivery)
    tasks = group_advantages(np.array([rewards]))[0]
    turns = group_advantages(np.array(gaps).reshape(1, -1))[0].reshape(3, 2)
    for i, row in enumerate(group.advantages):
        assert row[0] == row[1] == pytest.approx(tasks[i] + 0.25 * turns[i, 0])
        assert row[3] == row[4] == pytest.approx(tasks[i] + 0.25 * turns[i, 1])


def test_mean_only_does_not_divide_the_gaps_whatever_the_task_does():
    episodes = [played(1.0, 2, [1.0, 0.0]), played(0.0, 2, [0.0, 0.0])]
    delivery = Delivery(gap_weight=1.0, gap_tokens="all")
    (group,) = episode_groups(episodes, delivery=delivery)
    task = group_advantages(np.array([[1.0, 0.0]]))[0]
    assert group.advantages[0][:2] == pytest.approx([task[0] + 0.75] * 2)


def test_where_all_lost_the_gap_says_nothing_unless_asked():
    episodes = [played(0.0, 2, [1.0, 0.0]), played(0.0, 2, [0.0, 0.0])]
    silent = credit_episodes(episodes, PROMPTS, delivery=both(2.0, gap_in_failed_groups=False))
    assert silent == Credit(failed=True)
    asked = credit_episodes(episodes, PROMPTS, delivery=both(2.0))
    assert asked.signal
    assert asked.failed
    assert asked.task_square == 0
    assert asked.gap_square == pytest.approx(1.5**2 + 3 * 0.5**2)  # the last token of each turn


def talking(reward: float, turns: list[tuple[str, str]], gaps=(), mean: float = -0.5) -> Episode:
    """An episode of turns as the model wrote them and answers, with real prompts."""
    episode = Episode(EpisodeSpec("g"), info={"won": reward > 0}, gap_rewards=list(gaps))
    prompt = PROMPTS.tokenizer.encode("START\n>")
    for number, (said, answer) in enumerate(turns):
        tokens = PROMPTS.tokenizer.encode(said)
        completion = Completion(tokens, [mean * (number + 1)] * len(tokens), said, True)
        episode.written.append(TurnRecord(prompt, completion, said))
        episode.observations.append(answer)
        episode.rewards.append(reward * (number + 1 == len(turns)))
        episode.invalid.append(False)
        prompt = [*prompt, *tokens, *PROMPTS.reply(answer, tokens)]
    return episode


def _spelled(tokens, chosen) -> str:
    return PROMPTS.tokenizer.decode([token for token, wanted in zip(tokens, chosen, strict=True) if wanted])


def test_a_prediction_answers_for_its_own_tokens():
    turn = " look <next_state>A mug.</next_state>"
    episodes = [talking(1.0, [(turn, "A mug.")], [1.0]), talking(0.0, [(turn, "A pen.")], [0.0])]
    (group,) = episode_groups(episodes, delivery=both(1.0, task_weight=0.0))
    assert _spelled(group.completions[0], group.advantages[0]) == "<next_state>A mug.</next_state>"
    assert {a for a in group.advantages[1] if a} == {-0.5}


def test_an_action_answers_for_the_task_and_its_prediction_for_the_gap():
    turn = " look <next_state>A mug.</next_state>"
    episodes = [talking(1.0, [(turn, "A mug.")], [1.0]), talking(0.0, [(" go", "No.")], [0.0])]
    (group,) = episode_groups(episodes, delivery=both(0.0, task_tokens="action"))
    assert _spelled(group.completions[0], [a > 0 for a in group.advantages[0]]) == " look "
    assert _spelled(group.completions[1], [a < 0 for a in group.advantages[1]]) == " go"  # nothing was predicted
    (group,) = episode_groups(episodes, delivery=both(2.0, task_tokens="action"))
    assert set(group.advantages[0]) == {0.5, 1.0}  # the action's, and the prediction's
    assert group.mask[0] == [1] * len(turn)


@pytest.mark.parametrize("sequence", ["episode", "turn"])
def test_the_worlds_answers_are_learnt_the_last_one_too(sequence):
    one, two = [(" look\n", "A mug."), (" take mug\n", "You take it.")], [(" go\n", "No."), (" go\n", "No way.")]
    episodes = [talking(1.0, one), talking(0.0, two)]
    texts = [list(e.observations) for e in episodes]
    groups = episode_groups(episodes, sequence, answers=Answers(texts))
    learnt = [
        _spelled(tokens, [target >= 0 for target in targets])
        for group in groups
        for tokens, targets in zip(group.completions, group.targets, strict=True)
    ]
    assert sorted("".join(learnt)) == sorted("".join(t for row in texts for t in row))
    for group in groups:
        for tokens, targets, mask in zip(group.completions, group.targets, group.mask, strict=True):
            assert all(target in (-1, token) for token, target in zip(tokens, targets, strict=True))
            assert not any(m and target >= 0 for m, target in zip(mask, targets, strict=True))
    plain = episode_groups(episodes, sequence)  # the policy's part is what it was
    assert [[m for m in row if m] for g in groups for row in g.mask] == [
        [m for m in r if m] for g in plain for r in g.mask
    ]


def test_answers_are_learnt_where_no_reward_differs_and_then_nothing_else():
    episodes = [talking(0.0, [(" look\n", "A mug.")]) for _ in range(2)]
    assert credit_episodes(episodes, PROMPTS) == Credit(failed=True)
    credit = credit_episodes(episodes, PROMPTS, answers=Answers([["A mug."]] * 2))
    (group,) = credit.groups
    assert not credit.signal
    assert group.counted == 0
    assert group.observed == 2 * len("A mug.")


def test_a_placebo_takes_the_place_of_an_answer():
    episodes = [talking(1.0, [(" look\n", "A mug.")]), talking(0.0, [(" look\n", "A pen.")])]
    (group,) = episode_groups(episodes, answers=Answers([["xy"], ["A wooden box."]]))
    targets = [[t for t in row if t >= 0] for row in group.targets]
    assert [PROMPTS.tokenizer.decode(row) for row in targets] == ["xyxyxy", "A wood"]
    assert _spelled(group.completions[0], [t >= 0 for t in group.targets[0]]) == "A mug."


@pytest.mark.parametrize(("rewards", "factor"), [((0, 0, 0, 0), 1.0), ((1, 0, 0, 0), 0.75), ((1, 1, 1, 1), 0.0)])
def test_answers_count_by_the_share_of_lost_episodes_if_wanted(rewards, factor):
    episodes = [talking(float(reward), [(" look\n", "A mug.")]) for reward in rewards]
    texts = [episode.observations for episode in episodes]
    for by_failure, expected in ((False, 1.0), (True, factor)):
        groups = episode_groups(episodes, answers=Answers(texts, by_failure=by_failure))
        assert {group.target_factor for group in groups} == {expected}


def test_gap_rewards_count_where_the_environment_does_not_say_who_won():
    episodes = [played(1.0, gaps=(1.0, 0.0)), played(0.0, gaps=(0.0, 0.0))]
    for episode in episodes:
        episode.info = {}
    credit = credit_episodes(episodes, PROMPTS, delivery=both(0.5, gap_tokens="all", gap_in_failed_groups=False))
    assert not credit.failed
    assert credit.gap_square > 0
    with pytest.raises(InvalidConfigError, match=r"with observation_loss\.by_failure"):
        credit_episodes(episodes, PROMPTS, answers=Answers([["a", "b"]] * 2, by_failure=True))


def test_the_most_uncertain_turns_are_chosen():
    episodes = [talking(1.0, [(" a\n", "one"), (" b\n", "two"), (" c\n", "six"), (" d\n", "ten")]) for _ in range(2)]
    groups = episode_groups(episodes, answers=Answers([e.observations for e in episodes], turns=0.5))
    learnt = {_spelled(t, [x >= 0 for x in y]) for g in groups for t, y in zip(g.completions, g.targets, strict=True)}
    assert learnt == {"sixten"}  # their actions had the lowest log-probabilities


def test_failed_episodes_are_left_out():
    assert episode_groups([played(1.0), played(0.0, error="OSError: x")]) == []
    (group,) = episode_groups([played(1.0), played(5.0, error="OSError: x"), played(0.0)])
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
