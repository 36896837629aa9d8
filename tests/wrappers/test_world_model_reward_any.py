"""The reward wrapper around environments that are not text, as they come from their packages, and around real ones."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import rwml_gym  # noqa: F401 - registers the ids
from rwml_gym.encoders.cached import Embedded
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import (
    EncoderError,
    EncoderNotFoundError,
    InvalidConfigError,
    InvalidObservationError,
    WorldModelError,
)
from rwml_gym.wrappers import WorldModelRewardVectorWrapper, WorldModelRewardWrapper

PREDICTORS = ["nothing-changes", "most-frequent", "retrieval", "learned"]


def describe_cart(observation):
    """Names what a person would: which way the cart and the pole go."""
    position, _, angle, _ = observation
    return f"The cart is {'left' if position < 0 else 'right'}, the pole leans {'left' if angle < 0 else 'right'}."


def describe_push(action):
    return "push right" if action else "push left"


OBJECTS = ("unseen", "nothing", "wall", "floor", "door", "key", "ball", "box", "goal", "lava", "agent")
COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
MOVES = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle", "done")


def describe_grid(observation):
    """MiniGrid's codes in words: what lies in front, and what is seen."""
    image = observation["image"]
    seen = sorted({f"{COLORS[c]} {OBJECTS[o]}" for o, c, _ in image.reshape(-1, 3) if OBJECTS[o] not in OBJECTS[:4]})
    front = OBJECTS[image[3, 5, 0]]
    facing = ("east", "south", "west", "north")[observation["direction"]]
    return f"You face {facing}. In front of you is {front}. You see: {', '.join(seen) or 'nothing'}."


def describe_move(action):
    return MOVES[action]


def random_steps(env, steps=60, seed=0):
    """Plays at random; the infos of the steps."""
    env.reset(seed=seed)
    env.action_space.seed(seed)
    infos = []
    for _ in range(steps):
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        infos.append(info["world_model"])
        if terminated or truncated:
            env.reset()
    return infos


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_cartpole_as_it_is(predictor):
    pytest.importorskip("torch")
    env = WorldModelRewardWrapper(gym.make("CartPole-v1"), predictor=predictor, shape="continuous", mode="replace")
    infos = random_steps(env, 300)
    distances = np.array([info["distance"] for info in infos])
    # The first step of those that start with nothing.
    assert [info["source"] for info in infos].count("none") == (predictor != "nothing-changes")
    assert np.median(distances[150:]) < 0.5
    assert {info["encoder"] for info in infos} == {"observation"}
    assert set(map(type, infos[-1].values())) == {str, float}


def test_numbers_are_compared_as_they_are():
    env = WorldModelRewardWrapper(gym.make("CartPole-v1"), threshold=1e-5)
    env.reset(seed=0)
    plain = gym.make("CartPole-v1")
    start, _ = plain.reset(seed=0)
    truth = plain.step(1)[0]
    _, reward, _, _, info = env.step({"action": 1, "prediction": truth})
    assert (reward, info["world_model"]["distance"], info["world_model"]["source"]) == (2.0, 0.0, "action")
    env.reset(seed=0)
    _, reward, _, _, info = env.step({"action": 1, "prediction": start})
    assert reward == 1.0
    assert info["world_model"]["distance"] > 1e-5
    # Passing a bound is a wrong prediction, and no error.
    assert env.step({"action": 1, "prediction": truth + 100})[4]["world_model"]["distance"] > 0.1
    assert env.step(1)[4]["world_model"]["source"] == "none"


@pytest.mark.long
def test_the_learned_model_comes_to_know_the_cart():
    pytest.importorskip("torch")
    distances = {}
    for predictor in ("nothing-changes", "learned"):
        env = WorldModelRewardWrapper(gym.make("CartPole-v1"), predictor=predictor, mode="report")
        distances[predictor] = np.mean([info["distance"] for info in random_steps(env, 1500)[1000:]])
    assert distances["learned"] < 0.5 * distances["nothing-changes"]


def test_a_unit_makes_small_changes_count():
    plain = WorldModelRewardWrapper(gym.make("CartPole-v1"), predictor="nothing-changes")
    scaled = WorldModelRewardWrapper(gym.make("CartPole-v1"), predictor="nothing-changes", scale=[0.02, 0.2, 0.03, 0.3])
    near, far = (np.mean([info["distance"] for info in random_steps(env)]) for env in (plain, scaled))
    assert far > 2 * near


@pytest.mark.parametrize("predictor", [None, *PREDICTORS])
def test_cartpole_in_words(predictor):
    pytest.importorskip("torch")
    name = "tests.wrappers.test_world_model_reward_any:describe_"
    env = WorldModelRewardWrapper(
        gym.make("CartPole-v1"),
        "hashing",
        predictor=predictor,
        describe=name + "cart",
        describe_action=name + "push",
        threshold=0.05,
    )
    env.reset(seed=3)
    observation, *_, info = env.step({"action": 1, "prediction": "The cart is left, the pole leans left."})
    assert observation in gym.make("CartPole-v1").observation_space
    assert info["world_model"]["action"] == "push right"
    assert info["world_model"]["reward"] == (describe_cart(observation) == "The cart is left, the pole leans left.")
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert pickle.loads(pickle.dumps(env.spec)) == env.spec
    first, second = (random_steps(e, 40) for e in (gym.make(env.spec), again))
    assert first == second


@pytest.mark.parametrize("id", ["MiniGrid-Empty-5x5-v0", "BabyAI-GoToRedBall-v0", "MiniGrid-DoorKey-5x5-v0"])
def test_minigrid_and_babyai(id):
    pytest.importorskip("minigrid")
    pytest.importorskip("torch")
    plain = WorldModelRewardWrapper(gym.make(id), "hashing", predictor="retrieval", mode="report")
    assert {info["encoder"] for info in random_steps(plain)} == {"observation"}
    words = WorldModelRewardWrapper(
        gym.make(id), "hashing", 0.01, predictor="retrieval", describe=describe_grid, describe_action=describe_move
    )
    infos = random_steps(words, 300)
    assert infos[1]["prediction"].startswith("You face ")
    assert infos[0]["reward"] == 0  # nothing seen yet
    assert np.mean([info["reward"] for info in infos[100:]]) > 0.2


@pytest.mark.long
def test_textworld_alfworld_and_tau2():
    pytest.importorskip("alfworld")
    pytest.importorskip("tau2")
    engines = [
        ("rwml_gym/ALFWorld-v0", {"engine": "textworld"}),
        ("rwml_gym/ALFWorld-v0", {}),
        ("rwml_gym/Tau2-v0", {"domain": "mock"}),
    ]
    for id, arguments in engines:
        env = WorldModelRewardWrapper(gym.make(id, **arguments), "hashing", predictor="retrieval", mode="replace")
        _, info = env.reset(seed=0)
        rewards = []
        for _ in range(3):
            action = (info["admissible_actions"] or ["get_users()"])[0]
            for _ in range(2):
                _, reward, terminated, truncated, info = env.step(action)
                rewards.append(reward)
            if terminated or truncated:
                break
        assert info["world_model"]["source"] == "predictor"
        assert sum(rewards) > 0  # what was said before is known


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version", "ignore:.*A Box observation space")
@pytest.mark.parametrize("id", ["CartPole-v1", "FrozenLake-v1", "Blackjack-v1"])
def test_check_env(id):
    pytest.importorskip("torch")
    make = gym.make(id, **({"sab": True} if id == "Blackjack-v1" else {}))
    env = WorldModelRewardWrapper(make, predictor="retrieval", shape="continuous")
    random_steps(env)
    check_env(WorldModelRewardWrapper(make.unwrapped, predictor="nothing-changes"), skip_render_check=True)


def test_the_spec_of_numbers_round_trips():
    env = WorldModelRewardWrapper(gym.make("CartPole-v1"), scale=np.array([1, 2, 3, 4.0]), predictor="retrieval")
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    assert pickle.loads(pickle.dumps(env.spec)) == env.spec
    assert random_steps(again) == random_steps(gym.make(env.spec))


