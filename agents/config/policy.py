"""The configuration of policy training, stage 2 of the method, and its presets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, get_args

from rwml_gym.agents.config.base import JobConfig, find_preset, one_of, turn_tokens
from rwml_gym.agents.learning.options import (
    GapDelivery,
    GapTokens,
    GRPOConfig,
    ObservationLossConfig,
    Placebo,
    SequenceOf,
    TaskTokens,
)
from rwml_gym.agents.players.base import Decoding
from rwml_gym.agents.ranges import above, at_least, within
from rwml_gym.encoders.cached import DEFAULT_ENCODER
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DEFAULT_ROUGE_THRESHOLD, DEFAULT_THRESHOLD, DISTANCES

__all__ = ["POLICY_PRESETS", "EpisodeConfig", "EvaluationConfig", "ImitationConfig", "PolicyConfig", "policy_preset"]


@dataclass(frozen=True)
class EpisodeConfig:
    """How the agent plays.

    Attributes:
        max_steps: Step budget of an episode (in the paper's training 15 on ALFWorld, 30 on τ²-bench).
        action_tokens: Token limit of a turn, with its thought and prediction; if absent, 16 in games and 256 in
            customer service.
        decoding: `free` text, or `constrained` to the admissible actions if the environment lists them; what is
            predicted is free text.
        thoughts: Whether the agent writes a thought before each action (ReAct, as in the paper).
        predictions: Whether the agent predicts the next observation behind each action; the wrapper scores it.
        thinking: `enable_thinking` of chat templates that have it; the template's default if absent.
        show_policy: Whether the prompt holds τ²-bench's policy and tool schemas.
        slots: Episodes played side by side.
    """

    max_steps: int = 30
    action_tokens: int | None = None
    decoding: Decoding = "free"
    thoughts: bool = False
    predictions: bool = False
    thinking: bool | None = None
    show_policy: bool = False
    slots: int = 32

    def __post_init__(self) -> None:
        at_least(self, 1, "max_steps", "action_tokens", "slots")
        if self.decoding == "constrained" and self.thoughts:
            raise InvalidConfigError(
                "Expected no thoughts with decoding 'constrained', actual: some. They come before the action, so use "
                "decoding 'free'."
            )
        if self.decoding == "scored":
            raise InvalidConfigError(
                "Expected decoding 'free' or 'constrained', actual: 'scored'. It has no tokens to train on: use one "
                "of the two."
            )


@dataclass(frozen=True)
class ImitationConfig:
    """A short imitation start, for models that would rarely succeed.

    Attributes:
        steps: Number of updates; 0 for no imitation, as in the paper.
        games: Number of games that the expert plays; GRPO does not train on them.
        transitions: Folder of recorded transitions to imitate instead; episodes that were not won are left out.
        batch_size: Demonstrations per update: episodes, or turns with a history window.
        learning_rate: Learning rate of AdamW after the warm-up.
        warmup: Steps over which the learning rate rises linearly.
    """

    steps: int = 0
    games: int = 64
    transitions: str | None = None
    batch_size: int = 8
    learning_rate: float = 5e-4
    warmup: int = 4

    def __post_init__(self) -> None:
        at_least(self, 0, "steps", "warmup")
        at_least(self, 1, "games", "batch_size")
        above(self, 0, "learning_rate")


_OF_GAP = ("gap_delivery", "gap_tokens", "gap_in_failed_groups", "gap_placebo")
_CHOICES = {
    "sequence": SequenceOf,
    "task_tokens": TaskTokens,
    "gap_delivery": GapDelivery,
    "gap_tokens": GapTokens,
    "gap_placebo": Placebo,
}


@dataclass(frozen=True)
class PolicyStageConfig:
    """Policy GRPO: how many episodes of how many games make an update, and how they are rewarded.

    Attributes:
        steps: Number of updates.
        games: Number of games that are trained on; 0 for all of a split that is not generated.
        groups: Games played per round, and groups with a reward difference wanted per update.
        group_size: Episodes per game (G).
        rounds: Maximal number of rounds per update: while too few groups have a reward difference, another round is
            played (DAPO's dynamic sampling). 1 turns that off.
        sequence: One training sequence: an `episode`, or a `turn`. With a history window, every turn is a sequence.
        task_weight: Weight of the advantage of task success, which belongs to the episode.
        task_tokens: The tokens that get it: `all` of the episode, as in GRPO, or those of each turn's `action`, because
            a prediction behind an action has no part in what the action earns.
        world_model_weight: Weight of the advantage of the gap reward, which belongs to the turn; needs predictions.
        gap_delivery: How gap rewards become advantages: `mean_only`, minus the mean of the group's turns; or
            `z_score`, divided by their standard deviation, too, which makes the smallest difference as loud as success
            and was measured to harm (arXiv 2607.21273).
        gap_tokens: The tokens that get them: those of the `prediction`, or `all` of the turn, its action included.
        gap_in_failed_groups: Whether they count where no episode of the group was won. There nothing else speaks, and
            an agent that learns from them alone learns to do what is easy to predict. They do count in environments
            that do not say which episodes are won.
        gap_placebo: What predictions are compared with in place of the world's answers, as a control.
        observation_loss: The auxiliary loss on the world's answers.
        encoder: Encoder of the gap reward.
        threshold: τ_d of the cosine; calibrate it (stage 1 does).
        tool_threshold: τ_d of ROUGE-L, which compares τ²-bench's tool results.
        warmup: Steps over which the learning rate rises linearly.
        checkpoint_every: Updates between checkpoints.
    """

    steps: int = 100
    games: int = 200
    groups: int = 8
    group_size: int = 8
    rounds: int = 1
    sequence: SequenceOf = "episode"
    task_weight: float = 1.0
    task_tokens: TaskTokens = "all"
    world_model_weight: float = 0.0
    gap_delivery: GapDelivery = "mean_only"
    gap_tokens: GapTokens = "prediction"
    gap_in_failed_groups: bool = False
    gap_placebo: Placebo = "none"
    observation_loss: ObservationLossConfig = field(default_factory=ObservationLossConfig)
    encoder: str = DEFAULT_ENCODER
    threshold: float = DEFAULT_THRESHOLD
    tool_threshold: float = DEFAULT_ROUGE_THRESHOLD
    warmup: int = 0
    checkpoint_every: int = 5

    def __post_init__(self) -> None:
        at_least(self, 1, "groups", "rounds", "checkpoint_every")
        at_least(self, 0, "steps", "games", "warmup", "task_weight", "world_model_weight")
        at_least(self, 2, "group_size")
        within(self, 0, DISTANCES["cosine"].maximum, "threshold")
        within(self, 0, DISTANCES["rouge"].maximum, "tool_threshold")
        for name, values in _CHOICES.items():
            one_of(self, name, get_args(values))
        if not self.task_weight and not self.world_model_weight and not self.observation_loss.is_on:
            raise InvalidConfigError(
                "Expected a task_weight or a world_model_weight above 0, or an observation_loss, actual: none of them."
            )
        unused = [name for name in _OF_GAP if getattr(self, name) != getattr(PolicyStageConfig, name)]
        if unused and not self.world_model_weight:
            names, placebo = " and ".join(unused), ", or use observation_loss.placebo" * ("gap_placebo" in unused)
            raise InvalidConfigError(
                f"Expected a world_model_weight above 0 with {names}, actual: 0. Set the weight, or leave out {names}"
                f"{placebo}."
            )


@dataclass(frozen=True)
class EvaluationConfig:
    """How success is measured, before, during and after training.

    Attributes:
        games: Number of held-out games, of each split if there are several; 0 for none, absent for all of them.
        splits: Splits whose games are evaluated, each by itself, such as the paper's `valid_seen` (in distribution) and
            `valid_unseen` (out of it); the counterpart of the training split if absent, or else games of that split.
        max_steps: Step budget of an episode; that of training if absent.
        repeats: Episodes per game; more than 1 is useful only above temperature 0.
        temperature: Temperature of sampling; 0 takes the likeliest token.
        every: Updates between evaluations; 0 evaluates at the start and the end only.
        training_games: Whether the training games are evaluated too.
    """

    games: int | None = 40
    splits: tuple[str, ...] = ()
    max_steps: int | None = None
    repeats: int = 1
    temperature: float = 0.0
    every: int = 0
    training_games: bool = False

    def __post_init__(self) -> None:
        at_least(self, 0, "games", "temperature", "every")
        at_least(self, 1, "repeats", "max_steps")


@dataclass(frozen=True)
class PolicyConfig(JobConfig):
    """Policy training: play games in groups, update with GRPO on success, measure.

    Attributes:
        history: Window H, in turns; 0 for the whole episode as one text, of which each turn runs its new tokens only.
        adapter: Folder of the LoRA adapter to start from, such as stage 1's; a fresh one if absent.
        episode: How the agent plays.
        imitation: The imitation start.
        stage: How much is played, and how it is rewarded.
        grpo: The GRPO update.
        evaluation: How success is measured.
    """

    command: ClassVar[str] = "policy"

    history: int = 0
    max_prompt_tokens: int = 4096
    adapter: str | None = None
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    stage: PolicyStageConfig = field(default_factory=PolicyStageConfig)
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage.world_model_weight and not self.episode.predictions:
            raise InvalidConfigError(
                f"Expected episode.predictions with world_model_weight {self.stage.world_model_weight}, actual: False. "
                "Set it, or the weight to 0."
            )
        if self.stage.task_tokens == "action" and not self.episode.predictions:
            raise InvalidConfigError(
                "Expected episode.predictions with stage.task_tokens 'action', actual: False. Without predictions a "
                "turn is its action: leave task_tokens out, or set episode.predictions."
            )
        if self.imitation.steps and self.episode.thoughts:
            raise InvalidConfigError(
                f"Expected no thoughts with imitation.steps {self.imitation.steps}, actual: episode.thoughts. Nobody "
                "wrote any that could be imitated: remove the thoughts, or set imitation.steps to 0."
            )

    @property
    def turn_tokens(self) -> int:
        """The token limit of a turn."""
        return self.episode.action_tokens or turn_tokens(self.env)

    @property
    def playing(self) -> dict[str, Any]:
        """The options of `rwml-gym evaluate` with which the agent plays as in its training."""
        shown = {name: getattr(self, name) for name in ("prompt_style", "history", "max_prompt_tokens")}
        how = {name: getattr(self.episode, name) for name in ("decoding", "thoughts", "predictions")}
        return {
            **shown,
            "max_state_characters": self.max_state_characters,
            **how,
            "action_tokens": self.turn_tokens,
            "show_policy": self.episode.show_policy,
        }


_PICK = ("pick_and_place_simple",)

POLICY_PRESETS: dict[str, PolicyConfig] = {
    # Learns to play in half an hour on two cores: pick-and-place games, after a short imitation start. Choosing among
    # the admissible actions leaves the gradient to the tokens that decide something; `grpo` counts every episode alike,
    # where `dapo` counts the long, lost ones most.
    "demo": PolicyConfig(
        task_types=_PICK,
        max_prompt_tokens=1024,
        episode=EpisodeConfig(max_steps=10, action_tokens=14, decoding="constrained"),
        imitation=ImitationConfig(steps=30),
        stage=PolicyStageConfig(steps=8, games=12, groups=6, checkpoint_every=2),
        grpo=GRPOConfig(loss_type="grpo", beta=0.0, learning_rate=4e-4, micro_tokens=512),
        evaluation=EvaluationConfig(games=0, repeats=8, temperature=1.0, every=4, training_games=True),
    ),
    # Every task type, more games, more time: hours on a GPU.
    "smollm2": PolicyConfig(
        max_prompt_tokens=2048,
        imitation=ImitationConfig(steps=100, games=200),
        stage=PolicyStageConfig(steps=200, games=500, groups=16),
        evaluation=EvaluationConfig(games=100, every=20),
    ),
    # The paper's settings, line by line; `config.paper` has the paper's table and why some values differ. One row a
    # turn with a window, reasoning before each action. Need GPUs, a model hub and the official games; not run here.
    # Without `--adapter` they are the paper's policy RL, with stage 1's adapter its RWML, then policy RL.
    "paper-alfworld": PolicyConfig(
        model="Qwen/Qwen2.5-7B-Instruct",
        prompt_style="chat",
        split="train",
        history=4,
        episode=EpisodeConfig(max_steps=15, action_tokens=512, thoughts=True, slots=64),
        stage=PolicyStageConfig(steps=300, games=0, group_size=8, sequence="turn", encoder="Qwen/Qwen3-Embedding-8B"),
        grpo=GRPOConfig(loss_type="grpo", learning_rate=1e-5),
        evaluation=EvaluationConfig(
            games=None, splits=("valid_seen", "valid_unseen"), max_steps=30, repeats=3, temperature=1.0
        ),
    ),
    "paper-tau2": PolicyConfig(
        env="tau2",
        domain="all",
        split="train",
        model="Qwen/Qwen3-8B",
        prompt_style="chat",
        history=4,
        max_prompt_tokens=16_384,
        episode=EpisodeConfig(max_steps=30, action_tokens=1024, thinking=True, show_policy=True, slots=64),
        stage=PolicyStageConfig(steps=200, games=178, group_size=8, sequence="turn", encoder="Qwen/Qwen3-Embedding-8B"),
        grpo=GRPOConfig(loss_type="grpo", learning_rate=1e-5),
        evaluation=EvaluationConfig(games=None, max_steps=30, repeats=3, temperature=1.0),
    ),
    # The whole job in about a minute, to see that an installation works; its numbers mean nothing.
    "smoke": PolicyConfig(
        task_types=_PICK,
        max_prompt_tokens=768,
        episode=EpisodeConfig(max_steps=4, action_tokens=12, slots=8),
        imitation=ImitationConfig(steps=2, games=4, batch_size=2),
        stage=PolicyStageConfig(steps=2, games=2, groups=2, group_size=2, checkpoint_every=1),
        evaluation=EvaluationConfig(games=2, every=1),
    ),
}

_DEMO = POLICY_PRESETS["demo"]
# The demo with predictions behind its commands, and the gap reward on these: the settings of the claims' table
# `delivery`. One update at the demo's own learning rate destroys a policy that predicts (`delivery-unstable`).
POLICY_PRESETS["demo-gap"] = replace(
    _DEMO,
    episode=replace(_DEMO.episode, predictions=True, action_tokens=64),
    stage=replace(_DEMO.stage, world_model_weight=0.5, task_tokens="action"),
    grpo=replace(_DEMO.grpo, learning_rate=5e-5),
)

policy_preset = partial(find_preset, POLICY_PRESETS)
