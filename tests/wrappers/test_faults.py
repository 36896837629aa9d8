"""What goes wrong around the reward wrappers: nothing is lost, nothing is silently wrong, and errors come in time."""

from __future__ import annotations

import copy
import gc
import pickle
import tracemalloc

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rwml_gym.encoders.cached import CachedEncoder
from rwml_gym.encoders.local import HashingEncoder
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import EncoderError, InvalidConfigError, InvalidObservationError, WorldModelError
from rwml_gym.world_models.base import MostFrequentOutcome, state_key
from rwml_gym.world_models.retrieval import RetrievalWorldModel
from rwml_gym.wrappers import (
    AdmissibleActions,
    RecordTransitions,
    WorldModelRewardVectorWrapper,
    WorldModelRewardWrapper,
)

WORDS = spaces.Text(50, charset="abcdefghijklmnopqrstuvwxyz0123456789 ")
BOX = spaces.Box(-1, 1, (3,), np.float32)


class Counter(gym.Env):
    """Says which episode and step it is; two steps an episode."""

    observation_space = action_space = WORDS

    def __init__(self):
        self.episode = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_number, self.episode = 0, self.episode + 1
        return f"ep{self.episode} t0", {}

    def step(self, action):
        self.step_number += 1
        return f"ep{self.episode} t{self.step_number}", 0.0, self.step_number >= 2, False, {}


class Numbers(gym.Env):
    """Gives what it is told to."""

    def __init__(self, space=BOX, actions=None, give=None):
        self.observation_space, self.action_space = space, actions or spaces.Discrete(3)
        self.give = give or (lambda step: space.sample())
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.give(0), {}

    def step(self, action):
        self.steps += 1
        return self.give(self.steps), 1.0, False, False, {}


class Failing:
    """An encoder that fails when it is told to."""

    name = "failing"
    fails = False

    def encode(self, texts):
        if self.fails:
            raise RuntimeError("gone")
        return HashingEncoder(64).encode(texts)


class Remembers:
    """A predictor that shows what it was shown."""

    def predict(self, histories, actions):
        self.shown = [[turn.observation for turn in history] for history in histories]
        return ["guess"] * len(actions)


def fail_once(envs, encoder, steps):
    """Plays steps of which the last one fails, then one more."""
    envs.reset(seed=0)
    for step in range(steps):
        encoder.fails = step == steps - 1
        if encoder.fails:
            with pytest.raises(EncoderError, match="gone"):
                envs.step(["x"])
        else:
            envs.step(["x"])
    encoder.fails = False
    envs.step(["x"])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_after_a_failed_step_both_wrappers_remember_it(mode):
    encoder, predictors = Failing(), (Remembers(), Remembers())
    scalar = SyncVectorEnv(
        [lambda: WorldModelRewardWrapper(Counter(), encoder, predictor=predictors[0])], autoreset_mode=mode
    )
    inner = SyncVectorEnv([Counter], autoreset_mode=mode)
    for envs in (scalar, WorldModelRewardVectorWrapper(inner, encoder, predictor=predictors[1])):
        fail_once(envs, encoder, steps=1)
    assert predictors[0].shown == predictors[1].shown == [["ep1 t0", "ep1 t1"]]


def test_after_a_failed_last_step_the_next_episode_starts_anew():
    encoder, predictor = Failing(), Remembers()
    inner = SyncVectorEnv([Counter], autoreset_mode=AutoresetMode.SAME_STEP)
    fail_once(WorldModelRewardVectorWrapper(inner, encoder, predictor=predictor), encoder, steps=2)
    assert predictor.shown == [["ep2 t0"]]


def test_after_a_last_observation_that_cannot_be_read_the_next_episode_starts_anew():
    def describe(observation):
        if observation == "ep1 t2":
            raise ValueError("unreadable")
        return observation

    predictor = Remembers()
    inner = SyncVectorEnv([Counter], autoreset_mode=AutoresetMode.SAME_STEP)
    envs = WorldModelRewardVectorWrapper(inner, "hashing", predictor=predictor, describe=describe)
    envs.reset(seed=0)
    envs.step(["x"])
    with pytest.raises(ValueError, match="unreadable"):
        envs.step(["x"])
    envs.step(["x"])
    assert predictor.shown == [["ep2 t0"]]


