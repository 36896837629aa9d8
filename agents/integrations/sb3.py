"""A policy for sb3-contrib's `MaskablePPO` that scores each admissible action by its vector."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import torch
from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from rwml_gym.errors import InvalidConfigError

__all__ = ["ActionScoringPolicy"]


class _FlatChoices(BaseFeaturesExtractor):
    """The observation of `AdmissibleActions` as one row: vector of the state, vectors of the actions, mask.

    Stable-Baselines3 hands one tensor from the features extractor to the networks.
    """

    def __init__(self, observation_space: gym.spaces.Dict):
        state, actions = observation_space["observation"], observation_space["actions"]
        assert state.shape is not None
        assert actions.shape is not None
        self.count, self.width = actions.shape
        self.state_width = math.prod(state.shape)
        super().__init__(observation_space, self.state_width + self.count * (self.width + 1))

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Concatenates the parts."""
        names = ("observation", "actions", "action_mask")
        return torch.cat([observations[name].flatten(start_dim=1) for name in names], dim=1)


class _ActionScorer(nn.Module):
    """The actor's logits and the critic's latent, with the two methods of SB3's `MlpExtractor`.

    The state is the observation's vector and the mean of the actions' vectors. The actor makes a query of it; an
    action's logit is the scaled product of the query and the action's key, plus learnt weights times its likeness to
    each text of the observation (the task, say), so that what is learnt of one word serves the next.
    """

    def __init__(self, features: _FlatChoices, hidden: int, activation: type[nn.Module]):
        super().__init__()
        self.count, self.width, self.state_width = features.count, features.width, features.state_width
        # Vectors of the same encoder, of texts of the observation, can be compared with those of the actions.
        self.texts = self.state_width // self.width if self.state_width % self.width == 0 else 0
        size = self.state_width + self.width
        self.latent_dim_pi, self.latent_dim_vf = self.count, hidden
        self.actor = nn.Sequential(nn.Linear(size, hidden), activation(), nn.Linear(hidden, hidden), activation())
        self.critic = nn.Sequential(nn.Linear(size, hidden), activation(), nn.Linear(hidden, hidden), activation())
        self.key = nn.Linear(self.width, hidden)
        self.query = nn.Linear(hidden, hidden + self.texts)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the actions, `(n, count)`, and the critic's latent, `(n, hidden)`."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of the actions, `(n, count)`."""
        state, actions, summary = self._parts(features)
        keys = torch.tanh(self.key(actions)) / math.sqrt(self.latent_dim_vf)
        if self.texts:
            texts = state.view(len(state), self.texts, self.width)
            keys = torch.cat([keys, actions @ texts.transpose(1, 2) / math.sqrt(self.width)], dim=2)
        query = self.query(self.actor(summary))
        return (keys @ query.unsqueeze(2)).squeeze(2)

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """The critic's latent, `(n, hidden)`."""
        return self.critic(self._parts(features)[2])

    def _parts(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        state, actions, mask = features.split([self.state_width, self.count * self.width, self.count], dim=1)
        # The numbers in a unit vector are small: brought to a size that a network learns from.
        state, actions = state * math.sqrt(self.width), actions.view(-1, self.count, self.width) * math.sqrt(self.width)
        # The vectors behind the listed ones are zeros; a list may be empty at the end of an episode.
        mean = actions.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return state, actions, torch.cat([state, mean], dim=1)


class ActionScoringPolicy(MaskableMultiInputActorCriticPolicy):
    """Actor and critic over `AdmissibleActions(EmbedText(env))`, for `MaskablePPO`.

    An ordinary policy has an output a number, and a number means another action at each step. This one scores the
    actions' vectors, so the order of the list does not matter: permuted actions get the same probabilities, permuted.

    `net_arch=[size]` sets the width of the hidden layers, 64 by default. `MaskablePPO.save` writes a zip file with
    pickled objects in it: load only files you wrote yourself.

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
        """Make the networks; arguments as `MaskableActorCriticPolicy` has them.

        Args:
            observation_space: That of `AdmissibleActions` over vectors.
            args: As there.
            arguments: As there; `features_extractor_class` is this policy's own, `net_arch` one width, `[64]`.

        Raises:
            InvalidConfigError: If the observations are other ones, or `net_arch` is not one width.
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
                f"Expected `net_arch` as a list of one number, the width of all hidden layers, actual: {sizes!r}."
            )
        super().__init__(observation_space, *args, **{**arguments, "features_extractor_class": _FlatChoices})

    def _build_mlp_extractor(self) -> None:
        assert isinstance(self.features_extractor, _FlatChoices)
        size = self.net_arch[0] if isinstance(self.net_arch, list) and self.net_arch else 64
        self.mlp_extractor = _ActionScorer(  # type: ignore[assignment]
            self.features_extractor, size, self.activation_fn
        )

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        # The extractor's output are the logits already; the optimizer is made anew without the layer left out.
        self.action_net = nn.Identity()
        if self.ortho_init:
            nn.init.orthogonal_(self.mlp_extractor.query.weight, gain=0.01)  # type: ignore[arg-type, union-attr]
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )
