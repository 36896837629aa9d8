"""Vector environments of text: many episodes at once, in this process or in worker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rwml_gym.errors import InvalidConfigError
from rwml_gym.vector.infos import Info, vectorize_infos
from rwml_gym.vector.slots import EnvFactory, Slots, SlotSteps
from rwml_gym.vector.workers import Workers

__all__ = ["TextVectorEnv", "make_alfworld", "make_tau2", "make_text"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Texts = tuple[str, ...]


class TextVectorEnv(VectorEnv[Texts, Sequence[Any], np.ndarray]):
    """Text environments side by side, in this process or spread over worker processes, with the same results.

    Gives what `gymnasium.vector.SyncVectorEnv` gives, in less time: observations as a tuple of strings, rewards as
    float64, `info` with one array a key and ``_key`` for the slots that have it. What is a list or a string in the info
    of one environment is an element of an object array, so ``info["admissible_actions"][3]`` is the list of slot 3.

    Stricter than Gymnasium where that would give wrong results without a word: a step after one that failed, a step of
    an ended slot in mode ``Disabled`` and a partial reset before the first one raise `gymnasium.error.ResetNeeded`.

    Example:
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> envs = TextVectorEnv([ToyHouseEnv] * 3)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations, rewards, terminations, truncations, infos = envs.step(["look", "look", "fly"])
        >>> observations[2], infos["invalid_action"]
        ('Nothing happens.', array([False, False,  True]))
        >>> envs.close()
    """

    def __init__(
        self,
        env_fns: Iterable[EnvFactory],
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        workers: int = 0,
        context: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Makes the environments.

        Args:
            env_fns: make one environment each, with equal text spaces. With workers, what cloudpickle can pickle.
            autoreset_mode: what follows the end of an episode, see https://farama.org/Vector-Autoreset-Mode:
                ``NextStep``, ``SameStep`` or ``Disabled``.
            workers: processes to spread the slots over, evenly and in order; 0 for none.
            context: how worker processes start: ``fork``, ``spawn`` or ``forkserver``; Python's default by default.
                ``spawn`` is the safe one where this process has threads, as it has once torch has computed something.
            timeout: seconds after which a worker that has not answered a call counts as hung; no limit by default.

        Raises:
            InvalidConfigError: if an argument is not among those that work, or an environment is not text.
            WorkerDiedError: if a worker dies while it makes its environments.
        """
        self.closed = True  # until there is something to close
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.env_fns = _checked(env_fns)
        self.num_envs = len(self.env_fns)
        _check_workers(workers, context, timeout, self.num_envs)
        self.workers = workers
        self._ended: Bools = np.zeros(self.num_envs, dtype=np.bool_)
        self._needs_reset = "Cannot step before the first reset(): call reset()."
        self._slots: Slots | Workers
        if workers:
            self._slots = Workers(self.env_fns, self.autoreset_mode, workers, context, timeout)
        else:
            self._slots = Slots(self.env_fns, self.autoreset_mode)
        self.closed = False
        description = self._slots.description
        self.metadata = {**description.metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = description.render_mode
        self.single_observation_space = description.observation_space
        self.single_action_space = description.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Texts, Info]:
        """Starts an episode in every slot.

        Args:
            seed: of slot 0, the next slot has the next one; or one for each slot.
            options: for every environment. ``{"reset_mask": mask}``, a boolean array, resets those slots only: the
                others keep their observation and have no info.
        """
        seeds = self._seeds(seed)
        options, mask = self._split(options)
        if self._needs_reset and not mask.all():
            raise ResetNeeded(f"{self._needs_reset} The first one must not leave out slots, actual mask: {mask}.")
        self._needs_reset = "The last reset() failed: call reset() again."
        parts = self._run("reset", lambda share: (seeds[share], options, mask[share].tolist()))
        self._needs_reset = ""
        self._ended[mask] = False
        observations, infos = (list(chain.from_iterable(part)) for part in zip(*parts, strict=True))
        return tuple(observations), vectorize_infos(infos)

    def step(self, actions: Sequence[Any]) -> tuple[Texts, Floats, Bools, Bools, Info]:
        """Steps every slot.

        Args:
            actions: one for each slot.

        Returns:
            Observations, rewards, terminations, truncations and infos.
        """
        self._require_open()
        actions = self._checked_actions(actions)
        if self._needs_reset:
            raise ResetNeeded(self._needs_reset)
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise ResetNeeded(
                f"Autoreset is disabled and the episodes of slots {np.flatnonzero(self._ended).tolist()} are over: "
                'call reset(options={"reset_mask": terminations | truncations}) before the next step().'
            )
        self._needs_reset = "The last step() failed and some slots may have taken it: call reset() to go on."
        parts: list[SlotSteps] = self._run("step", lambda share: (actions[share],))
        self._needs_reset = ""
        steps = parts[0] if len(parts) == 1 else [list(chain.from_iterable(part)) for part in zip(*parts, strict=True)]
        observations, rewards, terminations, truncations, infos = steps
        terminated = np.array(terminations, dtype=np.bool_)
        truncated = np.array(truncations, dtype=np.bool_)
        self._ended = terminated | truncated
        return tuple(observations), np.array(rewards, dtype=np.float64), terminated, truncated, vectorize_infos(infos)

    def render(self) -> tuple[Any, ...]:
        """Renders every environment."""
        return self.call("render")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method of every environment, or reads an attribute; one result a slot."""
        if name in ("reset", "step", "close"):
            raise InvalidConfigError(f"`call` would {name} the environments unseen: use `{name}` itself.")
        return tuple(chain.from_iterable(self._run("call", lambda _: (name, args, kwargs))))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Reads an attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of every environment: to one value, or to those of a list or tuple, one for each slot."""
        values = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise InvalidConfigError(f"Expected {self.num_envs} values, one for each slot, actual: {len(values)}.")
        self._run("set_attr", lambda share: (name, values[share]))

    @property  # type: ignore[misc] # one for each slot, as in Gymnasium's own; nothing to write to
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random generators of the environments."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        """The seeds of the environments' generators."""
        return self.get_attr("np_random_seed")

    @property
    def envs(self) -> list[gymnasium.Env[str, Any]]:
        """The environments, where they live in this process."""
        if isinstance(self._slots, Workers):
            raise AttributeError("The environments live in worker processes: use call(), get_attr() or set_attr().")
        return self._slots.envs

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Closes the environments and ends the worker processes.

        Args:
            timeout: seconds to wait for the workers, 10 by default; then they are ended, and that is an error.
            terminate: end the workers at once, without closing their environments.
        """
        self.closed = True  # also if an environment refuses
        if isinstance(self._slots, Workers):
            self._slots.close(timeout, terminate)
        else:
            self._slots.close()

    def _run(self, method: str, arguments: Callable[[slice], tuple[Any, ...]]) -> list[Any]:
        """Calls a method of `Slots` where the slots live, with the arguments of that share; one result a share."""
        self._require_open()
        if isinstance(self._slots, Workers):
            return self._slots.run(method, arguments)
        return [getattr(self._slots, method)(*arguments(slice(None)))]

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(f"This {type(self).__name__} is closed: make another one.")

    def _seeds(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + slot for slot in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise InvalidConfigError(f"Expected {self.num_envs} seeds, one for each slot, actual: {len(seed)}.")
        return list(seed)

    def _split(self, options: Mapping[str, Any] | None) -> tuple[dict[str, Any] | None, Bools]:
        """The options for the environments, and the slots to reset."""
        if options is None or "reset_mask" not in options:
            return None if options is None else dict(options), np.ones(self.num_envs, dtype=np.bool_)
        options = dict(options)
        mask = options.pop("reset_mask")
        if not (isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (self.num_envs,)):
            raise InvalidConfigError(
                f'Expected options["reset_mask"] to be a boolean array of shape ({self.num_envs},), actual: {mask!r}.'
            )
        if not mask.any():
            raise InvalidConfigError('Expected options["reset_mask"] to have a True: without one, do not call reset().')
        return options, mask

    def _checked_actions(self, actions: Any) -> list[Any]:
        if isinstance(actions, str | bytes | Mapping):
            raise InvalidConfigError(f"Expected {self.num_envs} actions, one for each slot, actual: one, {actions!r}.")
        actions = list(actions)
        if len(actions) != self.num_envs:
            raise InvalidConfigError(f"Expected {self.num_envs} actions, one for each slot, actual: {len(actions)}.")
        return actions


def make_alfworld(num_envs: int = 1, **kwargs: Any) -> TextVectorEnv:
    """What ``gymnasium.make_vec("rwml_gym/ALFWorld-v0", …)`` calls; see `make_text`."""
    return make_text("rwml_gym/ALFWorld-v0", num_envs, **kwargs)


def make_tau2(num_envs: int = 1, **kwargs: Any) -> TextVectorEnv:
    """What ``gymnasium.make_vec("rwml_gym/Tau2-v0", …)`` calls; see `make_text`."""
    return make_text("rwml_gym/Tau2-v0", num_envs, **kwargs)


def make_text(
    id: str,
    num_envs: int = 1,
    *,
    autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    workers: int = 0,
    context: str | None = None,
    timeout: float | None = None,
    **kwargs: Any,
) -> TextVectorEnv:
    """Makes equal environments of a registered id, side by side.

    Gymnasium hands over keyword arguments, and neither ``vector_kwargs`` nor ``wrappers``: these are for its modes
    ``sync`` and ``async``. For wrapped environments give `TextVectorEnv` the functions that make them.

    Args:
        id: a text environment's.
        num_envs: number of slots.
        autoreset_mode: see `TextVectorEnv`, as the next three.
        workers: worker processes to spread the slots over; 0 for none.
        context: how they start.
        timeout: seconds to wait for one.
        kwargs: for `gymnasium.make`: ``max_episode_steps`` and those of the environment.
    """
    _check_count("num_envs", num_envs, 1)
    env_fns = [partial(gymnasium.make, id, **kwargs)] * num_envs
    return TextVectorEnv(env_fns, autoreset_mode, workers=workers, context=context, timeout=timeout)


def _autoreset_mode(mode: Any) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(f'"{known.value}"' for known in AutoresetMode)
        raise InvalidConfigError(f"Unknown autoreset_mode {mode!r}; expected one of {known}.") from None


def _checked(env_fns: Any) -> list[EnvFactory]:
    env_fns = list(env_fns)
    if not env_fns:
        raise InvalidConfigError("Expected at least one env_fn, actual: none.")
    for env_fn in env_fns:
        if not callable(env_fn):
            raise InvalidConfigError(
                f"Expected env_fns to be functions that make environments, actual: {env_fn!r}. "
                "Write `[lambda: gymnasium.make(…)] * 4`."
            )
    return env_fns


def _check_workers(workers: Any, context: Any, timeout: Any, num_envs: int) -> None:
    _check_count("workers", workers, 0)
    if workers > num_envs:
        raise InvalidConfigError(f"Expected at most one worker for each of {num_envs} slots, actual: {workers}.")
    if not workers and (context is not None or timeout is not None):
        raise InvalidConfigError("`context` and `timeout` are for worker processes: give `workers` too.")
    contexts = multiprocessing.get_all_start_methods()
    if context is not None and context not in contexts:
        raise InvalidConfigError(f"Unknown context {context!r}; expected one of {', '.join(contexts)}.")
    if timeout is not None and not timeout > 0:
        raise InvalidConfigError(f"Expected a timeout of more than 0 seconds, actual: {timeout!r}.")


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidConfigError(f"Expected {name} to be an integer of at least {least}, actual: {value!r}.")