def test_one_slot_outside_of_its_space_leaves_the_others_right():
    def give(bad):
        return lambda step: np.full(3, 7.0 if bad and step == 2 else step / 10, np.float32)

    predictor = Remembers()
    predictor.predict = lambda histories, actions: (
        setattr(predictor, "seen", [[float(turn.observation[0]) for turn in h] for h in histories])
        or [None] * len(actions)
    )
    envs = SyncVectorEnv([lambda: Numbers(give=give(False)), lambda: Numbers(give=give(True))])
    envs = WorldModelRewardVectorWrapper(envs, predictor=predictor)
    envs.reset(seed=0)
    envs.step(np.array([0, 0]))
    with pytest.raises(InvalidObservationError, match="Expected an observation in Box"):
        envs.step(np.array([0, 0]))
    envs.step(np.array([0, 0]))
    np.testing.assert_allclose(predictor.seen[0], [0, 0.1, 0.2])


@pytest.mark.parametrize("vector", [False, True])
def test_weight_and_mode_may_be_changed_on_the_way(vector):
    if vector:
        env = WorldModelRewardVectorWrapper(SyncVectorEnv([ToyHouseEnv]), "hashing", predictor="nothing-changes")
    else:
        env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor="nothing-changes")
    action = ["look"] if vector else "look"
    env.reset(seed=0)
    assert float(np.sum(env.step(action)[1])) == 1.0
    env.weight = 0.25
    assert float(np.sum(env.step(action)[1])) == 0.25
    env.mode = "report"
    assert float(np.sum(env.step(action)[1])) == 0.0
    for weight in ("much", np.array([1.0, 2.0]), None, float("nan")):
        with pytest.raises(InvalidConfigError, match="Expected a finite `weight`"):
            env.weight = weight
    with pytest.raises(InvalidConfigError, match="Expected `mode`"):
        env.mode = "multiply"
    with pytest.raises(AttributeError):
        env.predictor = None


def test_the_weight_may_be_annealed_through_a_vector_environment():
    envs = SyncVectorEnv([lambda: WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor="nothing-changes")] * 2)
    envs.set_attr("weight", [0.5, 0.0])
    envs.reset(seed=0)
    assert envs.step(["look", "look"])[1].tolist() == [0.5, 0.0]


def test_only_a_parameter_called_tasks_is_given_the_tasks():
    class Third:
        def predict(self, histories, actions, temperature=1.0):
            self.temperature = temperature
            return [None] * len(actions)

    class Keyword:
        def predict(self, histories, actions, *, tasks):
            self.tasks = tasks
            return [None] * len(actions)

    for predictor in (Third(), Keyword()):
        env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor=predictor)
        _, info = env.reset(seed=0)
        env.step("look")
        assert getattr(predictor, "tasks", [info["task"]]) == [info["task"]]
        assert getattr(predictor, "temperature", 1.0) == 1.0


def test_a_task_or_role_that_is_none_is_empty():
    class Silent(ToyHouseEnv):
        def _info(self, invalid):
            return {**super()._info(invalid), "task": None, "message_role": None}

    class Asks:
        def predict(self, histories, actions, tasks):
            self.tasks = tasks
            return [None] * len(actions)

    predictors = Asks(), Asks()
    recorder = RecordTransitions(WorldModelRewardWrapper(Silent(), "hashing", predictor=predictors[0]))
    envs = WorldModelRewardVectorWrapper(SyncVectorEnv([Silent]), "hashing", predictor=predictors[1])
    for env, action in ((recorder, "look"), (envs, ["look"])):
        env.reset(seed=0)
        env.step(action)
    assert [predictor.tasks for predictor in predictors] == [[""], [""]]
    assert (recorder.transitions[0].task, recorder.transitions[0].role) == ("", "")


@pytest.mark.parametrize("vector", [False, True])
def test_a_name_overwrites_nothing_of_the_environment(vector):
    if vector:
        env = WorldModelRewardVectorWrapper(SyncVectorEnv([ToyHouseEnv]), "hashing", name="task")
    else:
        env = WorldModelRewardWrapper(ToyHouseEnv(), "hashing", name="task")
    with pytest.raises(InvalidConfigError, match=r"Expected a `name` that is no key of the environment's info.*'task'"):
        env.reset(seed=0)


def test_embeddings_cannot_be_compared_by_words():
    pytest.importorskip("torch")
    with pytest.raises(InvalidConfigError, match="Expected the cosine gap of raw texts for the predictor 'learned'"):
        WorldModelRewardWrapper(ToyHouseEnv(), "hashing", predictor="learned", measures={"tool": {"gap": "exact"}})


