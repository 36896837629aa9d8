"""Playing episodes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import gymnasium as gym
import pytest

import rwml_gym  # noqa: F401 - registers the toy house
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.players.baselines import RandomAgent
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.players.rollout import EpisodeSpec, collect, roll_out
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.tags import split_prediction
from rwml_gym.transitions import TransitionDataset

GAMES = ["house-0", "house-1", "house-2", "house-3", "house-4"]


def make_env(steps: int = 6) -> gym.Env[str, str]:
    return gym.make("rwml_gym/ToyHouse-v0", max_episode_steps=steps)


def _episodes(data: TransitionDataset) -> dict[int, list[Any]]:
    episodes: dict[int, list[Any]] = {}
    for transition in data:
        episodes.setdefault(transition.episode, []).append(transition)
    return episodes


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_one_episode_a_game_in_their_order(slots):
    data = collect(make_env, RandomAgent(1), [*GAMES, "house-1"], slots=slots)
    episodes = _episodes(data)
    assert list(episodes) == list(range(6))
    assert [e[0].game for e in episodes.values()] == [f"house-{i}" for i in (0, 1, 2, 3, 4, 1)]
    for episode in episodes.values():
        assert [t.step for t in episode] == list(range(len(episode)))
        assert 1 <= len(episode) <= 6
        assert len({t.game for t in episode}) == 1


def test_transitions_say_what_happened():
    data = collect(make_env, RandomAgent(3), GAMES, history=3)
    for episode in _episodes(data).values():
        env = make_env()
        state, info = env.reset(options={"game": episode[0].game})
        for transition in episode:
            assert transition.state == state
            assert len(transition.history) == min(3, transition.step + 1)
            state, _, terminated, truncated, info = env.step(transition.action)
            assert transition.next_state == state
            assert transition.task == info["task"]
            assert not transition.invalid_action
        assert terminated or truncated
        assert {t.won for t in episode} == {info["won"]}


def test_some_games_end_before_others():
    # Slots that ended are left alone while the others go on.
    data = collect(lambda: make_env(20), RandomAgent(2), [f"house-{i}" for i in range(24)])
    lengths = {len(episode) for episode in _episodes(data).values()}
    assert len(lengths) > 1
    assert any(t.won for t in data)


def test_games_can_be_seeds():
    a = collect(make_env, RandomAgent(0), [3, 4, 5])
    b = collect(make_env, RandomAgent(0), [3, 4, 5], slots=16)
    assert a == b
    env = make_env()
    for seed, episode in zip((3, 4, 5), _episodes(a).values(), strict=True):
        assert episode[0].state == env.reset(seed=seed)[0]


def test_the_same_agent_plays_the_same():
    assert collect(make_env, RandomAgent(7), GAMES) == collect(make_env, RandomAgent(7), GAMES)
    assert collect(make_env, RandomAgent(7), GAMES) != collect(make_env, RandomAgent(8), GAMES)


def test_no_games_are_refused():
    with pytest.raises(InvalidConfigError, match="at least one game"):
        collect(make_env, RandomAgent(), [])


def test_progress_counts_every_episode_once():
    seen: list[int] = []
    collect(make_env, RandomAgent(), GAMES, slots=2, progress=seen.append)
    assert seen == [1] * 5


def test_environments_are_closed_even_if_the_agent_fails():
    closed: list[bool] = []

    class Closing(gym.Wrapper[str, str, str, str]):
        def close(self) -> None:
            closed.append(True)
            super().close()

    class Failing(RandomAgent):
        def act(self, observations: Sequence[str], infos: Sequence[dict[str, Any]]) -> list[str]:
            raise RuntimeError("no idea")

    with pytest.raises(RuntimeError, match="no idea"):
        collect(lambda: Closing(make_env()), Failing(), GAMES[:3])
    assert len(closed) == 3


# Slots and failures


class _Script:
    """Plays a random admissible action; remembers what it was shown and told."""

    def __init__(self) -> None:
        self.inner, self.shown, self.told = RandomAgent(0), [], []

    def act(self, observations, infos):
        self.shown.append([observation is not None for observation in observations])
        return self.inner.act(observations, infos)

    def reset(self, mask):
        self.told.append(list(mask))


def test_where_an_episode_ends_the_next_begins():
    agent = _Script()
    played = roll_out(lambda: make_env(20), agent, [EpisodeSpec(f"house-{i}") for i in range(9)], slots=3)
    steps = [len(p.rewards) for p in played]
    # No slot idles while episodes are left: nearly as few rounds as there can be.
    assert len(agent.shown) < sum(steps) / 3 + max(steps)
    assert all(all(row) for row in agent.shown[: sum(steps) // 3 - 20])
    assert sum(map(sum, agent.shown)) == sum(steps)  # an idle slot is shown as such
    assert agent.told[0] == [True] * 3
    assert sum(map(sum, agent.told)) == 9
    for p, job in zip(played, range(9), strict=True):
        assert p.info["game"] == f"house-{job}"
        assert p.won == bool(sum(p.rewards))


class _Breaks(gym.Wrapper[str, str, str, str]):
    """Fails at the second step of one game, and at every reset of another."""

    made = 0

    def __init__(self, env) -> None:
        super().__init__(env)
        type(self).made += 1

    def reset(self, **kwargs):
        if (kwargs.get("options") or {}).get("game") == "house-3":
            raise OSError("no such house")
        self.steps = 0
        return super().reset(**kwargs)

    def step(self, action):
        self.steps += 1
        if self.env.unwrapped.game.name == "house-1" and self.steps == 2:
            raise RuntimeError("the house burnt down")
        return super().step(action)


def test_an_environment_that_fails_is_data_if_wanted():
    jobs = [EpisodeSpec(f"house-{i}") for i in range(6)]
    _Breaks.made, seen = 0, []
    played = roll_out(lambda: _Breaks(make_env()), RandomAgent(0), jobs, 2, on_error="drop", progress=seen.append)
    assert [p.error for p in played] == [
        None,
        "RuntimeError: the house burnt down",
        None,
        "OSError: no such house",
        None,
        None,
    ]
    assert sum(seen) == 6
    assert _Breaks.made == 4  # two that failed were made anew
    assert [len(played[1].rewards), len(played[3].rewards)] == [1, 0]
    assert not played[1].won
    with pytest.raises(RuntimeError, match="burnt down"):
        roll_out(lambda: _Breaks(make_env()), RandomAgent(0), jobs[:3], 2)
    with pytest.raises(InvalidConfigError, match="on_error"):
        roll_out(make_env, RandomAgent(0), jobs, on_error="ignore")
    with pytest.raises(InvalidConfigError, match="`slots` of at least 1"):
        roll_out(make_env, RandomAgent(0), jobs, 0)


# A language model that plays


def _agent(adapted, seed: int = 0, **settings: Any) -> LanguageModelAgent:
    model, tokenizer = adapted
    return LanguageModelAgent(model, tokenizer, Prompts(tokenizer, history=2, max_tokens=200), seed=seed, **settings)


def test_garbage_is_played_and_recorded(adapted):
    # A random model writes anything, also nothing: the world answers, and that is a transition.
    data = collect(make_env, _agent(adapted), GAMES)
    assert {t.episode for t in data} == set(range(5))
    invalid = [t for t in data if t.invalid_action]
    assert len(invalid) > len(data) / 2
    assert {t.next_state for t in invalid} == {"Nothing happens."}
    assert all("\n" not in t.action for t in data)


def test_garbage_can_be_saved_and_loaded(adapted, tmp_path):
    pytest.importorskip("datasets")
    data = collect(make_env, _agent(adapted), GAMES)
    data.save(tmp_path / "set")
    assert TransitionDataset.load(tmp_path / "set") == data


@pytest.mark.long
def test_a_language_model_agent_follows_from_its_seed(adapted):
    a, b, c = (collect(make_env, _agent(adapted, seed, random_share=0.5), GAMES) for seed in (1, 1, 2))
    assert a == b
    assert a != c


def test_random_actions_are_admissible_ones(adapted):
    data = collect(make_env, _agent(adapted, random_share=1.0), GAMES)
    assert not any(t.invalid_action for t in data)
    share = collect(make_env, _agent(adapted, random_share=0.5), [*GAMES, *GAMES])
    invalid = sum(t.invalid_action for t in share) / len(share)
    assert 0.2 < invalid < 0.8


@pytest.mark.long
def test_an_episode_does_not_depend_on_who_else_is_played(adapted):
    """Window or whole episode, few slots or many, alone or not: the same words."""
    for history in (0, 2):
        model, tokenizer = adapted
        jobs = [EpisodeSpec(f"house-{i % 5}", seed=i) for i in range(9)]
        runs = []
        for slots, chosen in ((9, jobs), (2, jobs), (4, jobs[::-1]), (1, jobs[4:5])):
            agent = LanguageModelAgent(
                model, tokenizer, Prompts(tokenizer, history=history, max_tokens=400), random_share=0.2
            )
            played = roll_out(make_env, agent, chosen, slots)
            runs.append({p.spec: [w.action for w in p.written] for p in played})
        assert runs[0] == runs[1] == runs[2]
        assert runs[3][jobs[4]] == runs[0][jobs[4]]
        assert len({tuple(actions) for actions in runs[0].values()}) == 9


@pytest.mark.long
def test_without_seeds_an_episode_follows_from_its_game_and_its_number(adapted):
    runs = []
    for slots in (1, 3):
        played = roll_out(
            make_env, _agent(adapted), [EpisodeSpec(g) for g in ("house-0", "house-1", "house-0", "house-2")], slots
        )
        runs.append([[w.action for w in p.written] for p in played])
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][2]


def test_a_whole_episode_is_one_text_of_which_each_turn_runs_what_is_new(adapted):
    model, tokenizer = adapted
    agent = LanguageModelAgent(model, tokenizer, Prompts(tokenizer, history=0, max_tokens=1000))
    (played,) = roll_out(make_env, agent, [EpisodeSpec("house-0", 1)])
    turns = played.written
    assert len(turns) == 6
    for before, after in pairwise(turns):
        assert after.prompt[: len(before.prompt) + len(before.completion.tokens)] == [
            *before.prompt,
            *before.completion.tokens,
        ]
    # All but what each turn wrote last ran once; that runs with the next turn's words.
    assert agent.sessions.run_tokens <= len(turns[-1].prompt) + len(turns[-1].completion.tokens)


def test_a_whole_episode_that_grows_too_long_goes_on_with_its_last_turns(adapted):
    model, tokenizer = adapted
    agent = LanguageModelAgent(model, tokenizer, Prompts(tokenizer, history=0, max_tokens=150))
    (played,) = roll_out(lambda: make_env(12), agent, [EpisodeSpec("house-0", 1)])
    assert all(len(w.prompt) <= 150 for w in played.written)
    assert len(played.written) == 12
    assert len(played.written[-1].prompt) > 75


@pytest.mark.parametrize("decoding", ["constrained", "scored"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_constrained_actions_are_admissible(adapted, decoding, temperature):
    data = collect(make_env, _agent(adapted, decoding=decoding, temperature=temperature), GAMES)
    assert not any(t.invalid_action for t in data)
    assert len({t.action for t in data}) > 1


@pytest.mark.parametrize("style", ["transcript", "chat"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_prediction_is_free_text_behind_a_constrained_action(adapted, style, temperature):
    model, tokenizer = adapted
    prompts = Prompts(tokenizer, style, history=1, max_tokens=400, predictions=True)
    agent = LanguageModelAgent(model, tokenizer, prompts, temperature, action_tokens=40, decoding="constrained")
    info = {"task": "Find it.", "admissible_actions": ["look", "go to shelf 1", "go to shelf 11", "take mug"]}
    seen = set()
    for seed in range(6):
        agent.reset([True], [seed])
        (text,) = agent.act(["You are in the kitchen."], [info])
        (turn,) = agent.written(0)
        action, _ = split_prediction(text)
        assert action in info["admissible_actions"]
        seen.add(action)
        begin = len(prompts.action_choice(action))
        assert turn.completion.tokens[:begin] == prompts.action_choice(action)
        assert len(turn.completion.allowed) == len(turn.completion.tokens) > begin
        assert None not in turn.completion.allowed[:begin]
        assert set(map(str, turn.completion.allowed[begin:])) == {"None"}
    assert len(seen) > 1 or not temperature


def test_the_likeliest_action_is_the_one_with_the_highest_score(adapted):
    import torch

    model, _ = adapted
    agent = _agent(adapted, decoding="scored", temperature=0.0)
    info = {"task": "Find it.", "admissible_actions": ["look", "go to kitchen", "take mug", "drop the soap"]}
    agent.reset([True])
    (action,) = agent.act(["You are in the kitchen."], [info])
    (turn,) = agent.written(0)
    scores = {}
    for option in info["admissible_actions"]:
        target = agent.prompts.action_target(option)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([turn.prompt + target])).logits[0].log_softmax(-1)
        *_, scores[option] = accumulate(float(logits[len(turn.prompt) - 1 + t, i]) for t, i in enumerate(target))
    assert action == max(scores, key=scores.get)


def test_unknown_decoding_and_thoughts_beside_a_choice_are_refused(adapted):
    with pytest.raises(InvalidConfigError, match="decoding"):
        _agent(adapted, decoding="beam")
    for decoding in ("constrained", "scored"):
        with pytest.raises(InvalidConfigError, match="thought"):
            LanguageModelAgent(*adapted, Prompts(adapted[1], thoughts=True), decoding=decoding)
    with pytest.raises(InvalidConfigError, match="prediction"):
        LanguageModelAgent(*adapted, Prompts(adapted[1], predictions=True), decoding="scored")


@pytest.mark.long
def test_an_agent_predicts_in_the_same_breath(adapted):
    """Whatever a random model writes between the tags reaches the wrapper, and the environment never sees it."""
    from rwml_gym.wrappers import WorldModelRewardWrapper

    model, tokenizer = adapted
    prompts = Prompts(tokenizer, history=0, max_tokens=2000, predictions=True)

    class Talkative(LanguageModelAgent):
        def act(self, observations, infos):
            return [f"look <next_state>{o}</next_state>" for o in observations]

    def make():
        return WorldModelRewardWrapper(make_env(), encoder="hashing", threshold=0.1, mode="report")

    (played,) = roll_out(make, Talkative(model, tokenizer, prompts), [EpisodeSpec("house-0")])
    assert played.gap_rewards == [1.0] * 6
    assert not any(played.invalid)
    (played,) = roll_out(
        make, LanguageModelAgent(model, tokenizer, prompts, action_tokens=40), [EpisodeSpec("house-0")]
    )
    assert len(played.gap_rewards) == len(played.rewards)
    assert played.info["world_model"]["action"] == played.written[-1].action.split("<next_state>")[0].strip()
