"""The configuration of the main job, its presets, and where every default comes from."""

from __future__ import annotations

from dataclasses import dataclass, field

from rwml_gym.agents.config.base import JobConfig, at_least, find_preset, share
from rwml_gym.agents.learning.options import GRPOConfig, SFTConfig
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import GapName
from rwml_gym.reward.gap import Measure, RewardShape

__all__ = ["PRESETS", "CollectConfig", "FilterConfig", "RWMLConfig", "StageConfig", "preset"]


@dataclass(frozen=True)
class CollectConfig:
    """Interaction learning: who plays how much.

    Attributes:
        games: Training games.
        held_out_games: Games that are only predicted, never trained on.
        rollouts: Episodes a training game (the paper's N: 3 on ALFWorld, 6 on τ²-bench); one a held-out game.
        max_steps: Step budget of an episode (30 in the paper).
        temperature: Of the model's actions (1.0 in the paper).
        random_share: Share of random actions, admissible ones or a random caller's; 0 in the paper, more for models
            that hardly know a command.
        slots: Episodes played side by side.
        action_tokens: Longest action of the model; a command of ALFWorld is short, a tool call is not.
        show_policy: Whether the model is shown τ²-bench's policy when it acts: 2,000 tokens and more.
    """

    games: int = 200
    held_out_games: int = 40
    rollouts: int = 3
    max_steps: int = 30
    temperature: float = 1.0
    random_share: float = 0.0
    slots: int = 16
    action_tokens: int = 16
    show_policy: bool = False

    def __post_init__(self) -> None:
        at_least(self, 1, "games", "held_out_games", "rollouts", "max_steps", "slots", "action_tokens")
        at_least(self, 0, "temperature")
        share(self, "random_share")


@dataclass(frozen=True)
class FilterConfig:
    """Dropping of too-easy triplets, by attempts of the model fine-tuned on a share of them.

    Attributes:
        share: Share of the triplets for next-state SFT (0.1 in the paper); the rest are tried, and trained on.
        attempts: Predictions of each remaining triplet (10 in the paper).
        easy_rate: Success rate from which a triplet is too easy ("almost always"); mean reward where that is
            continuous.
        keep_easy: Probability of keeping a too-easy triplet (0.1 in the paper).
        keep_hard: Probability of keeping one that no attempt got right. 1 in the paper; less spends a small budget on
            groups that can have a reward difference.
        limit: Most triplets that are tried, chosen at random; the others are left out of training. 0 for no limit.
    """

    share: float = 0.1
    attempts: int = 10
    easy_rate: float = 0.9
    keep_easy: float = 0.1
    keep_hard: float = 1.0
    limit: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "attempts")
        at_least(self, 0, "limit")
        share(self, "share", "easy_rate", "keep_easy", "keep_hard")
        if not 0 < self.share < 1:
            raise InvalidConfigError(f"Expected a share above 0 and below 1, actual {self.share}")


@dataclass(frozen=True)
class StageConfig:
    """World-model GRPO: how many groups of what size, and when to save.

    Sampling is at temperature 1.0, as in the paper: the update's ratio is that of the untempered policy.

    Attributes:
        steps: Updates.
        groups: Groups with reward difference wanted an update.
        group_size: Completions a group (G).
        rounds: Most rounds of sampling `groups` prompts for one update: as long as too few groups have a reward
            difference, others are sampled (DAPO's dynamic sampling). 1 for none.
        checkpoint_every: Updates between checkpoints, of SFT too.
    """

    steps: int = 100
    groups: int = 8
    group_size: int = 8
    rounds: int = 1
    checkpoint_every: int = 5

    def __post_init__(self) -> None:
        at_least(self, 1, "groups", "rounds", "checkpoint_every")
        at_least(self, 0, "steps")
        at_least(self, 2, "group_size")


@dataclass(frozen=True)
class RWMLConfig(JobConfig):
    """The main job: collect, calibrate, filter, train a world model with GRPO, evaluate.

    Attributes:
        max_new_tokens: Longest prediction.
        encoder: Frozen text encoder E (Qwen3-Embedding-8B in the paper).
        precision: Wanted precision of the calibrated threshold.
        calibration_pairs: Most pairs of a kind in each half of the games; they cost an encoding each.
        threshold: τ_d of the cosine; calibrated from the training transitions if absent.
        tool_gap: How predicted tool results are measured; the paper takes ROUGE where the state is structured.
        tool_threshold: τ_d of tool results; calibrated if absent.
        tool_reward: `binary`, as the paper's reward, or `continuous`, 1 - d, from which models learn that get no long
            result right word for word.
        collect: Interaction learning.
        sft: Next-state SFT for the filter, and of the warm start.
        warm_start: Whether GRPO starts from the SFT model. The paper starts from the model as it is; small models then
            have too few right predictions to learn from.
        filter: Dropping of too-easy triplets.
        stage: World-model GRPO.
        grpo: Its update.
        baseline: Also train next-state SFT for the wall-clock time that GRPO took, from the same start.
        max_held_out: Most held-out transitions that are predicted; 0 for all.
        batch_rows: Completions written at a time.
    """

    max_new_tokens: int = 96
    encoder: str = "all-MiniLM-L6-v2"
    precision: float = 0.9
    calibration_pairs: int = 150
    threshold: float | None = None
    tool_gap: GapName = "rouge"
    tool_threshold: float | None = None
    tool_reward: RewardShape = "binary"
    collect: CollectConfig = field(default_factory=CollectConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    warm_start: bool = False
    filter: FilterConfig = field(default_factory=FilterConfig)
    stage: StageConfig = field(default_factory=StageConfig)
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    baseline: bool = True
    max_held_out: int = 0
    batch_rows: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "history", "max_new_tokens", "batch_rows")
        at_least(self, 0, "max_held_out")
        if self.threshold is not None and not 0 < self.threshold <= 2:
            raise InvalidConfigError(f"Expected a threshold above 0 and at most 2, actual {self.threshold}")
        if self.tool_threshold is not None:
            Measure(self.tool_gap, self.tool_threshold, self.tool_reward)  # refuses what is out of the gap's range


PRESETS: dict[str, RWMLConfig] = {
    # `make demo`: everything for real, within 20 minutes on two cores. Deviations from the paper, each for the sake of
    # a 135 M-parameter model: three quarters of the actions are random admissible ones, the SFT share is larger and
    # GRPO starts from it, four attempts a triplet, and triplets nobody got right are mostly left out.
    "demo": RWMLConfig(
        max_prompt_tokens=384,
        max_new_tokens=64,
        calibration_pairs=50,
        collect=CollectConfig(games=64, held_out_games=40, rollouts=1, max_steps=15, random_share=0.75, slots=32),
        sft=SFTConfig(steps=40),
        warm_start=True,
        filter=FilterConfig(share=0.25, attempts=4, easy_rate=1.0, keep_hard=0.1, limit=320),
        stage=StageConfig(steps=14, groups=12, checkpoint_every=4),
        max_held_out=420,
        batch_rows=96,
    ),
    # The paper's numbers for ALFWorld. Needs a GPU and a model hub; written down for reference, not run here.
    "paper-alfworld": RWMLConfig(
        model="Qwen/Qwen2.5-7B-Instruct",
        prompt_style="chat",
        max_prompt_tokens=4096,
        max_new_tokens=512,
        encoder="Qwen/Qwen3-Embedding-8B",
        split="train",
        collect=CollectConfig(games=3_000),
    ),
    # The same for τ²-bench on two cores. Deviations from the paper beside those of `demo`: nine in ten actions are a
    # random caller's, as the model can hardly write a call; tool results are rewarded continuously, and states are cut.
    "demo-tau2": RWMLConfig(
        env="tau2",
        max_prompt_tokens=448,
        max_state_characters=400,
        max_new_tokens=96,
        calibration_pairs=50,
        tool_reward="continuous",
        collect=CollectConfig(
            games=74, held_out_games=40, rollouts=1, max_steps=12, random_share=0.9, slots=38, action_tokens=48
        ),
        sft=SFTConfig(steps=40),
        warm_start=True,
        filter=FilterConfig(share=0.25, attempts=4, easy_rate=0.95, keep_hard=0.1, limit=200),
        stage=StageConfig(steps=10, groups=8, checkpoint_every=4),
        max_held_out=240,
        batch_rows=96,
    ),
    # The paper's numbers for τ²-bench, as far as they are known; not run here.
    "paper-tau2": RWMLConfig(
        env="tau2",
        model="Qwen/Qwen3-8B",
        prompt_style="chat",
        max_prompt_tokens=8192,
        max_new_tokens=1024,
        encoder="Qwen/Qwen3-Embedding-8B",
        collect=CollectConfig(games=74, held_out_games=40, rollouts=6, action_tokens=512, show_policy=True),
    ),
    # The whole job in about a minute, to see that an installation works; its numbers mean nothing.
    "smoke": RWMLConfig(
        max_prompt_tokens=256,
        max_new_tokens=24,
        collect=CollectConfig(games=4, held_out_games=3, rollouts=1, max_steps=6, random_share=0.9, slots=4),
        sft=SFTConfig(steps=2, batch_size=4),
        warm_start=True,
        filter=FilterConfig(share=0.3, attempts=2, limit=6),
        stage=StageConfig(steps=2, groups=2, group_size=4, checkpoint_every=1),
        max_held_out=8,
    ),
    "smoke-tau2": RWMLConfig(
        env="tau2",
        max_prompt_tokens=320,
        max_state_characters=300,
        max_new_tokens=32,
        calibration_pairs=20,
        tool_reward="continuous",
        collect=CollectConfig(
            games=8, held_out_games=4, rollouts=1, max_steps=8, random_share=0.95, slots=8, action_tokens=24
        ),
        sft=SFTConfig(steps=2, batch_size=4),
        warm_start=True,
        filter=FilterConfig(share=0.3, attempts=2, limit=6),
        stage=StageConfig(steps=2, groups=2, group_size=4, checkpoint_every=1),
        max_held_out=12,
    ),
}


def preset(name: str) -> RWMLConfig:
    """A preset by name.

    Raises:
        InvalidConfigError: There is none of that name.
    """
    return find_preset(PRESETS, name)
