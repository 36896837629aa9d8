"""A share of the slots of a vector environment: stepped one after the other in one process, with autoreset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
from gymnasium.vector import AutoresetMode

from rwml_gym.errors import InvalidConfigError
from rwml_gym.vector.infos import Info

__all__ = ["EnvFactory", "SlotSteps", "Slots", "SlotsDescription", "one_per_slot", "require_same_space"]

EnvFactory = Callable[[], gymnasium.Env[str, Any]]


class SlotSteps(NamedTuple):
    """The results of one step, slot by slot."""

    observations: list[str]
    rewards: list[Any]
    terminations: list[Any]
    truncations: list[Any]
    infos: list[Info]


class SlotsDescription(NamedTuple):
    """What a vector environment must know about its environments, which may run in another process."""

    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    metadata: dict[str, Any]
    render_mode: str | None


class Slots:
    """Environments that are stepped one after the other, with separate results per slot.

    An exception of an environment gets a note that names its slot.
    """

    def __init__(self, env_fns: Sequence[EnvFactory], autoreset_mode: AutoresetMode, first: int = 0) -> None:
        """Make the environments; if one cannot be made, close the others again.

        Args:
            env_fns: Make one environment each.
            autoreset_mode: What follows the end of an episode.
            first: Number of the first slot in the whole vector environment, for messages.
        """
        self.first = first
        self.same_step = autoreset_mode is AutoresetMode.SAME_STEP
        self.next_step = autoreset_mode is AutoresetMode.NEXT_STEP
        self.envs: list[gymnasium.Env[str, Any]] = []
        try:
            for slot, env_fn in enumerate(env_fns):
                with self._named(slot):
                    env = env_fn()
                if not isinstance(env, gymnasium.Env):
                    raise InvalidConfigError(
                        f"Expected env_fns to make environments, actual: {env!r} for slot {self.first + slot}."
                    )
                self.envs.append(env)
            self.description = self._describe()
        except BaseException:
            self.close()
            raise
        self._observations = [""] * len(self.envs)
        self._ended = [False] * len(self.envs)

    def reset(
        self, seeds: Sequence[int | None], options: Sequence[dict[str, Any] | None], mask: Sequence[bool]
    ) -> tuple[list[str], list[Info | None]]:
        """Reset the slots in the mask; the others keep their observation and have no info."""
        infos: list[Info | None] = [None] * len(self.envs)
        for slot, (env, wanted) in enumerate(zip(self.envs, mask, strict=True)):
            if wanted:
                with self._named(slot):
                    self._observations[slot], infos[slot] = env.reset(seed=seeds[slot], options=options[slot])
                self._ended[slot] = False
        return list(self._observations), infos

    def step(self, actions: Sequence[Any]) -> SlotSteps:
        """Step every slot, or reset it if the autoreset mode requires it."""
        slot = 0
        steps = []
        try:
            for slot, action in enumerate(actions):
                steps.append(self._step(slot, action))
        except Exception as error:  # not `_named`: a context manager costs more than the rest of this loop
            self._name(error, slot)
            raise
        # Convert to lists, because zip gives tuples, which cannot be changed.
        results = SlotSteps(*map(list, zip(*steps, strict=True)))
        self._observations = results.observations
        return results

    def _step(self, slot: int, action: Any) -> tuple[str, Any, Any, Any, Info]:
        env = self.envs[slot]
        if self.next_step and self._ended[slot]:
            self._ended[slot] = False
            observation, info = env.reset()
            return observation, 0.0, False, False, info
        observation, reward, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            self._ended[slot] = True
            if self.same_step:
                ending = {"final_obs": observation, "final_info": info}
                observation, info = env.reset()
                info = {**ending, **info}
        return observation, reward, terminated, truncated, info

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Call a method of every environment, or read an attribute."""
        results = []
        for slot, env in enumerate(self.envs):
            with self._named(slot):
                attribute = env.get_wrapper_attr(name)
                results.append(attribute(*args, **kwargs) if callable(attribute) else attribute)
        return results

    def set_attr(self, name: str, values: Sequence[Any]) -> None:
        """Set an attribute of every environment, with one value per slot."""
        for slot, (env, value) in enumerate(zip(self.envs, values, strict=True)):
            with self._named(slot):
                env.set_wrapper_attr(name, value)

    def close(self) -> None:
        """Close every environment, then raise the first exception, if any."""
        with contextlib.ExitStack() as stack:
            for slot, env in reversed(list(enumerate(self.envs))):
                stack.callback(self._close, slot, env)

    def _close(self, slot: int, env: gymnasium.Env[str, Any]) -> None:
        with self._named(slot):
            env.close()

    @contextlib.contextmanager
    def _named(self, slot: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._name(error, slot)
            raise

    def _name(self, error: Exception, slot: int) -> None:
        error.add_note(f"Raised by the environment of slot {self.first + slot}.")

    def _describe(self) -> SlotsDescription:
        for slot, env in enumerate(self.envs):
            where = f"slot {self.first + slot}"
            for name in ("observation_space", "action_space"):
                space = getattr(env, name)
                if not isinstance(space, gymnasium.spaces.Text):
                    raise InvalidConfigError(
                        f"Expected text environments, actual: {name} {space} of {where}. "
                        "For other spaces use `gymnasium.vector.SyncVectorEnv` or `AsyncVectorEnv`."
                    )
                require_same_space(name, space, getattr(self.envs[0], name), where)
        if len({id(env.unwrapped) for env in self.envs}) < len(self.envs):
            raise InvalidConfigError(
                "Expected every env_fn to make its own environment, actual: some returned the same one. "
                "Make the environment inside the function: `[lambda: gymnasium.make(…)] * 4`."
            )
        env = self.envs[0]
        return SlotsDescription(env.observation_space, env.action_space, dict(env.metadata), env.render_mode)


def one_per_slot(what: str, values: Any, num_envs: int) -> list[Any]:
    """Return values as a list.

    Args:
        what: What they are, for the message.
        values: Anything that has one value per slot; no text and no mapping.
        num_envs: Number of slots.

    Raises:
        InvalidConfigError: If they are nothing of the kind, or more or fewer.
    """
    try:
        listed = None if isinstance(values, str | bytes | Mapping) else list(values)
    except TypeError:
        listed = None
    if listed is None or len(listed) != num_envs:
        actual = repr(values)[:200] if listed is None else len(listed)
        raise InvalidConfigError(f"Expected {num_envs} {what}, one per slot, actual: {actual}.")
    return listed


def require_same_space(name: str, space: gymnasium.Space, expected: gymnasium.Space, where: str) -> None:
    """Raise `InvalidConfigError` if a slot's space differs from that of slot 0."""
    if space != expected:
        raise InvalidConfigError(
            f"Expected {expected}, the {name} of slot 0, in all slots, actual: {space} in {where}."
        )
