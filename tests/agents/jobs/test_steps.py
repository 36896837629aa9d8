"""What one training step takes and samples follows from the run's seed and the step's number, and from nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from rwml_gym.agents.config.base import EnvConfig
from rwml_gym.agents.config.policy import EpisodeConfig, ImitationConfig, PolicyConfig, PolicyStageConfig
from rwml_gym.agents.config.world_model import RWMLConfig, StageConfig
from rwml_gym.agents.jobs import imitation, policy, world_model
from rwml_gym.agents.language.prompts import Prompts
from rwml_gym.agents.language.world_model import LanguageWorldModel, score_attempts
from rwml_gym.agents.learning.options import SFTConfig
from rwml_gym.agents.learning.sft import Demonstration
from rwml_gym.agents.players.language_model import LanguageModelAgent
from rwml_gym.agents.runs.worlds import Source
from rwml_gym.agents.seeding import in_balanced_epochs, in_epochs, seed_of
from rwml_gym.reward.gap import GapReward
from rwml_gym.transitions import Transition, Turn
from tests.conftest import policy_weights

ALWAYS, NEVER = 2.0, 1e-9  # thresholds: every prediction that is not empty is right, or none is
PINNED = (7_896_617_691_693_857_887, 8_590_067_387_066_606_104)
TRIPLETS = [Transition((Turn("", f"Room {i}."),), "look", f"You see a mug {i}.", game=str(i)) for i in range(9)]


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def _still(model) -> torch.optim.Optimizer:
    """An optimizer that leaves the weights, so that steps differ in what they sample only."""
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)


# World model


class Seen(LanguageWorldModel):
    """The real one, which remembers what it was asked for and what it wrote."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: list[list[Transition]] = []
        self.wrote: list[list[list[list[int]]]] = []

    def attempts(self, transitions, n, *args, **kwargs):
        found = super().attempts(transitions, n, *args, **kwargs)
        self.asked.append(list(transitions))
        self.wrote.append([[c.tokens for c in row] for row in found])
        self.found = found
        return found


@pytest.fixture
def predictor(adapted) -> Seen:
    return Seen(adapted[0], adapted[1], Prompts(adapted[1], max_tokens=120), 6)


def _grpo(predictor: Seen, accelerator, number: int, data=TRIPLETS, threshold=NEVER, seed=0, **stage: Any) -> dict:
    predictor.asked, predictor.wrote = [], []
    settings = RWMLConfig(stage=StageConfig(**{"groups": 3, "group_size": 2, **stage}), seed=seed)
    gap = GapReward("hashing", threshold=threshold)
    return world_model.grpo_step(predictor, data, gap, settings, accelerator, number, optimizer=_still(predictor.model))


def test_steps_take_other_triplets_and_the_same_number_takes_the_same(predictor, accelerator):
    taken, wrote = {}, {}
    for key, (number, seed) in enumerate([(0, 0), (1, 0), (2, 0), (0, 1), (0, 0)]):
        _grpo(predictor, accelerator, number, seed=seed)
        (asked,) = predictor.asked
        assert len({t.game for t in asked}) == 3  # no triplet twice in a round
        taken[key], wrote[key] = [t.game for t in asked], predictor.wrote
    assert taken[0] == taken[4]
    assert wrote[0] == wrote[4]
    assert len({tuple(taken[key]) for key in range(4)}) == 4


def test_all_triplets_have_their_turn(predictor, accelerator):
    counts: Counter[str] = Counter()
    for number in range(12):
        _grpo(predictor, accelerator, number)
        counts.update(t.game for t in predictor.asked[0])
    assert len(counts) == len(TRIPLETS)
    assert max(counts.values()) <= 8


def test_epochs_show_every_triplet_equally_often(predictor, accelerator):
    counts: Counter[str] = Counter()
    orders = []
    for number in range(6):  # two epochs of nine triplets, three at a step
        _grpo(predictor, accelerator, number, epochs=2)
        (asked,) = predictor.asked
        orders += [t.game for t in asked]
        counts.update(t.game for t in asked)
    assert StageConfig(epochs=2, groups=3).updates(len(TRIPLETS)) == 6
    assert set(counts.values()) == {2}
    assert set(orders[:9]) == set(orders[9:])
    assert orders[:9] != orders[9:]


