"""The recipe's `train` section: what shape the adapter has, which stages train it, from where, and on what machine."""

from typing import Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pocketloop.contracts.parts import Part, Share

StageName = Literal["sft", "dpo", "kto", "reward", "ppo", "grpo", "rloo", "distill"]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)


class AdaLoraConfig(Part):
    """How AdaLoRA spends its ranks (Zhang et al., "AdaLoRA", ICLR 2023).

    Every module starts with rank `start_r` (default: one and a half times `lora.r`) and the average ends at `lora.r`.
    Ranks are given up between the shares `warmup` and 1 - `cooldown` of all steps. `orthogonality` weighs the term that
    keeps P and Q orthogonal.
    """

    start_r: int | None = Field(default=None, ge=1)
    warmup: Share = 0.1
    cooldown: Share = 0.3
    orthogonality: float = Field(default=0.5, ge=0)


class LoraConfig(Part):
    """The adapter's shape. `targets` is `all-linear` or a list of module names.

    `qlora` trains LoRA over the base in 4 bits (NF4, double quantization); `dora` trains magnitudes, too;
    `rank_stabilized` scales by alpha / sqrt(r) instead of alpha / r.
    """

    method: Literal["lora", "qlora", "adalora", "dora"] = "lora"
    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: Share = 0.05
    targets: Literal["all-linear"] | list[str] = "all-linear"
    rank_stabilized: bool = False
    adalora: AdaLoraConfig = AdaLoraConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> "LoraConfig":
        start = self.adalora.start_r
        if self.method == "adalora" and start is not None and start < self.r:
            raise ValueError(f"adalora.start_r {start} lies below r {self.r}, at which ranks end")
        if isinstance(self.targets, list) and not self.targets:
            raise ValueError("targets names no module")
        return self


class Schedule(Part):
    """What every stage has: how long, how fast, on sequences of how many tokens.

    `batch_size` sequences (or pairs, or answers) make an optimizer step. Held-out data is scored `evaluations` times an
    epoch and the best state is kept; after `patience` scores without a better one the stage stops (`null`: never).
    """

    epochs: float = Field(default=1, gt=0)
    learning_rate: float = Field(default=2e-4, gt=0)
    batch_size: int = Field(default=16, ge=1)
    max_length: int = Field(default=512, ge=16)
    warmup: Share = 0.03
    weight_decay: float = Field(default=0.0, ge=0)
    evaluations: int = Field(default=1, ge=1)
    patience: int | None = Field(default=None, ge=1)


class SftConfig(Schedule):
    """Supervised fine-tuning on the answers alone. `packing` puts several sequences into one row of `max_length`."""

    epochs: float = Field(default=3, gt=0)
    packing: bool = False


class DpoConfig(Schedule):
    """Direct preference optimization (Rafailov et al., 2023) on a release's pairs.

    `beta` bounds the divergence from the adapter before this stage; `anchor` weighs an SFT loss on the chosen answers.
    """

    learning_rate: float = Field(default=5e-5, gt=0)
    beta: float = Field(default=0.1, gt=0)
    anchor: float = Field(default=0.0, ge=0)


class KtoConfig(Schedule):
    """Kahneman-Tversky optimization (Ethayarajh et al., 2024) on single answers that people found good or bad."""

    learning_rate: float = Field(default=5e-5, gt=0)
    beta: float = Field(default=0.1, gt=0)


class RewardConfig(Schedule):
    """A reward model on a release's pairs (Bradley-Terry): an adapter of its own with a scalar head over the base."""

    learning_rate: float = Field(default=1e-4, gt=0)


class OnlineConfig(Schedule):
    """Stages that learn from their own answers, drawn at `temperature` with at most `max_new_tokens` tokens.

    `prompts` of the training split are used at most. The stage ends before the mean divergence from the adapter before
    it (nats an answer) passes `max_kl`.
    """

    learning_rate: float = Field(default=2e-5, gt=0)
    prompts: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=64, ge=1)
    max_kl: float = Field(default=10.0, gt=0)


class PpoConfig(OnlineConfig):
    """Proximal policy optimization (Schulman et al., 2017; Ouyang et al., 2022) against the reward model before it.

    `kl` is the price of a nat of divergence from the adapter before this stage.
    """

    kl: float = Field(default=0.05, ge=0)
    inner_epochs: int = Field(default=4, ge=1)
    clip: float = Field(default=0.2, gt=0)