class Predictor:
    """Says what it is told to."""

    def __init__(self, answer):
        self.answer = answer

    def predict(self, histories, actions, tasks=None):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (KeyError("fridge"), r"Expected 1 predictions from Predictor.predict, actual: KeyError: 'fridge'"),
        ([], r"Expected 1 predictions .*, actual: 0"),
        (["a", "b"], r"Expected 1 predictions .*, actual: 2"),
        ("a", r"Expected 1 predictions .*, actual: 'a' \(str\)"),
        (None, r"Expected 1 predictions .*, actual: None \(NoneType\)"),
        ([3], r"Expected text \(or None, or Embedded\) from Predictor.predict, actual: '3' \(int\)"),
        ([b"a"], r"Expected text .* \(bytes\)"),
        ([Embedded(np.ones(3))], r"Expected an embedded prediction of 1024 finite numbers, actual: shape \(3,\)"),
        ([Embedded(np.full(1024, np.nan))], r"1024 finite numbers, actual: shape \(1024,\) with NaN"),
    ],
)
def test_predictors_that_do_something_else_are_named(answer, message):
    env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor=Predictor(answer))
    env.reset(seed=0)
    with pytest.raises(WorldModelError, match=message):
        env.step("look")


@pytest.mark.parametrize("answer", [[None], [""], [" \n"]])
def test_a_predictor_may_have_nothing_to_say(answer):
    env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor=Predictor(answer))
    env.reset(seed=0)
    _, reward, _, _, info = env.step("look")
    assert (reward, info["world_model"]["source"], info["world_model"]["distance"]) == (0.0, "none", 1.0)


def test_a_predictor_may_do_without_tasks():
    class Two:
        def predict(self, histories, actions):
            return ["Nothing happens."] * len(actions)

    env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor=Two())
    env.reset(seed=0)
    assert env.step("fly")[1] == 1.0


def test_embeddings_that_are_not_numbers_are_an_error():
    env = WorldModelRewardWrapper(ToyHouseEnv(), lambda texts: np.full((len(texts), 3), np.nan))
    env.reset(seed=0)
    with pytest.raises(EncoderError, match=r"Expected 2 rows of finite numbers from .* with NaN or infinity"):
        env.step({"action": "fly", "prediction": "Nothing."})