def test_kept_prompts_change_a_step_by_rounding_only(predictor, accelerator):
    data, settings = TRIPLETS[:3], RWMLConfig(stage=StageConfig(groups=3, group_size=4, rounds=2))
    gap = GapReward("hashing", threshold=0.9, shape="continuous")
    rows = [
        world_model.grpo_step(
            predictor, data, gap, settings, accelerator, 0, _still(predictor.model), keep_prompts=keep
        )
        for keep in (False, True)
    ]
    assert rows[0]["signal_groups"] > 0
    assert rows[1] == pytest.approx(rows[0], rel=1e-4, abs=1e-5)


def test_steps_and_rounds_sample_other_attempts_at_the_same_triplet(predictor, accelerator):
    same = [TRIPLETS[0]] * 2
    samples = []
    for number, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
        _grpo(predictor, accelerator, number, same, seed=seed, groups=1, rounds=2)
        assert predictor.asked == [[TRIPLETS[0]]] * 2
        samples.append(predictor.wrote)
    assert samples[0] == samples[3]
    rounds = [str(found) for step in samples[:3] for found in step]
    assert len(set(rounds)) == 6
    for found in (found for step in samples for found in step):
        assert found[0][0] != found[0][1]  # nor are the attempts of a group copies


def test_rounds_take_further_triplets_while_there_are_any(predictor, accelerator):
    row = _grpo(predictor, accelerator, 0, rounds=9)
    assert [len(asked) for asked in predictor.asked] == [3, 3, 3]
    assert {t.game for asked in predictor.asked for t in asked} == {t.game for t in TRIPLETS}
    assert (row["groups"], row["signal_groups"], row["signal_share"]) == (9, 0, 0.0)


def test_a_round_ends_the_sampling_once_enough_groups_differ(predictor, accelerator):
    """A threshold between the distances of these attempts, so that some are right and some are not."""
    _grpo(predictor, accelerator, 0, groups=9, group_size=4)
    distances = score_attempts(
        predictor.prompts, predictor.asked[0], predictor.found, GapReward("hashing", threshold=NEVER)
    ).distances
    middle = float(np.median(distances))
    row = _grpo(predictor, accelerator, 0, threshold=middle, groups=9, group_size=4)
    right = distances < middle
    differ = right.any(1) & ~right.all(1)
    assert 0 < differ.sum() < 9
    assert row["signal_groups"] == differ.sum()
    assert row["signal_share"] == pytest.approx(differ.mean())
    assert row["reward"] == pytest.approx(right.mean())
    assert row["distance"] == pytest.approx(distances.mean())
    assert row["tokens"] == pytest.approx(np.mean([len(c) for row in predictor.wrote[0] for c in row]))
    assert row["grad_norm"] > 0
    for wanted, rounds in ((1, 9), (2, 9)):
        found = _grpo(predictor, accelerator, 0, threshold=middle, groups=wanted, group_size=4, rounds=rounds)
        assert found["groups"] == wanted * len(predictor.asked)
        assert found["signal_groups"] >= wanted or found["groups"] >= 9 - 9 % wanted
        assert found["groups"] < 9


def test_an_update_makes_what_was_right_likelier(predictor, accelerator):
    """The sign of the whole step: rewards, advantages and loss together."""
    triplet = [TRIPLETS[0]]
    _grpo(predictor, accelerator, 0, triplet, groups=1, group_size=8)
    (attempts,) = predictor.found
    gap = GapReward("hashing", threshold=NEVER)
    distances = score_attempts(predictor.prompts, triplet, [attempts], gap).distances[0]
    middle = float(np.median(distances))
    settings = RWMLConfig(stage=StageConfig(groups=1, group_size=8))
    optimizer = torch.optim.SGD([p for p in predictor.model.parameters() if p.requires_grad], lr=0.05)
    prompt = predictor.prompts.predict(triplet[0].history, triplet[0].action, triplet[0].task)

    def difference() -> float:
        """Mean log-probability of a token of the right attempts less that of the wrong ones."""
        means: dict[bool, list[float]] = {True: [], False: []}
        for completion, distance in zip(attempts, distances, strict=True):
            with torch.no_grad():
                ids = torch.tensor([[*prompt, *completion.tokens]])
                logits = predictor.model(input_ids=ids).logits[0].log_softmax(-1)
            at = len(prompt) - 1
            means[bool(distance < middle)] += [float(logits[at + i, t]) for i, t in enumerate(completion.tokens)]
        return float(np.mean(means[True]) - np.mean(means[False]))

    before = difference()
    world_model.grpo_step(
        predictor, triplet, GapReward("hashing", threshold=middle), settings, accelerator, 0, optimizer
    )
    assert difference() > before


