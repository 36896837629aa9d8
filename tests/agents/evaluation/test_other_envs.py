"""Environments of others, with few keys in `info`, are evaluated, compared, replayed and shown like ours."""

from __future__ import annotations

import json

import pytest

from rwml_gym.agents.config.evaluate import EvaluateConfig
from rwml_gym.agents.evaluation.replay import replay
from rwml_gym.agents.evaluation.run import evaluate
from rwml_gym.agents.players.rollout import EpisodeSpec, roll_out
from rwml_gym.agents.traces.folder import read_trace
from rwml_gym.agents.traces.scores import compare
from rwml_gym.errors import InvalidConfigError
from tests.helpers.lamp_env import LampEnv

HERE = "tests.agents.evaluation.test_other_envs"
LAMP = "tests.helpers.lamp_env:rwml_gym_tests/Lamp-v0"


def on(observation, info):
    return "on"


def wait(observation, info):
    return "wait"


class OnAgent:
    """Switches the lamps of all slots on."""

    def act(self, observations, infos):
        return ["on"] * len(observations)

    def reset(self, mask):
        pass


def lamp(agent="on", episodes=8, **arguments) -> EvaluateConfig:
    return EvaluateConfig(
        env=LAMP, agent=f"{HERE}:{agent}", episodes=episodes, concurrency=1, env_arguments=json.dumps(arguments)
    )


def test_seeds_are_the_games_where_many_seeds_share_a_name(tmp_path):
    won = evaluate(lamp(keys="won game"), tmp_path).episodes
    lost = evaluate(lamp("wait", keys="won game")).episodes
    assert [episode.game for episode in won] == [str(seed) for seed in range(8)]
    found = compare(won, lost)
    assert found is not None
    assert (found.pairs, found.games, found.success) == (8, 8, (1.0, 0.0))
    again = replay(read_trace(tmp_path))
    assert (again.steps, again.deviations) == (8, [])


def test_a_rollout_calls_an_episode_by_its_seed():
    episodes = roll_out(lambda: LampEnv(keys="won game"), OnAgent(), [EpisodeSpec(seed) for seed in (3, 7)])
    assert [episode.game for episode in episodes] == ["3", "7"]


@pytest.mark.parametrize(("env", "games", "wanted"), [(LAMP, ["lamp-1"], "seeds"), ("toy", [1, 2], "names")])
def test_a_panel_of_another_kind_of_games_is_refused(tmp_path, env, games, wanted):
    (tmp_path / "panel.json").write_text(json.dumps(games))
    config = EvaluateConfig(env=env, agent=f"{HERE}:on", panel=str(tmp_path / "panel.json"))
    with pytest.raises(InvalidConfigError, match=f"{wanted} in this environment"):
        evaluate(config)
