from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rwml_gym.encoders.cached import Embedded
from rwml_gym.errors import DependencyNotInstalled, InvalidConfigError
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Turn
from rwml_gym.world_models.base import OnlineWorldModel
from rwml_gym.world_models.embedding_mlp import EmbeddingWorldModel

torch = pytest.importorskip("torch")

ROOMS = ["kitchen", "bedroom", "bathroom", "garage"]


def turn(observation):
    return [Turn("", observation)]


def walk(model, steps, seed=0):
    """Teaches what going and looking leads to; the distances of its predictions on the way."""
    rng = np.random.default_rng(seed)
    gap, room, distances = GapReward("hashing"), "kitchen", []
    for _ in range(steps):
        goal = str(rng.choice(ROOMS))
        state, action, outcome = f"You are in the {room}.", f"go to {goal}", f"You are in the {goal}."
        prediction = model.predict([turn(state)], [action])
        distances.append(gap(prediction, [outcome]).distances[0])
        model.learn([turn(state)], [action], [outcome])
        room = goal
    return np.array(distances)


def test_it_starts_as_nothing_changes():
    model = EmbeddingWorldModel("hashing")
    assert isinstance(model, OnlineWorldModel)
    assert model.predict([turn("a room")], ["look"]) == [None]
    model.learn([turn("a room")], ["look"], ["another"])
    (prediction,) = model.predict([turn("a room")], ["look"])
    assert isinstance(prediction, Embedded)
    assert GapReward("hashing")([prediction], ["a room"]).distances[0] == pytest.approx(0, abs=1e-5)


@pytest.mark.long
def test_it_learns_what_actions_do():
    distances = walk(EmbeddingWorldModel("hashing", hidden=64, learning_rate=3e-3, train_every=1), 300)
    assert distances[-50:].mean() < 0.1 * distances[1:30].mean()


def test_the_same_seed_learns_the_same_and_leaves_torch_alone():
    state = torch.random.get_rng_state()
    one, other = (walk(EmbeddingWorldModel("hashing", hidden=16, seed=seed), 80) for seed in (3, 3))
    np.testing.assert_array_equal(one, other)
    assert (torch.random.get_rng_state() == state).all()
    assert not np.array_equal(walk(EmbeddingWorldModel("hashing", hidden=16, seed=4), 80), one)


def test_batches_learn_as_single_transitions_do():
    single, batched = (EmbeddingWorldModel("hashing", hidden=16, batch_size=8) for _ in range(2))
    states = [f"room {n}" for n in range(32)]
    for state in states:
        single.learn([turn(state)], ["look"], [state + "!"])
    batched.learn([turn(state) for state in states], ["look"] * 32, [state + "!" for state in states])
    assert single.loss == batched.loss
    assert single.loss < 1


def test_it_waits_for_a_batch_and_then_trains_after_every_few():
    model, losses = EmbeddingWorldModel("hashing", hidden=16, batch_size=8, train_every=3), []
    for number in range(16):
        model.learn([turn(f"room {number}")], ["look"], [f"hall {number}"])
        losses.append(model.loss)
    assert np.isnan(losses[:8]).all()
    assert [number + 1 for number in range(8, 16) if losses[number] != losses[number - 1]] == [9, 12, 15]


def test_torch_is_imported_only_when_it_is_used():
    code = (
        "import sys; from rwml_gym.world_models.embedding_mlp import EmbeddingWorldModel as E; E('hashing');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyNotInstalled, match=r'pip install -e ".*\[embed\]"'):
        EmbeddingWorldModel("hashing")


@pytest.mark.parametrize("arguments", [{"hidden": 0}, {"learning_rate": -1}, {"capacity": 10}, {"train_every": 0}])
def test_sizes_that_do_not_work_are_refused(arguments):
    with pytest.raises(InvalidConfigError, match="Expected positive `hidden`"):
        EmbeddingWorldModel("hashing", **arguments)