def test_next_state_steps_go_through_the_data_epoch_by_epoch(predictor, accelerator, monkeypatch):
    taken: list[int] = []
    ask = Prompts.ask

    def seen(self, transition):
        taken.append(TRIPLETS.index(transition))
        return ask(self, transition)

    monkeypatch.setattr(Prompts, "ask", seen)
    optimizer = _still(predictor.model)

    def step(number: int, seed: int = 5) -> dict[str, Any]:
        return world_model.sft_step(predictor, TRIPLETS, SFTConfig(batch_size=3), seed, accelerator, number, optimizer)

    rows = [step(number) for number in range(6)]
    assert sorted(taken[:9]) == sorted(taken[9:]) == list(range(9))
    assert taken[:9] != taken[9:]
    assert step(1) == rows[1]
    assert taken[18:] == taken[3:6]
    step(0, seed=6)
    assert taken[21:] != taken[:3]


# Policy


GAMES = 6


@pytest.fixture
def player(adapted) -> LanguageModelAgent:
    return LanguageModelAgent(adapted[0], adapted[1], Prompts(adapted[1], max_tokens=400, history=1), action_tokens=4)


@pytest.fixture
def played(monkeypatch) -> list[list]:
    """Episodes of each round."""
    rounds: list[list] = []
    roll_out = policy.roll_out

    def seen(*args, **kwargs):
        rounds.append(roll_out(*args, **kwargs))
        return rounds[-1]

    monkeypatch.setattr(policy, "roll_out", seen)
    return rounds


def _policy(player, played, accelerator, number: int, names=None, seed=0, **stage: Any) -> dict[str, Any]:
    """A policy step in toy houses; its rounds are in `played` afterwards."""
    played.clear()
    source = Source(EnvConfig("toy"))
    settings = PolicyConfig(
        env="toy",
        episode=EpisodeConfig(max_steps=2, action_tokens=4, slots=4),
        stage=PolicyStageConfig(**{"groups": 2, "group_size": 2, **stage}),
        history=1,
        seed=seed,
    )
    games = [f"house-{i}" for i in range(GAMES)] if names is None else names
    return policy.grpo_step(
        player, source.make(2), games, settings, accelerator, number, optimizer=_still(player.sessions.model)
    )


def _games(played: list[list]) -> list[str]:
    return [episode.game for episodes in played for episode in episodes[::2]]


def _wrote(episodes: list) -> list[list[list[int]]]:
    return [[turn.completion.tokens for turn in episode.written] for episode in episodes]


def test_policy_steps_go_through_the_games_epoch_by_epoch(player, played, accelerator):
    taken = []
    for number in range(6):
        _policy(player, played, accelerator, number)
        assert [len(episodes) for episodes in played] == [4]
        assert all(a.game == b.game for a, b in zip(played[0][::2], played[0][1::2], strict=True))  # a group's
        taken += _games(played)
    assert sorted(taken[:6]) == sorted(taken[6:]) == [f"house-{i}" for i in range(GAMES)]
    assert taken[:6] != taken[6:]
    _policy(player, played, accelerator, 0, seed=1)
    other = _games(played)
    _policy(player, played, accelerator, 1, seed=1)
    assert other + _games(played) != taken[:4]


def test_rounds_of_a_policy_step_play_further_games_and_the_next_step_goes_on_after_all_of_them(
    player, played, accelerator
):
    row = _policy(player, played, accelerator, 0, groups=1, rounds=3)
    first = _games(played)
    assert (row["groups"], row["signal_groups"], row["episodes"]) == (3, 0, 6)
    _policy(player, played, accelerator, 1, groups=1, rounds=3)
    assert sorted(first + _games(played)) == [f"house-{i}" for i in range(GAMES)]