class Odd(gym.Env):
    """Says something else than it promises."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, observation):
        self.observation = observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return self.observation, 0.0, False, False, {}


@pytest.mark.parametrize("observation", [np.zeros(3), np.full(2, np.nan), np.full(2, 7.0), "left", None])
def test_observations_outside_of_their_space_are_an_error(observation):
    env = WorldModelRewardWrapper(Odd(observation))
    env.reset()
    with pytest.raises(InvalidObservationError, match=r"Expected an observation in Box\(-1.0, 1.0, \(2,\).*, actual"):
        env.step(0)


def test_a_description_must_be_text():
    env = WorldModelRewardWrapper(gym.make("CartPole-v1"), "hashing", describe=lambda observation: observation)
    with pytest.raises(InvalidObservationError, match=r"Expected text from `describe`, actual: .*ndarray"):
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"describe": "no.such.module:f"}, r"Expected a function for `describe`, actual: 'no\.such\.module:f'"),
        ({"describe": "math:no_such"}, "Expected a function for `describe`, actual: 'math:no_such'"),
        ({"describe": "math"}, "Expected a function or 'module:function' for `describe`"),
        ({"describe_action": 3}, "Expected a function or 'module:function' for `describe_action`"),
        ({"scale": 0}, "Expected a positive `scale`"),
        ({"scale": [1, 2]}, r"Expected `scale` as one number or of shape \(4,\), actual: \(2,\)"),
        ({"scale": 1.0, "describe": str}, "Expected numeric observations for `scale`, actual: text"),
        ({"measures": {"tool": {"gap": "rouge"}}}, "Expected the cosine gap and the view 'raw' for observations"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    pytest.importorskip("rouge_score")
    with pytest.raises(InvalidConfigError, match=message):
        WorldModelRewardWrapper(gym.make("CartPole-v1"), "hashing", **arguments)


def test_spaces_of_neither_text_nor_numbers_need_a_description():
    class Sequences(Odd):
        observation_space = gym.spaces.Sequence(gym.spaces.Discrete(3))

    with pytest.raises(InvalidConfigError, match=r"Expected a numeric space, actual: Sequence.*Give `describe`"):
        WorldModelRewardWrapper(Sequences(None), "hashing")
    WorldModelRewardWrapper(Sequences(None), "hashing", describe=str)


def test_observations_that_are_written_over_later_are_remembered_as_they_were():
    class Reuses(Odd):
        def step(self, action):
            self.observation[:] = self.observation + 0.5
            return self.observation, 0.0, False, False, {}

        def reset(self, *, seed=None, options=None):
            self.observation = np.zeros(2, np.float32)
            return self.observation, {}

    env = WorldModelRewardWrapper(Reuses(None), predictor="nothing-changes")
    env.reset()
    assert env.step(0)[4]["world_model"]["distance"] > 0.1


def test_a_step_before_the_first_reset_is_an_error():
    env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor="nothing-changes")
    with pytest.raises(ResetNeeded, match=r"Expected reset\(\) before the first step\(\)"):
        env.step("look")


def test_actions_of_the_environment_may_have_the_same_keys():
    class Keys(Odd):
        action_space = gym.spaces.Dict({"action": gym.spaces.Discrete(2), "prediction": gym.spaces.Discrete(2)})

        def step(self, action):
            self.seen = action
            return np.zeros(2, np.float32), 0.0, False, False, {}

    inner = Keys(None)
    env = WorldModelRewardWrapper(inner)
    env.reset()
    assert env.step({"action": 1, "prediction": 0})[4]["world_model"]["source"] == "none"
    assert inner.seen == {"action": 1, "prediction": 0}
    told = env.step({"action": {"action": 1, "prediction": 0}, "prediction": np.zeros(2)})[4]["world_model"]
    assert inner.seen == {"action": 1, "prediction": 0}
    assert (told["source"], told["distance"]) == ("action", 0.0)


def test_a_predictor_that_cannot_learn_is_named():
    class Learner(Predictor):
        def learn(self, histories, actions, next_states):
            raise KeyError("full")

    env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor=Learner(["a"]))
    env.reset(seed=0)
    with pytest.raises(WorldModelError, match=r"Expected Learner.learn to take 1 transitions, actual: KeyError"):
        env.step("look")


def test_a_description_of_an_action_must_be_text():
    env = WorldModelRewardWrapper(
        gym.make("CartPole-v1"), "hashing", describe=str, describe_action=lambda action: action
    )
    env.reset(seed=0)
    with pytest.raises(InvalidConfigError, match=r"Expected text from `describe_action`, actual: 1 \(int\)"):
        env.step(1)


def test_after_an_encoder_has_failed_the_episode_goes_on():
    fails = [False]

    def encode(texts):
        if fails[0]:
            raise OSError("gone")
        return np.array([[len(text), 1.0] for text in texts])

    env = WorldModelRewardWrapper(ToyHouseEnv(), encode, predictor="nothing-changes")
    env.reset(seed=0)
    fails[0] = True
    with pytest.raises(EncoderError, match="OSError: gone"):
        env.step("look")
    fails[0] = False
    assert env.step("look")[4]["world_model"]["distance"] == 0


@pytest.mark.parametrize(
    ("encoder", "error"),
    [("no-such-org/none", EncoderNotFoundError), ("", InvalidConfigError), (3, InvalidConfigError)],
)
def test_a_wrong_encoder_is_refused_where_it_is_not_needed_too(encoder, error):
    with pytest.raises(error):
        WorldModelRewardWrapper(gym.make("CartPole-v1"), encoder)
    with pytest.raises(error):
        WorldModelRewardVectorWrapper(gym.make_vec("CartPole-v1", num_envs=2), encoder)
    WorldModelRewardWrapper(gym.make("CartPole-v1"), "hashing")


def test_an_action_may_be_named_where_the_environment_has_none_of_that_name():
    env = WorldModelRewardWrapper(gym.make("CartPole-v1"))
    observation, _ = env.reset(seed=0)
    _, _, _, _, info = env.step({"action": 1})
    assert info["world_model"]["source"] == "none"
    with pytest.raises(InvalidConfigError, match="actual: only a prediction"):
        env.step({"prediction": observation})


def test_a_vectors_own_actions_may_have_these_names():
    class Named(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.Dict({"action": gym.spaces.Discrete(2), "prediction": gym.spaces.Discrete(2)})

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.full(2, action["action"] / 2, np.float32), 0.0, False, False, {}

    envs = WorldModelRewardVectorWrapper(gym.vector.SyncVectorEnv([Named, Named]))
    envs.reset(seed=0)
    own = {"action": np.array([1, 0]), "prediction": np.array([0, 1])}
    observations = envs.step(own)[0]
    assert observations[:, 0].tolist() == [0.5, 0.0]
