"""A policy for sb3-contrib's `MaskablePPO` that scores each admissible action by its vector."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym

from rwml_gym.checks import missing
from rwml_gym.errors import InvalidConfigError

try:
    import torch
    from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from torch import nn
except ImportError as error:
    raise missing("Stable-Baselines3 with sb3-contrib", "sb3") from error

__all__ = ["ActionScoringPolicy"]

_WIDTH = 64  # of the hidden layers, SB3's default


class _FlatChoices(BaseFeaturesExtractor):
    """Concatenates the vectors of the state and the actions and the mask, because SB3's networks take one tensor."""

    def __init__(self, observation_space: gym.spaces.Dict):
        state, actions = observation_space["observation"], observation_space["actions"]
        assert state.shape is not None
        assert actions.shape is not None
        self.count, self.width = actions.shape
        self.state_width = math.prod(state.shape)
        super().__init__(observation_space, self.state_width + self.count * (self.width + 1))

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        names = ("observation", "actions", "action_mask")
        return torch.cat([observations[name].flatten(start_dim=1) for name in names], dim=1)


class _ActionScorer(nn.Module):
    """The actor's logits and the critic's latent, with the two methods of SB3's `MlpExtractor`.

    The state is the observation's vector and the mean of the actions' vectors. The actor maps it to a query. The logit
    of an action is the scaled product of the query and the action's key, plus learnt weights times its similarity to
    each text of the observation, such as the task. These weights generalise from one word to the next.
    """

    def __init__(self, features: _FlatChoices, hidden: int, activation: type[nn.Module]):
        super().__init__()
        self.count, self.width, self.state_width = features.count, features.width, features.state_width
        # The vectors of the observation's texts can be compared with the actions' if they come from the same encoder.
        self.texts = self.state_width // self.width if self.state_width % self.width == 0 else 0
        size = self.state_width + self.width
        self.latent_dim_pi, self.latent_dim_vf = self.count, hidden
        self.actor = nn.Sequential(nn.Linear(size, hidden), activation(), nn.Linear(hidden, hidden), activation())
        self.critic = nn.Sequential(nn.Linear(size, hidden), activation(), nn.Linear(hidden, hidden), activation())
        self.key = nn.Linear(self.width, hidden)
        self.query = nn.Linear(hidden, hidden + self.texts)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of the actions, `(n, count)`, and the critic's latent, `(n, hidden)`."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        state, actions, summary = self._parts(features)
        keys = torch.tanh(self.key(actions)) / math.sqrt(self.latent_dim_vf)
        if self.texts:
            texts = state.view(len(state), self.texts, self.width)
            keys = torch.cat([keys, actions @ texts.transpose(1, 2) / math.sqrt(self.width)], dim=2)
        query = self.query(self.actor(summary))
        return (keys @ query.unsqueeze(2)).squeeze(2)

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        return self.critic(self._parts(features)[2])

    def _parts(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        state, actions, mask = features.split([self.state_width, self.count * self.width, self.count], dim=1)
        # The numbers in a unit vector are small, so they are scaled for the network.
        state, actions = state * math.sqrt(self.width), actions.view(-1, self.count, self.width) * math.sqrt(self.width)
        # The vectors after the listed actions are zeros; the list may be empty at the end of an episode.
        mean = actions.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return state, actions, torch.cat([state, mean], dim=1)


class ActionScoringPolicy(MaskableMultiInputActorCriticPolicy):
    """Actor and critic over `AdmissibleActions(EmbedText(env))`, for `MaskablePPO`.

    An ordinary policy has one output per number, but the meaning of a number changes at each step. This policy scores
    the actions' vectors, so that an action's probability does not depend on its position in the list.

    `net_arch=[size]` sets the width of the hidden layers, 64 by default. `MaskablePPO.save` writes a zip file with
    pickled objects, so load only files that you wrote yourself.

    Example:
        >>> import gymnasium as gym
        >>> from sb3_contrib import MaskablePPO
        >>> from rwml_gym.envs.toy import ToyHouseEnv
        >>> from rwml_gym.wrappers.admissible_actions import AdmissibleActions
        >>> from rwml_gym.wrappers.embed_text import EmbedText
        >>> env = AdmissibleActions(EmbedText(ToyHouseEnv(), "hashing"), "hashing", max_actions=16)
        >>> model = MaskablePPO(ActionScoringPolicy, env, n_steps=16, batch_size=16, seed=0, device="cpu")
        >>> observation, _ = env.reset(seed=0)
        >>> action, _ = model.predict(observation, action_masks=env.action_masks())
        >>> bool(env.action_masks()[action])
        True
    """

    def __init__(self, observation_space: gym.spaces.Dict, *args: Any, **arguments: Any):
        """Make the networks; the arguments are those of `MaskableActorCriticPolicy`.

        Args:
            observation_space: Observation space of `AdmissibleActions` over vectors.
            args: Positional arguments.
            arguments: Keyword arguments; `features_extractor_class` is replaced, and `net_arch` is one width, `[64]`.

        Raises:
            InvalidConfigError: If the observation space is another, or `net_arch` is not one width.
        """
        parts = observation_space.spaces if isinstance(observation_space, gym.spaces.Dict) else {}
        if set(parts) != {"observation", "actions", "action_mask"} or not isinstance(
            parts["observation"], gym.spaces.Box
        ):
            raise InvalidConfigError(
                "Expected the observations of `AdmissibleActions` over vectors for ActionScoringPolicy, actual: "
                f"{observation_space}. Wrap the environment: `AdmissibleActions(EmbedText(env))`."
            )
        sizes = arguments.get("net_arch")
        if sizes is not None and not (isinstance(sizes, list) and len(sizes) == 1 and isinstance(sizes[0], int)):
            raise InvalidConfigError(
                f"Expected `net_arch` as a list of one number, the width of all hidden layers, actual: {sizes!r}. "
                "Use `net_arch=[64]`."
            )
        # Written out, because SB3 would save its own default, two networks, which `load` would hand over.
        own = {"net_arch": [_WIDTH] if sizes is None else sizes, "features_extractor_class": _FlatChoices}
        super().__init__(observation_space, *args, **{**arguments, **own})

    def _build_mlp_extractor(self) -> None:
        assert isinstance(self.features_extractor, _FlatChoices)
        size = self.net_arch[0] if isinstance(self.net_arch, list) else _WIDTH
        self.mlp_extractor = _ActionScorer(  # type: ignore[assignment]
            self.features_extractor, size, self.activation_fn
        )

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        # The extractor already returns logits, so this layer goes, and a new optimizer is made without it.
        self.action_net = nn.Identity()
        if self.ortho_init:
            nn.init.orthogonal_(self.mlp_extractor.query.weight, gain=0.01)  # type: ignore[arg-type, union-attr]
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )
