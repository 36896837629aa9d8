"""The configuration of the main job and its presets, with the source of every default."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, get_args

from rwml_gym.agents.config.base import JobConfig, find_preset, one_of
from rwml_gym.agents.learning.options import CLIP_HIGHER, GRPOConfig, Placebo, SFTConfig, check_length, updates
from rwml_gym.agents.ranges import above, at_least, share, within
from rwml_gym.diagnostics.thresholds import Choice
from rwml_gym.errors import InvalidConfigError
from rwml_gym.reward.distances import DISTANCES, GapName
from rwml_gym.reward.gap import Measure, RewardShape
from rwml_gym.reward.nuisance import check_share
from rwml_gym.reward.views import VIEWS, ViewName

__all__ = ["PRESETS", "CollectConfig", "FilterConfig", "RWMLConfig", "StageConfig", "preset"]


@dataclass(frozen=True)
class CollectConfig:
    """Interaction learning: who plays how much.

    Attributes:
        games: Number of training games; 0 for all of a split that is not generated.
        held_out_games: Number of games that are only predicted, never trained on.
        rollouts: Episodes per training game (N in the paper: 3 on ALFWorld, 6 on τ²-bench); a held-out game has one.
        max_steps: Step budget of an episode (30 in the paper).
        temperature: Temperature of the model's actions (1.0 in the paper).
        random_share: Share of random actions: 0 in the paper, more for models that hardly know a command.
        slots: Episodes played side by side.
        action_tokens: Token limit of an action; 16 in games and 256 in customer service if absent.
    """

    games: int = 200
    held_out_games: int = 40
    rollouts: int = 3
    max_steps: int = 30
    temperature: float = 1.0
    random_share: float = 0.0
    slots: int = 16
    action_tokens: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "held_out_games", "rollouts", "max_steps", "slots", "action_tokens")
        at_least(self, 0, "games", "temperature")
        share(self, "random_share")


@dataclass(frozen=True)
class FilterConfig:
    """The filter of too-easy triplets, by attempts of the model fine-tuned on a share of them.

    Attributes:
        share: Share of the triplets for next-state SFT (0.1 in the paper); the rest are tried and trained on. 1 to
            fine-tune on all of them, and to try and train on the same ones.
        attempts: Predictions of each remaining triplet (10 in the paper).
        threshold: τ_d of the attempts, of the cosine; that of training if absent. The paper takes a smaller one (0.1
            beside 0.2 on ALFWorld, 0.15 beside 0.4 on τ²-bench). Tool results keep their measure.
        easy_rate: Pass rate from which a triplet is too easy (τ_easy); the mean reward if that is continuous. The paper
            can be read in two ways. "Consistently achieve high reward" in its text is about 0.9. Its table says 0.0,
            which here makes every triplet too easy that any attempt got right. One that no attempt got right never is.
        keep_easy: Probability of keeping a too-easy triplet (0.1 in the paper).
        keep_hard: Probability of keeping a triplet that no attempt got right. 1 in the paper; less spends a small
            budget on groups that can have a reward difference.
        min_rate: Pass rate below which none is kept; with `max_rate` a window around what can be learnt from.
        max_rate: Pass rate above which none is kept.
        refresh_every: Updates after which the model as it is by then tries the triplets again; 0 for never.
        limit: Maximal number of triplets that are tried, chosen at random; training leaves out the others. 0 for all.
    """

    share: float = 0.1
    attempts: int = 10
    threshold: float | None = None
    easy_rate: float = 0.9
    keep_easy: float = 0.1
    keep_hard: float = 1.0
    min_rate: float = 0.0
    max_rate: float = 1.0
    refresh_every: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "attempts")
        at_least(self, 0, "limit", "refresh_every")
        share(self, "easy_rate", "keep_easy", "keep_hard", "min_rate", "max_rate")
        within(self, 0, 1, "share")
        if self.min_rate > self.max_rate:
            raise InvalidConfigError(
                f"Expected a min_rate of at most max_rate, actual: {self.min_rate} and {self.max_rate}."
            )

    def too_easy(self, rate: float) -> bool:
        """Return whether a triplet with this pass rate is too easy."""
        return rate > 0 and rate >= self.easy_rate


@dataclass(frozen=True)
class StageConfig:
    """World-model GRPO: how many groups of what size, and when to save.

    Attributes:
        steps: Number of updates; 100 if neither it nor `epochs` is given.
        epochs: How often the triplets are gone through, instead of `steps`; see `updates`. Each epoch is shuffled anew.
        groups: Groups sampled per round, and groups with a reward difference wanted per update.
        group_size: Completions per group (G).
        rounds: Maximal number of sampling rounds per update: while too few groups have a reward difference, another
            round is sampled (DAPO's dynamic sampling). 1 turns that off.
        keep_prompts: Whether a prompt runs once for sampling and update, where that fits into memory. Faster where
            most groups have a reward difference, and takes the memory of a training pass over all sampled prompts. The
            gradient is the same within rounding; samples may differ where rounding decides.
        balance: Whether each update's prompts are spread evenly over the outcome types. A quarter of a random player's
            commands are refused, and "Nothing happens." need not be a quarter of the training.
        checkpoint_every: Updates between checkpoints, also of SFT.
        evaluate_every: Updates between predictions of the held-out transitions, of GRPO and of its baseline; 0 for none
            before the end. They show what is forgotten at equal reward. Each keeps its adapter, and the baseline the
            best one, `adapters/sft_same_time_best`.
    """

    steps: int | None = None
    epochs: float | None = None
    groups: int = 8
    group_size: int = 8
    rounds: int = 1
    keep_prompts: bool = False
    balance: bool = False
    checkpoint_every: int = 5
    evaluate_every: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "groups", "rounds", "checkpoint_every")
        at_least(self, 0, "steps", "evaluate_every")
        at_least(self, 2, "group_size")
        above(self, 0, "epochs")
        check_length(self.steps, self.epochs)
        if self.epochs is not None and self.rounds > 1:
            raise InvalidConfigError(
                f"Expected rounds of 1 with epochs, which show every triplet equally often, actual: {self.rounds}. Set "
                "rounds to 1, or steps instead of epochs."
            )

    def updates(self, size: int) -> int:
        """Return the number of updates on so many triplets."""
        return updates(self.steps, self.epochs, size, self.groups, 100)


@dataclass(frozen=True)
class RWMLConfig(JobConfig):
    """The main job: collect, calibrate, filter, train a world model with GRPO, evaluate.

    Attributes:
        max_new_tokens: Token limit of a prediction.
        show_policy: Whether prompts, of actions and of predictions, hold the rules that the agent plays by where the
            environment has some, as in the paper: τ²-bench's policy and tool schemas, 5,000 tokens and more.
        encoder: Frozen text encoder E (Qwen3-Embedding-8B in the paper).
        precision: Target precision of the calibrated threshold.
        calibration_pairs: Maximal pairs per perturbation in each half of the games; each costs an encoding.
        gap: Distance for words, a name of `DISTANCES`; not used with a judge.
        judge: Language model whose probability of No is the distance for words, in place of `gap`: a name or folder, or
            `base` for the model that is trained, without its adapter. It gets hacked, which is what it is here to show.
        reward: Reward of words: `binary`, as in the paper; `continuous` (1 - d), or `stepped` (1 - d in steps of 0.2).
        target_view: What of the results of tools is predicted, a name of `VIEWS`; their `schema` in the paper.
        threshold: τ_d for words (0.2 on ALFWorld and 0.4 on τ²-bench in the paper); chosen if absent, and 0.5 of a
            judge.
        threshold_by: How thresholds that are absent are chosen, see `diagnostics.thresholds`: `precision`; `paper`, by
            the filter's attempts; or `quantile`, carried over from another encoder.
        source_encoder: With `quantile`, the encoder that `source_threshold` belongs to.
        source_threshold: With `quantile`, τ_d of that encoder.
        tool_gap: Distance for tool results, a name of `DISTANCES`; the paper uses ROUGE for structured states.
        tool_threshold: τ_d of tool results; chosen if absent.
        tool_reward: `binary`, `continuous` (1 - d), or `stepped` (1 - d in steps of 0.2, as in the paper).
        collect: Interaction learning.
        sft: Next-state SFT, for the filter and the warm start.
        warm_start: Whether GRPO starts from the SFT model. The paper starts from the base model, but small base models
            have too few right predictions to learn from.
        filter: The filter of too-easy triplets.
        stage: Size and number of the GRPO updates.
        grpo: The GRPO update.
        baseline: Whether to train next-state SFT from the same start for the wall-clock time that GRPO took.
        max_held_out: Maximal number of held-out transitions that are predicted; 0 for all.
        batch_rows: Completions sampled side by side.
        placebo: What SFT and GRPO learn in place of the world's answers, as a control. The threshold, the lookup and
            what is held out are the world's.
        nuisance: Share of arbitrary parts in all states of training and held-out games, below 1, see `reward.nuisance`.
            The reward lets them pass.
        forgetting: Number of held-out prompts, and of pieces of general text, on which forgetting is measured, see
            `learning.forgetting`; 0 for none.
    """

    command: ClassVar[str] = "rwml"

    max_new_tokens: int = 96
    show_policy: bool = False
    encoder: str = "all-MiniLM-L6-v2"
    precision: float = 0.9
    calibration_pairs: int = 150
    gap: GapName = "cosine"
    judge: str | None = None
    reward: RewardShape = "binary"
    target_view: ViewName = "raw"
    threshold: float | None = None
    threshold_by: Choice = "precision"
    source_encoder: str | None = None
    source_threshold: float | None = None
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
    placebo: Placebo = "none"
    nuisance: float = 0.0
    forgetting: int = 16

    @property
    def predicts(self) -> bool:
        """Whether the trained model is a world model: always."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "history", "max_new_tokens", "batch_rows", "calibration_pairs")
        at_least(self, 0, "max_held_out", "forgetting")
        within(self, 0, 1, "precision")
        one_of(self, "placebo", get_args(Placebo))
        one_of(self, "gap", tuple(DISTANCES))
        one_of(self, "reward", get_args(RewardShape))
        one_of(self, "target_view", tuple(VIEWS))
        one_of(self, "threshold_by", get_args(Choice))
        within(self, 0, DISTANCES[self.gap].maximum, "threshold", "source_threshold")
        within(self.filter, 0, DISTANCES[self.gap].maximum, "threshold")
        source = (self.source_encoder, self.source_threshold)
        given, complete = source != (None, None), None not in source
        if given != (self.threshold_by == "quantile") or given != complete:
            raise InvalidConfigError(
                "Expected source_encoder and source_threshold with threshold_by 'quantile', and with no other, actual: "
                f"{self.threshold_by!r} with {source}. Give both, or change threshold_by."
            )
        self._check_judge()
        check_share(self.nuisance, "nuisance")
        if self.nuisance and self.target_view != "raw":
            raise InvalidConfigError(
                f"Expected the target view 'raw' with nuisance {self.nuisance}, actual: {self.target_view!r}. Remove "
                "one of the two: text with arbitrary words is no JSON."
            )
        if self.sft.mask_arbitrary and not self.nuisance:
            raise InvalidConfigError(
                "Expected nuisance above 0 with sft.mask_arbitrary, actual: 0. Give a share, or remove the mask: there "
                "is nothing to mask."
            )
        if self.stage.epochs is not None and self.filter.refresh_every:
            raise InvalidConfigError(
                f"Expected stage.steps with filter.refresh_every {self.filter.refresh_every}, actual: epochs "
                f"{self.stage.epochs}, of triplets that change meanwhile. Give stage.steps, or set refresh_every to 0."
            )
        if self.tool_threshold is not None:
            at_least(self, 0, "tool_threshold")
            Measure(self.tool_gap, self.tool_threshold, self.tool_reward)  # refuses a value out of the gap's range

    def _check_judge(self) -> None:
        if self.judge is None:
            return
        within(self, 0, 1, "threshold")
        within(self.filter, 0, 1, "threshold")
        if not self.judge or self.threshold_by != "precision":
            raise InvalidConfigError(
                f"Expected the name of a judge, and no other way to choose its threshold, actual: {self.judge!r} with "
                f"threshold_by {self.threshold_by!r}. Give --judge base, and --threshold where 0.5 does not fit."
            )


_SMOKE: dict[str, Any] = dict(
    sft=SFTConfig(steps=2, batch_size=4),
    warm_start=True,
    filter=FilterConfig(share=0.3, attempts=2, limit=6),
    stage=StageConfig(steps=2, groups=2, group_size=4, checkpoint_every=1),
)

# What the paper's presets share. A LoRA adapter needs about ten times the learning rate of all weights ("LoRA Without
# Regret", Schulman et al. 2025), so ten times the paper's 1e-6 for GRPO and 2e-6 for SFT.
_PAPER: dict[str, Any] = dict(
    prompt_style="chat",
    encoder="Qwen/Qwen3-Embedding-8B",
    sft=SFTConfig(epochs=2, batch_size=32, learning_rate=2e-5),
    grpo=GRPOConfig(loss_type="grpo", learning_rate=1e-5),
    baseline=False,
)

PRESETS: dict[str, RWMLConfig] = {
    # `make demo`: everything for real, within an hour on two cores. Deviations from the paper for the sake of a
    # 135 M-parameter model: three quarters of the actions are random admissible ones; SFT goes on all transitions,
    # evenly over the outcome types, until it flattens, and GRPO starts from it; four attempts a triplet, of which GRPO
    # takes what is right now and then; names and numbers must agree, which the small encoder does not see.
    "demo": RWMLConfig(
        calibration_pairs=50,
        sft=SFTConfig(steps=80, decay=0.1, balance=True),
        warm_start=True,
        batch_rows=96,
        history=2,
        gap="entities",
        max_prompt_tokens=384,
        max_new_tokens=64,
        collect=CollectConfig(
            games=64, held_out_games=40, rollouts=1, max_steps=15, random_share=0.75, slots=32, action_tokens=16
        ),
        filter=FilterConfig(share=1.0, attempts=4, min_rate=0.2, max_rate=0.8, limit=200),
        stage=StageConfig(steps=16, groups=12, checkpoint_every=4),
        grpo=GRPOConfig(beta=0.0),
        max_held_out=240,
    ),
    # The paper's settings, line by line; `config.paper` has the paper's table and why some values differ. Needs GPUs, a
    # model hub and the official games; not run here.
    "paper-alfworld": RWMLConfig(
        **_PAPER,
        model="Qwen/Qwen2.5-7B-Instruct",
        max_prompt_tokens=4096,
        max_new_tokens=512,
        threshold=0.2,
        split="train",
        collect=CollectConfig(games=2048, held_out_games=140, rollouts=3, action_tokens=64, slots=64),
        filter=FilterConfig(threshold=0.1),
        stage=StageConfig(epochs=2, groups=32, group_size=8),
    ),
    # The same on τ²-bench's retail, results of tools as their schema. Nine in ten actions are a random caller's, as the
    # model can hardly write a call; the rules and what the user knows about himself take 300 tokens of a prompt.
    "demo-tau2": RWMLConfig(
        calibration_pairs=50,
        sft=SFTConfig(steps=80, decay=0.1, balance=True),
        warm_start=True,
        batch_rows=96,
        env="tau2",
        history=2,
        gap="entities",
        target_view="schema",
        max_prompt_tokens=832,
        max_state_characters=400,
        max_new_tokens=256,
        collect=CollectConfig(
            games=74, held_out_games=40, rollouts=1, max_steps=12, random_share=0.9, slots=38, action_tokens=48
        ),
        filter=FilterConfig(share=1.0, attempts=4, min_rate=0.2, max_rate=0.8, limit=200),
        stage=StageConfig(steps=16, groups=12, checkpoint_every=4),
        grpo=GRPOConfig(beta=0.0),
        max_held_out=240,
    ),
    "paper-tau2": RWMLConfig(
        **_PAPER,
        env="tau2",
        domain="all",
        split="train",
        model="Qwen/Qwen3-8B",
        max_prompt_tokens=16_384,
        max_new_tokens=1024,
        show_policy=True,
        target_view="schema",
        threshold=0.4,
        tool_reward="stepped",
        collect=CollectConfig(games=178, held_out_games=100, rollouts=6, action_tokens=512, slots=64),
        filter=FilterConfig(threshold=0.15),
        stage=StageConfig(epochs=2, groups=32, group_size=16),
    ),
    # The whole job in about a minute, to see that an installation works; its numbers mean nothing.
    "smoke": RWMLConfig(
        **_SMOKE,
        max_prompt_tokens=256,
        max_new_tokens=24,
        collect=CollectConfig(games=4, held_out_games=3, rollouts=1, max_steps=6, random_share=0.9, slots=4),
        max_held_out=8,
    ),
    "smoke-tau2": RWMLConfig(
        **_SMOKE,
        env="tau2",
        max_prompt_tokens=320,
        max_state_characters=300,
        max_new_tokens=32,
        calibration_pairs=20,
        tool_reward="continuous",
        collect=CollectConfig(
            games=8, held_out_games=4, rollouts=1, max_steps=8, random_share=0.95, slots=8, action_tokens=24
        ),
        max_held_out=12,
    ),
}

PRESETS["demo-clip-higher"] = replace(PRESETS["demo"], grpo=CLIP_HIGHER)

preset = partial(find_preset, PRESETS)