@pytest.mark.parametrize(
    ("one", "other"),
    [({"x": 1, "y": 2}, {"y": 2, "x": 1}), (np.int32(1), 1), (np.float32(0.5), 0.5), ((1, 2), (np.int8(1), 2))],
)
def test_equal_actions_are_counted_together(one, other):
    assert state_key(one) == state_key(other)
    assert state_key(one) != state_key("1")


@pytest.mark.parametrize("observation", [np.array([0, 300]), [0, 300], np.array([0.5, 1]), np.array([-1, 0])])
def test_numbers_that_do_not_fit_an_integer_space_are_outside(observation):
    env = WorldModelRewardWrapper(Numbers(spaces.Box(0, 255, (2,), np.uint8), give=lambda step: observation))
    with pytest.raises(InvalidObservationError, match="Expected an observation in Box"):
        env.reset()


def test_wider_floats_are_inside_also_within_dictionaries():
    space = spaces.Dict(a=BOX, b=spaces.Tuple([BOX, spaces.Discrete(2)]))
    give = lambda step: {"a": np.zeros(3), "b": (np.ones(3), 1)}  # noqa: E731
    env = WorldModelRewardWrapper(Numbers(space, give=give), predictor="nothing-changes")
    env.reset()
    assert env.step(0)[4]["world_model"]["distance"] == 0


@pytest.mark.parametrize("predictor", ["nothing-changes", "most-frequent", "retrieval", "learned"])
def test_environments_of_numbers_can_be_pickled_and_copied(predictor):
    pytest.importorskip("torch")
    env = WorldModelRewardWrapper(gym.make("CartPole-v1"), predictor=predictor, scale=0.1)
    env.reset(seed=0)
    env.step(0)
    again, copied = pickle.loads(pickle.dumps(env)), copy.deepcopy(env)
    expected = env.step(1)
    for other in (again, copied):
        step = other.step(1)
        np.testing.assert_array_equal(step[0], expected[0])
        assert step[1] == expected[1]
        assert step[4] == expected[4]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_learned_model_learns_whatever_torch_is_set_to(precision):
    torch = pytest.importorskip("torch")
    env = WorldModelRewardWrapper(gym.make("CartPole-v1"), predictor="learned")
    env.reset(seed=0)
    torch.set_default_dtype(getattr(torch, precision))
    try:
        with torch.inference_mode():
            for step in range(200):
                *_, terminated, _, _ = env.step(step % 2)
                if terminated:
                    env.reset()
    finally:
        torch.set_default_dtype(torch.float32)
    assert env.predictor.loss < 0.1


def test_predictions_that_do_not_fit_are_found_before_the_step():
    inner = Numbers()
    env = WorldModelRewardWrapper(inner)
    env.reset()
    for prediction in (np.zeros(2), "left", np.full(3, np.nan)):
        with pytest.raises(InvalidConfigError, match="Expected a prediction in Box"):
            env.step({"action": 1, "prediction": prediction})
    predictor = Remembers()
    env = WorldModelRewardWrapper(inner, predictor=predictor)
    env.reset()
    with pytest.raises(WorldModelError, match=r"Expected predictions in Box.*from Remembers.predict"):
        env.step(1)
    assert inner.steps == 0


def test_actions_that_cannot_be_encoded_are_found_before_the_step():
    pytest.importorskip("torch")
    inner = Numbers()
    env = WorldModelRewardWrapper(inner, predictor="learned")
    env.reset()
    with pytest.raises(InvalidObservationError, match=r"Expected an action in Discrete.*give `describe_action`"):
        env.step(np.array([1.5]))
    assert inner.steps == 0
    with pytest.raises(InvalidConfigError, match="Give `describe_action`, which turns an action into text"):
        WorldModelRewardWrapper(Numbers(actions=spaces.Graph(BOX, None)), predictor="retrieval")


def test_the_generators_of_the_spaces_stay_as_they_are():
    class Words(spaces.Space):
        def sample(self, mask=None, probability=None):
            return str(self.np_random.integers(10**9))

        def contains(self, x):
            return isinstance(x, str)

    space = spaces.Dict(says=WORDS, also=Words(), where=spaces.Discrete(9))
    env = Numbers(space)
    space.seed(0)
    expected = space.sample()
    space.seed(0)
    WorldModelRewardWrapper(env, "hashing", predictor="nothing-changes")
    assert space.sample() == expected