class GroupConfig(OnlineConfig):
    """GRPO (Shao et al., 2024) or RLOO (Ahmadian et al., 2024): `samples` answers to each prompt are compared.

    `reward`: `verifier` checks the answer against the right one (calls, labels); `judge` asks `label.llm` (RLAIF);
    `model` is the reward model of an earlier stage.
    """

    reward: Literal["verifier", "judge", "model"] = "verifier"
    samples: int = Field(default=8, ge=2)
    beta: float = Field(default=0.02, ge=0)

    @model_validator(mode="after")
    def _steps_over_whole_groups(self) -> "GroupConfig":
        if self.batch_size % self.samples:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of samples {self.samples}")
        return self


class DistillConfig(Schedule):
    """Learning from a larger teacher that shares the base's tokenizer.

    `teacher` is a base (`configs/bases/NAME.yaml`), with the adapter in the folder `teacher_adapter` if given.
    `sequence` learns the teacher's own answers (Kim & Rush, 2016); `on_policy` matches its distribution on the
    student's answers (Agarwal et al., "On-Policy Distillation", 2024), with the generalized Jensen-Shannon divergence
    at `beta` (0: forward KL, 1: reverse KL).
    """

    teacher: str
    teacher_adapter: str | None = None
    mode: Literal["sequence", "on_policy"] = "on_policy"
    beta: Share = 0.5
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=64, ge=1)


class Stage(Part):
    """One training stage, named by its key."""

    sft: SftConfig | None = None
    dpo: DpoConfig | None = None
    kto: KtoConfig | None = None
    reward: RewardConfig | None = None
    ppo: PpoConfig | None = None
    grpo: GroupConfig | None = None
    rloo: GroupConfig | None = None
    distill: DistillConfig | None = None

    @model_validator(mode="after")
    def _is_one_stage(self) -> "Stage":
        named = [name for name in STAGE_NAMES if getattr(self, name) is not None]
        if len(named) != 1:
            known = ", ".join(STAGE_NAMES)
            raise ValueError(f"a stage has one key out of {known}; here are {', '.join(named) or 'none'}")
        return self

    @model_serializer(mode="wrap")
    def _only_its_key(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value is not None}

    @property
    def name(self) -> StageName:
        """Its key."""
        return next(name for name in STAGE_NAMES if getattr(self, name) is not None)

    @property
    def config(self) -> Schedule:
        """What stands under its key."""
        config: Schedule = getattr(self, self.name)
        return config


class Resources(Part):
    """Where training runs: so many processes, one for each GPU, spread evenly over machines, joined by accelerate.

    `fsdp` shards the base's weights over the processes, `ddp` gives each all of them. `nodes` machines share the home;
    `pocketloop train-node` waits on all but the one on which the run is.
    """

    processes: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    strategy: Literal["ddp", "fsdp"] = "ddp"

    @model_validator(mode="after")
    def _spread(self) -> "Resources":
        if self.processes % self.nodes:
            raise ValueError(f"processes {self.processes} cannot be spread evenly over nodes {self.nodes}")
        return self

    @property
    def processes_per_node(self) -> int:
        """How many run on one machine."""
        return self.processes // self.nodes


class Checkpoints(Part):
    """How often (seconds) a stage writes where it stands, and how many of these states are kept."""

    every_seconds: float = Field(default=120, ge=0)
    keep: int = Field(default=2, ge=1)


class TrainConfig(Part):
    """How the adapter is trained. `surrogates` fills placeholders with made-up values while training.

    `start: champion` goes on from the adapter that the fleet runs, on examples that it has not seen, plus old ones as
    a share `replay` of what is trained on; without a champion it starts from the base. `mix: balanced` repeats the
    examples of a rare role until every role (system text) is as frequent as the most frequent one.
    """

    start: Literal["base", "champion"] = "base"
    replay: float = Field(default=0.3, ge=0, lt=1)
    mix: Literal["as_is", "balanced"] = "as_is"
    lora: LoraConfig = LoraConfig()
    stages: list[Stage] = Field(default_factory=lambda: [Stage(sft=SftConfig())], min_length=1)
    surrogates: bool = True
    seed: int = 7
    resources: Resources = Resources()
    checkpoints: Checkpoints = Checkpoints()

    @model_validator(mode="after")
    def _stages_have_what_they_need(self) -> "TrainConfig":
        rewarded = False
        for number, stage in enumerate(self.stages):
            asks = isinstance(stage.config, GroupConfig) and stage.config.reward == "model"
            if (asks or stage.name == "ppo") and not rewarded:
                raise ValueError(f"stages.{number}.{stage.name} needs a `reward` stage before it")
            rewarded = rewarded or stage.name == "reward"
        if all(stage.name == "reward" for stage in self.stages):
            raise ValueError("a reward model alone trains no adapter: add a stage that does")
        return self
