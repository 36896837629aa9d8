"""An agent that imagines the outcomes of several actions before it plays one of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rwml_gym.agents.players.base import Move
from rwml_gym.agents.players.baselines import choose_by_words
from rwml_gym.agents.players.imagination import Imagination, Outcome, Question
from rwml_gym.agents.seeding import seed_of
from rwml_gym.checks import whole_number
from rwml_gym.envs.base import admissible_actions
from rwml_gym.errors import InvalidConfigError
from rwml_gym.transitions import Turn
from rwml_gym.world_models.progress import NO_CHANGE, Outlook

__all__ = ["ImaginingAgent", "Proposal", "Proposals"]

_EQUAL = 1e-9  # values that differ by less are the same
_TOLD = 5  # candidates in the thought of a move


@dataclass(frozen=True)
class Proposal:
    """An action that somebody proposes.

    Attributes:
        action: The action.
        prompt_tokens: Tokens that a model was shown for it.
        tokens: Tokens that it wrote.
    """

    action: str
    prompt_tokens: int = 0
    tokens: int = 0


class Proposals(Protocol):
    """Proposes actions, several for each turn."""

    def propose(
        self,
        slots: Sequence[int],
        turns: Sequence[Sequence[Turn]],
        infos: Sequence[dict[str, Any]],
        seeds: Sequence[int],
    ) -> list[list[Proposal]]:
        """Return at least one proposal for each of some slots; one action may be proposed several times.

        Args:
            slots: Numbers of the slots.
            turns: The episode so far of each.
            infos: The last info of each.
            seeds: The seed of each episode.
        """
        ...

    def forget(self, slots: Sequence[int]) -> None:
        """Forget the episodes of these slots."""
        ...

    def playing(self) -> AbstractContextManager[Any]:
        """Return a context for a series of turns in which nothing learns."""
        ...


@dataclass
class _Episode:
    """An agent's memory of the episode in a slot."""

    seed: int | None = None
    rng: random.Random = field(default_factory=random.Random)
    turns: list[Turn] = field(default_factory=list)
    known: dict[str, None] = field(default_factory=dict)  # actions that were admissible in it, in their order
    move: Move = field(default_factory=lambda: Move(""))


@dataclass
class _Path:
    """What one candidate leads to."""

    slot: int
    action: str
    votes: int = 1
    turns: list[Turn] = field(default_factory=list)  # imagined ones
    value: float = 0.0
    tokens: int = 0
    open: bool = True  # whether its imagination goes on
    outcome: Outcome | None = None  # the last one


class ImaginingAgent:
    """Chooses the candidate action whose imagined outcome is worth most.

    The candidates of a turn are the admissible actions, or what `proposals` samples. For each, the imagination says
    what would follow, for all candidates of all slots in one batch. `world_models.progress.Outlook` says what that is
    worth for the task, and what it costs to play an action again. The best candidate is played. Among equally good ones
    it is the one that was proposed most often, and then a draw by the episode's seed. Without imagination, it is the
    most frequent proposal.

    With several steps, the imagination goes on from each imagined outcome with the action that has the most words of
    the task, as `TaskWordsAgent` plays: among the actions that are admissible then, where the imagination says so (the
    engine does), or else among all that were admissible in the episode. The best value on the way counts, less
    `1 - discount` for each step. A path ends where the task is solved, or where nothing changes.

    The actions of an episode depend on its seed, not on the other slots. What is imagined is text, and never evaluated.

    Args:
        imagination: Says what actions lead to; without it, `proposals` are counted.
        steps: How many steps are imagined.
        discount: What the value one step later is multiplied by.
        candidates: Maximal number of candidates in a turn, drawn anew in each; all if 0.
        proposals: Proposes the candidates; the admissible actions if absent.
        seed: Seed of the agent, from which follows that of an episode without a seed of its own.

    Raises:
        InvalidConfigError: If there is neither imagination nor proposals, or a number is not allowed.

    Example:
        >>> import gymnasium, rwml_gym
        >>> from rwml_gym.agents.players.imagination import EngineImagination
        >>> def make_env(): return gymnasium.make("rwml_gym/ToyHouse-v0")
        >>> env, agent = make_env(), ImaginingAgent(EngineImagination(make_env), steps=3)
        >>> observation, info = env.reset(options={"game": "house-0"})
        >>> while not info["won"]:
        ...     (action,) = agent.act([observation], [info])
        ...     observation, *_, info = env.step(action)
        ...     print(action)
        take mug
        go to bedroom
        drop mug
    """

    def __init__(
        self,
        imagination: Imagination | None = None,
        steps: int = 1,
        discount: float = 0.9,
        candidates: int = 0,
        proposals: Proposals | None = None,
        seed: int = 0,
    ) -> None:
        if imagination is None and proposals is None:
            raise InvalidConfigError("Expected an imagination, proposals or both, actual: neither. Give one.")
        if not 0 < discount <= 1:
            raise InvalidConfigError(f"Expected a discount above 0 and at most 1, actual: {discount}.")
        self.imagination, self.proposals, self.discount, self.seed = imagination, proposals, discount, seed
        self.steps = whole_number("steps", steps, 1)
        self.candidates = whole_number("candidates", candidates, 0)
        self._visits: Counter[str] = Counter()
        self._episodes: list[_Episode] = []

    def act(self, observations: Sequence[str | None], infos: Sequence[dict[str, Any]]) -> list[str]:
        """Return one action per slot (`Agent.act`)."""
        self._episodes += [_Episode() for _ in range(len(observations) - len(self._episodes))]
        playing = [slot for slot, observation in enumerate(observations) if observation is not None]
        for slot in playing:
            self._listen(self._episodes[slot], str(observations[slot]), infos[slot])
        proposed = self._proposed(playing, infos)
        paths = [path for slot in playing for path in self._candidates(slot, proposed[slot])]
        if self.imagination is not None:
            self._imagine(paths, infos)
        actions = [""] * len(observations)
        for slot in playing:
            own = [path for path in paths if path.slot == slot]
            actions[slot] = self._choose(self._episodes[slot], own, proposed[slot])
        return actions

    def reset(self, mask: Sequence[bool], seeds: Sequence[int | None] | None = None) -> None:
        """Forget the episodes of the slots whose mask is true; new ones with these seeds start there."""
        self._episodes += [_Episode() for _ in range(len(mask) - len(self._episodes))]
        starting = [slot for slot, start in enumerate(mask) if start]
        for slot in starting:
            self._episodes[slot] = _Episode(None if seeds is None else seeds[slot])
        if self.proposals is not None:
            self.proposals.forget(starting)

    def written(self, slot: int) -> list[Any]:
        """Return no turns: nothing of them is trained on."""
        return []

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Return a context for a series of turns in which no model's weights change."""
        with ExitStack() as stack:
            for part in (self.imagination, self.proposals):
                if part is not None:
                    stack.enter_context(part.playing())
            yield

    def last_move(self, slot: int) -> Move:
        """Return the last turn: the prediction is what was imagined, the tokens are those of all candidates together.

        The thought lists the best candidates with their values.
        """
        return self._episodes[slot].move

    def _listen(self, episode: _Episode, observation: str, info: dict[str, Any]) -> None:
        if not episode.turns:
            if episode.seed is None:
                game = str(info.get("game") or "")
                episode.seed = seed_of(self.seed, game, self._visits[game])
                self._visits[game] += 1
            episode.rng = random.Random(episode.seed)
        episode.turns.append(Turn(episode.move.action, observation))
        episode.known |= dict.fromkeys(admissible_actions(info))

    def _proposed(self, playing: Sequence[int], infos: Sequence[dict[str, Any]]) -> dict[int, list[Proposal]]:
        if self.proposals is None:
            return {
                slot: [Proposal(action) for action in admissible_actions(infos[slot]) or ("look",)] for slot in playing
            }
        episodes = [self._episodes[slot] for slot in playing]
        turns, seeds = [episode.turns for episode in episodes], [episode.seed or 0 for episode in episodes]
        proposed = self.proposals.propose(playing, turns, [infos[slot] for slot in playing], seeds)
        return dict(zip(playing, proposed, strict=True))

    def _candidates(self, slot: int, proposed: Sequence[Proposal]) -> list[_Path]:
        votes = Counter(proposal.action for proposal in proposed)
        actions = list(votes)
        if 0 < self.candidates < len(actions):
            actions = self._episodes[slot].rng.sample(actions, self.candidates)
        return [_Path(slot, action, votes[action]) for action in actions]

    def _imagine(self, paths: Sequence[_Path], infos: Sequence[dict[str, Any]]) -> None:
        assert self.imagination is not None
        tasks = {path.slot: str(infos[path.slot].get("task") or "") for path in paths}
        outlooks = {slot: Outlook(task, self._episodes[slot].turns) for slot, task in tasks.items()}
        for step in range(self.steps):
            alive = [path for path in paths if path.open]
            actions = [path.action if step == 0 else self._next(path, tasks[path.slot]) for path in alive]
            questions = [
                Question(
                    str(infos[path.slot].get("game") or ""),
                    tasks[path.slot],
                    (*self._episodes[path.slot].turns, *path.turns),
                    action,
                )
                for path, action in zip(alive, actions, strict=True)
            ]
            if not questions:
                break
            for path, action, outcome in zip(alive, actions, self.imagination.imagine(questions), strict=True):
                path.turns.append(Turn(action, outcome.observation))
                path.outcome = outcome
                path.tokens += outcome.tokens
                value = outlooks[path.slot].value(path.turns, outcome.won)
                path.open = not (outcome.over or value in (NO_CHANGE, 1.0))
                value *= self.discount**step if value > 0 else 1.0  # so that a loss is no smaller for being later
                path.value = value if step == 0 else max(path.value, value)
        for path in paths:
            path.value -= outlooks[path.slot].cost(path.action)

    def _next(self, path: _Path, task: str) -> str:
        """Choose the action with which an imagined path goes on."""
        assert path.outcome is not None
        episode = self._episodes[path.slot]
        actions = path.outcome.actions or tuple(episode.known) or (path.action,)
        played = Counter(str(turn.action) for turn in (*episode.turns, *path.turns))
        return choose_by_words(task, actions, played, episode.rng)

    def _choose(self, episode: _Episode, paths: Sequence[_Path], proposed: Sequence[Proposal]) -> str:
        best = max(path.value for path in paths)
        good = [path for path in paths if path.value >= best - _EQUAL]
        most = max(path.votes for path in good)
        chosen = episode.rng.choice([path for path in good if path.votes == most])
        told = sorted(paths, key=lambda path: (-path.value, -path.votes, path is not chosen))[:_TOLD]
        episode.move = Move(
            chosen.action,
            str(chosen.turns[0].observation) if chosen.turns else None,
            "\n".join(_line(path) for path in told),
            prompt_tokens=sum(proposal.prompt_tokens for proposal in proposed),
            completion_tokens=sum(p.tokens for p in proposed) + sum(path.tokens for path in paths),
        )
        return chosen.action


def _line(path: _Path) -> str:
    """Describe a candidate in a line of the thought."""
    imagined = " > ".join(" ".join(str(turn.observation).split()) for turn in path.turns)
    return (
        f"{path.value:+.2f} {path.action} ({path.votes}): {imagined}" if imagined else f"{path.action} ({path.votes})"
    )
