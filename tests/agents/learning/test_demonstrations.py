"""What a model is shown to imitate is what it would see and write itself."""

from __future__ import annotations

import pytest

import rwml_gym  # noqa: F401 - registers the toy house
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.learning.sft import demonstrations
from rwml_gym.agents.players.baselines import RandomAgent
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.players.rollout import EpisodeSpec, collect, roll_out
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.tags import split_prediction
from tests.agents.players.test_rollout import make_env


@pytest.mark.parametrize("style", ["transcript", "chat"])
def test_whole_episodes_are_shown_as_an_agent_sees_them(adapted, style):
    """An agent that happens to write what the expert did has the demonstration's tokens, to the last one."""
    model, tokenizer = adapted
    prompts = Prompts(tokenizer, style, history=0, max_tokens=2000)
    data = collect(make_env, RandomAgent(3), ["house-1", "house-2"], history=9)

    class Parrot(LanguageModelAgent):
        def _write(self, slots, infos):
            from rwml_gym.agents.language.sampling import Completion

            result = []
            for slot in slots:
                episode = self._episodes[slot]
                episode.prompt = self._prompt(episode, infos[slot])
                tokens = prompts.action_target(self.script[len(episode.written)])
                result.append(Completion(tokens, [0.0] * len(tokens), tokenizer.decode(tokens[:-1]), True))
            return result

    for number, demonstration in enumerate(demonstrations(data, prompts)):
        agent = Parrot(model, tokenizer, prompts)
        agent.script = [t.action for t in data if t.episode == number]
        (played,) = roll_out(make_env, agent, [EpisodeSpec(f"house-{number + 1}")])
        last = played.written[-1]
        assert demonstration.prompt == played.written[0].prompt
        assert demonstration.prompt + demonstration.target == last.prompt + last.completion.tokens
        own = [token for token, mine in zip(demonstration.target, demonstration.mask, strict=True) if mine]
        assert own == [token for turn in played.written for token in turn.completion.tokens]


def test_with_a_window_every_turn_is_one(tiny):
    prompts = Prompts(tiny[1], history=2, max_tokens=400)
    data = collect(make_env, RandomAgent(3), ["house-1"], history=2)
    found = demonstrations(data, prompts, lambda transition: f"{transition.task} Tools: none.")
    assert len(found) == len(data)
    for demonstration, step in zip(found, data, strict=True):
        assert demonstration.prompt == prompts.act(step.history, f"{step.task} Tools: none.")
        assert tiny[1].decode(demonstration.target) == f" {step.action}\n"
        assert set(demonstration.mask) == {1}


@pytest.mark.parametrize("style", ["transcript", "chat"])
@pytest.mark.parametrize("history", [0, 3])
def test_predictions_that_are_imitated_are_what_happened(tiny, style, history):
    prompts = Prompts(tiny[1], style, history=history, max_tokens=2000, predictions=True)
    data = collect(make_env, RandomAgent(3), ["house-1"], history=9)
    found = demonstrations(data, prompts)
    text = tiny[1].decode([t for d in found for t, mine in zip(d.target, d.mask, strict=True) if mine])
    for step in data:
        assert split_prediction(text[: text.index("</next_state>") + 13])[1] == step.next_state
        text = text[text.index("</next_state>") + 13 :]


def test_an_episode_ends_where_a_prompt_would(tiny):
    data = collect(make_env, RandomAgent(3), ["house-1"], history=9)
    long = demonstrations(data, Prompts(tiny[1], history=0, max_tokens=2000))[0]
    limit = len(long.prompt) + len(long.target) // 2
    short = demonstrations(data, Prompts(tiny[1], history=0, max_tokens=limit))[0]
    assert 0 < sum(short.mask) < sum(long.mask)
    assert len(short.mask) == len(short.target)
    exact = len(long.prompt) + len(long.target)
    assert demonstrations(data, Prompts(tiny[1], history=0, max_tokens=exact))[0] == long
    less = demonstrations(data, Prompts(tiny[1], history=0, max_tokens=exact - 1))[0]
    assert sum(less.mask) < sum(long.mask)


def test_thoughts_nobody_had_are_refused(tiny):
    data = collect(make_env, RandomAgent(3), ["house-1"])
    with pytest.raises(InvalidConfigError, match="thought"):
        demonstrations(data, Prompts(tiny[1], thoughts=True))