def test_episodes_of_one_game_differ_by_step_round_place_and_member(player, played, accelerator):
    one = ["house-3"]
    wrote = []
    for number, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
        _policy(player, played, accelerator, number, one, seed=seed, rounds=2)
        assert [len(episodes) for episodes in played] == [4, 4]
        wrote.append([_wrote(episodes) for episodes in played])
    assert wrote[0] == wrote[3]
    episodes = [str(episode) for step in wrote[:3] for found in step for episode in found]
    assert len(set(episodes)) == len(episodes) == 24


def test_a_policy_step_counts_what_was_played(player, played, accelerator):
    row = _policy(player, played, accelerator, 0)
    episodes = played[0]
    steps = sum(e.steps for e in episodes)
    assert row["episodes"] == len(episodes) == 4
    assert row["steps"] == pytest.approx(steps / 4)
    assert row["success"] == sum(e.won for e in episodes) / 4
    assert row["reward"] == pytest.approx(sum(e.reward for e in episodes) / 4)
    assert row["invalid"] == pytest.approx(sum(sum(e.invalid) for e in episodes) / steps)
    tokens = [len(turn) for episode in _wrote(episodes) for turn in episode]
    assert row["tokens"] == pytest.approx(sum(tokens) / len(tokens))
    assert row["failed"] == 0


def test_imitation_steps_go_through_the_demonstrations_epoch_by_epoch(adapted, accelerator):
    """Demonstrations of distinct lengths: how many tokens a batch has says which it was."""
    model, _ = adapted
    data = [Demonstration([40 + i], [50 + i] * (i + 1), [1] * (i + 1)) for i in range(4)]
    optimizer = _still(model)

    def loss(number: int, batch: int = 1, seed: int = 2) -> float:
        row = imitation.imitation_step(
            model, data, ImitationConfig(batch_size=batch), seed, accelerator, number, optimizer
        )
        return round(row["loss"], 5)

    alone = [loss(number) for number in range(8)]
    assert len(set(alone[:4])) == 4
    assert sorted(alone[:4]) == sorted(alone[4:])
    assert loss(3) == alone[3]
    assert [loss(number, seed=3) for number in range(8)] != alone
    whole = loss(0, batch=4)
    assert loss(1, batch=4) == pytest.approx(whole, abs=1e-4)
    before = policy_weights(model)
    imitation.imitation_step(
        model,
        [replace(data[0], mask=[0])],
        ImitationConfig(batch_size=1),
        0,
        accelerator,
        0,
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0),
    )
    assert all(torch.equal(p, before[n]) for n, p in policy_weights(model).items())  # what is masked teaches nothing


# Seeds


def test_seeds_of_different_purposes_differ():
    seeds = [
        seed_of(*parts)
        for parts in ((0,), (1,), (0, "a"), (0, "b"), (0, "a", 2), (0, "a", 1), (0, 0, "a"), (0, "a", 0, 1), (0, "ab"))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)


def test_seeds_stay_what_they_are():
    """A run that is continued with a later release must go on with the same draws."""
    assert seed_of(0) == PINNED[0]
    assert seed_of(3, "sample", 2, 1) == PINNED[1]


def test_every_epoch_is_a_shuffle_of_its_own():
    order = in_epochs(5, range(15), 3)
    epochs = [order[i : i + 5] for i in (0, 5, 10)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert in_epochs(5, [7, 2], 3) == [order[7], order[2]]
    assert in_epochs(5, range(15), 4) != order


def test_in_balanced_epochs_every_kind_comes_as_often_and_none_of_it_twice_before_all_of_it():
    kinds = ["go"] * 6 + ["look"] + ["take"] * 3
    order = in_balanced_epochs(kinds, range(18), 3)
    assert Counter(kinds[i] for i in order) == {"go": 6, "look": 6, "take": 6}
    assert sorted(i for i in order if kinds[i] == "go") == [0, 1, 2, 3, 4, 5]
    assert Counter(i for i in order if kinds[i] == "take") == {7: 2, 8: 2, 9: 2}
    assert [{kinds[i] for i in order[n : n + 3]} for n in (0, 3, 6)] == [set(kinds)] * 3
    assert in_balanced_epochs(kinds, [7, 2], 3) == [order[7], order[2]]
    assert in_balanced_epochs(kinds, range(18), 4) != order