def test_texts_within_dictionaries_are_encoded_in_one_call():
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return HashingEncoder(64).encode(texts)

    space = spaces.Dict(says=WORDS, where=spaces.Discrete(9))
    give = lambda slot: lambda step: {"says": f"slot {slot} step {step}", "where": step}  # noqa: E731
    envs = SyncVectorEnv([lambda s=slot: Numbers(space, give=give(s)) for slot in range(3)])
    envs = WorldModelRewardVectorWrapper(envs, encode, predictor="nothing-changes")
    envs.reset(seed=0)
    for _ in range(3):
        envs.step(np.zeros(3, int))
    assert max(map(len, calls)) == 3
    assert len(calls) <= 2 * 3


@pytest.mark.parametrize("actions", [np.array([1]), np.array([0, 1, 0]), [0], 3])
def test_too_few_or_too_many_actions_are_refused(actions):
    envs = WorldModelRewardVectorWrapper(gym.make_vec("CartPole-v1", num_envs=2), predictor="nothing-changes")
    envs.reset(seed=0)
    with pytest.raises(InvalidConfigError, match=r"Expected (2 actions|actions in MultiDiscrete)"):
        envs.step(actions)


def test_a_mapping_may_hold_actions_alone():
    envs = WorldModelRewardVectorWrapper(gym.make_vec("CartPole-v1", num_envs=2), predictor="nothing-changes")
    with pytest.raises(ResetNeeded):
        envs.step(np.array([0, 1]))
    envs.reset(seed=0)
    assert envs.step({"action": np.array([0, 1])})[4]["world_model"]["source"].tolist() == ["predictor"] * 2


def test_infos_as_lists_belong_outside():
    envs = gym.wrappers.vector.DictInfoToList(SyncVectorEnv([ToyHouseEnv]))
    envs = WorldModelRewardVectorWrapper(envs, "hashing")
    with pytest.raises(InvalidConfigError, match="Put `DictInfoToList` outside"):
        envs.reset(seed=0)


def test_a_unit_without_numbers_is_refused():
    with pytest.raises(InvalidConfigError, match=r"Expected a space with a Box for `scale`, actual: Discrete"):
        WorldModelRewardWrapper(gym.make("FrozenLake-v1"), scale=2.0)


class Lists(ToyHouseEnv):
    """Lists something else."""

    def __init__(self, listed):
        super().__init__()
        self.listed = listed

    def _info(self, invalid):
        return {**super()._info(invalid), "admissible_actions": self.listed}


@pytest.mark.parametrize("listed", ["look", [1, 2], [b"look"]])
def test_lists_of_anything_but_text_are_refused(listed):
    env = AdmissibleActions(Lists(listed), "hashing")
    with pytest.raises(InvalidConfigError, match="Expected a list of texts"):
        env.reset(seed=0)


def test_arrays_of_text_are_lists_and_halves_are_no_numbers():
    env = AdmissibleActions(Lists(np.array(["look", "fly"])), "hashing")
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    assert env.step(np.int64(1))[0]["observation"] == "Nothing happens."
    with pytest.raises(InvalidConfigError, match=r"Expected the number of an action, actual: 1.7"):
        env.step(1.7)


class EverNew(gym.Env):
    """Never says the same twice."""

    observation_space = action_space = WORDS

    def __init__(self):
        self.said = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return "room 0", {}

    def step(self, action):
        self.said += 1
        return f"room {self.said} of many", 0.0, False, False, {}


@pytest.mark.long
@pytest.mark.parametrize("name", ["retrieval", "most-frequent"])
def test_memory_stays_bounded_where_nothing_is_said_twice(name):
    encoder = CachedEncoder(HashingEncoder(32), cache_bytes=2**16)
    if name == "retrieval":
        predictor = RetrievalWorldModel(encoder=encoder, capacity=100)
    else:
        predictor = MostFrequentOutcome(capacity=100)
    env = WorldModelRewardWrapper(EverNew(), encoder, predictor=predictor)
    env.reset(seed=0)
    sizes = []
    tracemalloc.start()
    for step in range(3000):
        env.step(f"go {step}")
        if step in (1500, 2999):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 50_000  # 1,500 texts of 64 bytes and vectors of 128 would be 300,000
