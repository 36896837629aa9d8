"""Playing episodes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import pytest

import tests.toy_env  # noqa: F401 - registers the toy house
from rwml_gym.agents.baselines import RandomAgent
from rwml_gym.agents.language_model import LanguageModelAgent
from rwml_gym.agents.rollout import collect
from rwml_gym.errors import InvalidConfigError
from rwml_gym.prompts import Prompts
from rwml_gym.transitions import TransitionDataset

GAMES = ["0", "1", "2", "3", "4"]


def make_env(steps: int = 6) -> gym.Env[str, str]:
    return gym.make("rwml_gym_tests/ToyHouse-v0", max_episode_steps=steps)


def _episodes(data: TransitionDataset) -> dict[int, list[Any]]:
    episodes: dict[int, list[Any]] = {}
    for transition in data:
        episodes.setdefault(transition.episode, []).append(transition)
    return episodes


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_one_episode_a_game_in_their_order(slots):
    data = collect(make_env, RandomAgent(1), [*GAMES, "1"], slots=slots)
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
        state, info = env.reset(options={"game": episode[0].game.removeprefix("house-")})
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
    data = collect(lambda: make_env(20), RandomAgent(2), [str(i) for i in range(8)])
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
    assert seen == [2, 2, 1]


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
