"""Vector text environments: many episodes at once, in this process or in worker processes."""

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

from rwml_gym.checks import one_of, plain, real_number, whole_number
from rwml_gym.errors import InvalidConfigError, InvalidTypeError
from rwml_gym.vector.infos import Info, vectorize_infos
from rwml_gym.vector.slots import EnvFactory, Slots, SlotSteps, one_per_slot
from rwml_gym.vector.workers import Workers

__all__ = ["TextVectorEnv", "make_alfworld", "make_tau2", "make_text", "make_toy"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Texts = tuple[str, ...]


class TextVectorEnv(VectorEnv[Texts, Sequence[Any], np.ndarray]):
    """Text environments side by side, in this process or in worker processes, with the same results.

    Returns what `gymnasium.vector.SyncVectorEnv` returns, in less time: observations as a tuple of strings, rewards as
    float64, `info` with one array per key and ``_key`` as the mask of the slots that have the key. A list or string in
    the info of one environment is an element of an object array: ``info["admissible_actions"][3]`` is slot 3's list.

    Attributes:
        one_order: Whether the slots share one order of games, which one seed must set.

    Raises `gymnasium.error.ResetNeeded` where Gymnasium would silently return wrong results: at a step after a failed
    one, a step of an ended slot in mode ``Disabled``, and a partial reset before the first full one.

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
        """Make the environments.

        Args:
            env_fns: Make one environment each, with equal text spaces. With workers, cloudpickle must pickle them.
            autoreset_mode: ``NextStep``, ``SameStep`` or ``Disabled``: https://farama.org/Vector-Autoreset-Mode.
            workers: Number of processes that share the slots, evenly and in order; 0 for none.
            context: Start method of the worker processes: ``fork``, ``spawn`` or ``forkserver``; Python's default if
                absent. Use ``spawn`` if this process has threads, as it has once torch has computed something.
            timeout: Seconds after which a worker without an answer counts as hung; no limit if absent.

        Raises:
            InvalidConfigError: If an argument is not allowed, or an environment is not a text environment.
            WorkerDiedError: If a worker dies while it makes its environments.
        """
        self.closed = True  # until the environments exist
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.env_fns = _checked(env_fns)
        self.num_envs = len(self.env_fns)
        _check_workers(workers, context, timeout, self.num_envs)
        self.workers = workers
        self.one_order = False
        self._ended: Bools = np.zeros(self.num_envs, dtype=np.bool_)
        self._needs_reset = "Expected reset() before the first step(), actual: none. Call reset()."
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
        """Start an episode in every slot.

        Args:
            seed: Seed of slot 0; slot i gets seed + i. Or a sequence with one seed per slot.
            options: Options for every environment. ``{"reset_mask": mask}``, with a boolean array, resets only the
                slots in the mask; the others keep their observation and have no info. ``{"game": names}``, with a list,
                tuple or array, gives each slot its own game (``None`` where the environment chooses).
        """
        seeds = self._seeds(seed)
        each, mask = self._split(options)
        if self.one_order:
            _require_one_order(seeds, mask)
        if self._needs_reset and not mask.all():
            raise ResetNeeded(f"Expected all slots in the reset mask, actual: {mask}. {self._needs_reset}")
        self._needs_reset = "Expected a successful reset(), actual: the last one failed. Call reset() again."
        parts = self._run("reset", lambda share: (seeds[share], each[share], mask[share].tolist()))
        self._needs_reset = ""
        self._ended[mask] = False
        observations, infos = (list(chain.from_iterable(part)) for part in zip(*parts, strict=True))
        return tuple(observations), vectorize_infos(infos)

    def step(self, actions: Sequence[Any]) -> tuple[Texts, Floats, Bools, Bools, Info]:
        """Step every slot.

        Args:
            actions: One action per slot.
        """
        self._require_open()
        actions = one_per_slot("actions", actions, self.num_envs)
        if self._needs_reset:
            raise ResetNeeded(self._needs_reset)
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            raise ResetNeeded(
                f"Expected running episodes, actual: those of slots {np.flatnonzero(self._ended).tolist()} have ended. "
                'Call reset(options={"reset_mask": terminations | truncations}) before the next step().'
            )
        self._needs_reset = "Expected a successful step(), actual: the last one failed in some slots. Call reset()."
        parts: list[SlotSteps] = self._run("step", lambda share: (actions[share],))
        self._needs_reset = ""
        steps = parts[0] if len(parts) == 1 else [list(chain.from_iterable(part)) for part in zip(*parts, strict=True)]
        observations, rewards, terminations, truncations, infos = steps
        terminated = np.array(terminations, dtype=np.bool_)
        truncated = np.array(truncations, dtype=np.bool_)
        self._ended = terminated | truncated
        return tuple(observations), np.array(rewards, dtype=np.float64), terminated, truncated, vectorize_infos(infos)

    def render(self) -> tuple[Any, ...]:
        """Render every environment."""
        return self.call("render")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or read an attribute, and return one result per slot."""
        if name in ("reset", "step", "close"):
            raise InvalidConfigError(f"Expected a name except reset, step and close, actual: {name}. Use `{name}()`.")
        return tuple(chain.from_iterable(self._run("call", lambda _: (name, args, kwargs))))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment to one value, or to the values of a list or tuple, one per slot."""
        values = values if isinstance(values, list | tuple) else [values] * self.num_envs
        each = one_per_slot("values", values, self.num_envs)
        self._run("set_attr", lambda share: (name, each[share]))

    @property  # type: ignore[misc] # one per slot and read-only, as in Gymnasium
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random generators of the environments."""
        return self.get_attr("np_random")

    @property
    def np_random_seed(self) -> tuple[int | None, ...]:  # type: ignore[override]
        """The seeds of the environments' generators."""
        return self.get_attr("np_random_seed")

    @property
    def envs(self) -> list[gymnasium.Env[str, Any]]:
        """The environments, if they run in this process."""
        if isinstance(self._slots, Workers):
            raise AttributeError("Expected environments in this process, actual: in workers. Use call() or set_attr().")
        return self._slots.envs

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments and end the worker processes.

        Args:
            timeout: Seconds to wait for the workers, 10 by default; after that they are killed and an error is raised.
            terminate: Whether to end the workers at once, without closing their environments.
        """
        self.closed = True  # even if closing an environment fails
        if isinstance(self._slots, Workers):
            self._slots.close(timeout, terminate)
        else:
            self._slots.close()

    def _run(self, method: str, arguments: Callable[[slice], tuple[Any, ...]]) -> list[Any]:
        """Call a method of `Slots` where the slots run, with the arguments of each share; one result per share."""
        self._require_open()
        if isinstance(self._slots, Workers):
            return self._slots.run(method, arguments)
        return [getattr(self._slots, method)(*arguments(slice(None)))]

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(f"Expected an open {type(self).__name__}, actual: closed. Make another one.")

    def _seeds(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if np.ndim(seed) == 0:
            first = whole_number("seed", seed, 0)
            return [first + slot for slot in range(self.num_envs)]
        seeds = one_per_slot("seeds", seed, self.num_envs)
        return [None if each is None else whole_number("seed", each, 0) for each in seeds]

    def _split(self, options: Mapping[str, Any] | None) -> tuple[list[dict[str, Any] | None], Bools]:
        """Split options into those of each environment and the mask of the slots to reset."""
        if options is None:
            return [None] * self.num_envs, np.ones(self.num_envs, dtype=np.bool_)
        if not isinstance(options, Mapping):
            raise InvalidConfigError(f'Expected options such as {{"game": names}}, actual: {options!r}.')
        options = dict(options)
        mask = options.pop("reset_mask", np.ones(self.num_envs, dtype=np.bool_))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise InvalidTypeError(self._mask_expected(mask))
        if mask.shape != (self.num_envs,):
            raise InvalidConfigError(self._mask_expected(mask))
        if not mask.any():
            raise InvalidConfigError('Expected a slot in options["reset_mask"], actual: none. Do not call reset().')
        games = plain(options.get("game"))
        if not isinstance(games, list):
            return [dict(options) for _ in range(self.num_envs)], mask
        names = one_per_slot('names in options["game"]', games, self.num_envs)
        return [{**options, "game": name} for name in names], mask

    def _mask_expected(self, mask: Any) -> str:
        return f'Expected options["reset_mask"] to be a boolean array of shape ({self.num_envs},), actual: {mask!r}.'


def make_alfworld(num_envs: int = 1, **kwargs: Any) -> TextVectorEnv:
    """Make what ``gymnasium.make_vec("rwml_gym/ALFWorld-v0", …)`` returns; see `make_text`."""
    return make_text("rwml_gym/ALFWorld-v0", num_envs, **kwargs)


def make_tau2(num_envs: int = 1, **kwargs: Any) -> TextVectorEnv:
    """Make what ``gymnasium.make_vec("rwml_gym/Tau2-v0", …)`` returns; see `make_text`."""
    return make_text("rwml_gym/Tau2-v0", num_envs, **kwargs)


def make_toy(num_envs: int = 1, **kwargs: Any) -> TextVectorEnv:
    """Make what ``gymnasium.make_vec("rwml_gym/ToyHouse-v0", …)`` returns; see `make_text`."""
    return make_text("rwml_gym/ToyHouse-v0", num_envs, **kwargs)


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
    """Make a vector environment of one registered id.

    Gymnasium passes keyword arguments, but not ``vector_kwargs`` and ``wrappers``, which are for its modes ``sync`` and
    ``async``. For wrapped environments, pass `TextVectorEnv` the functions that make them.

    Args:
        id: Id of a text environment.
        num_envs: Number of slots.
        autoreset_mode: See `TextVectorEnv`.
        workers: Number of worker processes; 0 for none.
        context: Start method of the workers.
        timeout: Seconds to wait for a worker.
        kwargs: Arguments for `gymnasium.make`: ``max_episode_steps`` and those of the environment. With
            ``order="each-once"``, all slots together play every game of the split once, and then again; end an
            evaluation when each game has been played.
    """
    num_envs = whole_number("num_envs", num_envs, 1)
    if kwargs.get("order") == "each-once":
        env_fns = [partial(gymnasium.make, id, share=(slot, num_envs), **kwargs) for slot in range(num_envs)]
    else:
        env_fns = [partial(gymnasium.make, id, **kwargs)] * num_envs
    envs = TextVectorEnv(env_fns, autoreset_mode, workers=workers, context=context, timeout=timeout)
    envs.one_order = kwargs.get("order") == "each-once"
    return envs


def _autoreset_mode(mode: Any) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(f'"{known.value}"' for known in AutoresetMode)
        raise InvalidConfigError(f"Expected autoreset_mode to be one of {known}, actual: {mode!r}.") from None


def _checked(env_fns: Any) -> list[EnvFactory]:
    env_fns = list(env_fns)
    if not env_fns:
        raise InvalidConfigError("Expected at least one env_fn, actual: 0.")
    for env_fn in env_fns:
        if not callable(env_fn):
            raise InvalidConfigError(
                f"Expected env_fns to be functions that make environments, actual: {env_fn!r}. "
                "Write `[lambda: gymnasium.make(…)] * 4`."
            )
    return env_fns


def _require_one_order(seeds: list[int | None], mask: Bools) -> None:
    """Raise `InvalidConfigError` unless all slots begin the order of one seed, or all go on with theirs."""
    orders = {None if seed is None else seed - slot for slot, seed in enumerate(seeds)}
    if len(orders) > 1 or (orders != {None} and not mask.all()):
        masked = "" if mask.all() else f" with the reset mask {mask.tolist()}"
        raise InvalidConfigError(
            f'Expected one seed for all slots with order="each-once", actual: {seeds}{masked}. The slots share the '
            "order of that seed, or games would be left out. Give one seed without a mask, or none."
        )


def _check_workers(workers: Any, context: Any, timeout: Any, num_envs: int) -> None:
    whole_number("workers", workers, 0)
    if workers > num_envs:
        raise InvalidConfigError(f"Expected at most {num_envs} workers, one per slot, actual: {workers}.")
    if not workers and (context is not None or timeout is not None):
        raise InvalidConfigError("Expected `workers` with `context` or `timeout`, actual: 0. Set `workers`.")
    if context is not None:
        one_of("context", context, multiprocessing.get_all_start_methods())
    if timeout is not None and not real_number(timeout) > 0:
        raise InvalidConfigError(f"Expected a timeout of more than 0 seconds, actual: {timeout!r}.")
