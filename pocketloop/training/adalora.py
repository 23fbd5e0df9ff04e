"""AdaLoRA: ranks go to the modules that need them (Zhang et al., "Adaptive Budget Allocation", ICLR 2023).

A module's update is P diag(E) Q with P [out, r], E [r], Q [r, in] (peft: `lora_B`, `lora_E`, `lora_A`). While training,
the triplets of least importance are given up until the budget of ranks is reached; a term in the loss keeps P and Q
orthogonal, without which E would not order the triplets. Afterwards `fold` writes what is left as a plain LoRA.
"""

from functools import cache
from typing import Any

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.training import LoraConfig, TrainConfig
from pocketloop.training.adapters import ADAPTER

_ALLOCATIONS = 100
_UNKNOWN_STEPS = 1 << 40


def new_adalora(model: Any, lora: LoraConfig) -> Any:
    """A peft model over `model` whose modules all have the rank to begin with and change nothing yet.

    The schedule of the ranks is set when the number of steps is known.
    """
    from peft import AdaLoraConfig, get_peft_model

    start = start_rank(lora)
    # peft scales by alpha / start; `rank_stabilized` asks for alpha / sqrt(start)
    alpha = lora.alpha * start**0.5 if lora.rank_stabilized else lora.alpha
    made = get_peft_model(
        model,
        AdaLoraConfig(
            init_r=start,
            target_r=lora.r,
            lora_alpha=alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            orth_reg_weight=lora.adalora.orthogonality,
            total_step=_UNKNOWN_STEPS,
            task_type="CAUSAL_LM",
        ),
    )
    for name, parameter in made.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad = False  # peft counts with it, does not save it, and yet would train it
    return made


def start_rank(lora: LoraConfig) -> int:
    """Every module's rank before any is given up."""
    return lora.adalora.start_r or -(-3 * lora.r // 2)


def is_adalora(model: Any) -> bool:
    """Whether the adapter being trained is AdaLoRA's."""
    config = getattr(model, "peft_config", {}).get(ADAPTER)
    return config is not None and config.peft_type == "ADALORA"


def check_first_stage(training: TrainConfig) -> None:
    """Refuse AdaLoRA where ranks would never be given up.

    Raises:
        ConfigError: the stage that trains the adapter first is `ppo`, whose loop has no place for it.
    """
    first = next(number for number, stage in enumerate(training.stages) if stage.name != "reward")
    if training.lora.method == "adalora" and training.stages[first].name == "ppo":
        raise ConfigError(
            f"train.stages.{first}.ppo: AdaLoRA gives up its ranks in the first stage, which ppo cannot do: put `sft` "
            "before it, or set train.lora.method to lora"
        )


def orthogonality(model: Any) -> Any:
    """Mean over all P and Q of ||P'P - I|| and ||QQ' - I|| (Frobenius): the paper's R(P, Q), a scalar with gradient."""
    import torch

    norms = []
    for name, factor in model.named_parameters():
        if f"lora_A.{ADAPTER}" in name or f"lora_B.{ADAPTER}" in name:
            gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
            norms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype)))
    return torch.stack(norms).mean()


def add_orthogonality(trainer: Any, weight: float) -> list[float]:
    """Add `weight` times the orthogonality term to the loss that `trainer` learns from (not to the held-out one).

    On the instance, since every stage has a trainer class of its own and all of them call `compute_loss`. The list
    that is returned gets what was added, step by step.
    """
    compute_loss = trainer.compute_loss
    added: list[float] = []

    def with_orthogonality(model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
        result = compute_loss(model, inputs, return_outputs=return_outputs, **more)
        if not model.training:
            return result
        term = weight * orthogonality(trainer.accelerator.unwrap_model(model))
        added.append(float(term.detach()))
        return (result[0] + term, *result[1:]) if isinstance(result, tuple) else result + term

    trainer.compute_loss = with_orthogonality
    return added


@cache
def rank_callback_class() -> type[Any]:
    """A `TrainerCallback` that gives up ranks after every optimizer step, as peft's `update_and_allocate` does.

    `added` is what `add_orthogonality` returned.
    """
    from transformers import TrainerCallback

    class RankCallback(TrainerCallback):
        def __init__(self, model: Any, lora: LoraConfig, added: list[float]) -> None:
            self.model = model
            self.lora = lora
            self.added = added
            self.pattern: dict[str, list[bool]] | None = None

        @property
        def config(self) -> Any:
            return self.model.peft_config[ADAPTER]

        @property
        def allocator(self) -> Any:
            return self.model.base_model.rankallocator

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            steps = state.max_steps
            self.config.total_step = steps
            self.config.tinit = int(self.lora.adalora.warmup * steps)
            self.config.tfinal = min(int(self.lora.adalora.cooldown * steps), steps - 1 - self.config.tinit)
            self.config.deltaT = max(1, steps // _ALLOCATIONS)

        def is_settled(self, step: int) -> bool:
            """Whether no more ranks are given up after `step`: a state before that is over the budget."""
            return bool(step >= self.config.total_step - self.config.tfinal)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.allocator.init_bgt == self.allocator.target_bgt:
                return
            # peft would cut tensors to the pattern in its configuration whenever it saves or loads them
            self.config.rank_pattern = self.pattern
            self.model.base_model.update_and_allocate(state.global_step + 1)
            self.pattern, self.config.rank_pattern = self.config.rank_pattern, None

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            """Tell the term apart from the loss, which is in nats as everywhere else."""
            if not self.added or "loss" not in (logs or {}):
                return
            term = sum(self.added) / len(self.added)
            self.added.clear()
            for told in (logs, state.log_history[-1]):
                told["loss"] -= term
                told["orthogonality"] = term

        def tensors(self) -> dict[str, Any]:
            """The smoothed importance of every weight: what the next allocation needs."""
            kept = {"ipt": self.allocator.ipt, "avg": self.allocator.exp_avg_ipt, "unc": self.allocator.exp_avg_unc}
            tensors = {f"{kind}|{name}": tensor for kind, by in kept.items() for name, tensor in by.items()}
            if self.pattern is not None:
                import torch

                tensors |= {f"kept|{name}": torch.tensor(mask) for name, mask in self.pattern.items()}
            return tensors

        def restore(self, tensors: dict[str, Any]) -> None:
            """Go on from what `tensors` gave."""
            kinds: dict[str, dict[str, Any]] = {"ipt": {}, "avg": {}, "unc": {}, "kept": {}}
            device = next(self.model.parameters()).device
            for key, tensor in tensors.items():
                kind, _, name = key.partition("|")
                kinds[kind][name] = tensor.to(device)
            self.allocator.ipt = kinds["ipt"]
            self.allocator.exp_avg_ipt, self.allocator.exp_avg_unc = kinds["avg"], kinds["unc"]
            self.pattern = {name: mask.tolist() for name, mask in kinds["kept"].items()} or None

    return RankCallback


def fold(model: Any) -> tuple[Any, dict[str, int]]:
    """A plain LoRA over the same base that computes the same, and each module's rank.

    peft's AdaLoRA computes x Q' diag(E) P' * alpha / (start + 1e-5): the factors become A = diag(E) Q and B = P without
    the triplets whose E is zero, and each module's alpha keeps the scale. A module without any rank gets no adapter.
    """
    import torch
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model
    from peft.tuners.adalora import AdaLoraLayer

    config = model.peft_config[ADAPTER]
    factors: dict[str, tuple[Any, Any]] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for name, layer in model.get_base_model().named_modules():
        if not isinstance(layer, AdaLoraLayer):
            continue
        kept = layer.lora_E[ADAPTER].detach().flatten() != 0
        ranks[name] = int(kept.sum())
        if ranks[name]:
            scaled = layer.lora_A[ADAPTER].detach() * layer.lora_E[ADAPTER].detach()
            factors[name] = scaled[kept].clone(), layer.lora_B[ADAPTER].detach()[:, kept].clone()
            alphas[name] = float(layer.scaling[ADAPTER] / (layer.ranknum[ADAPTER].detach() + 1e-5)) * ranks[name]
    folded = get_peft_model(
        model.unload(),
        PeftLora(
            r=config.target_r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=sorted(factors),
            rank_pattern={name: ranks[name] for name in factors},
            alpha_pattern=alphas,
            task_type="CAUSAL_LM",
        ),
    )
    with torch.no_grad():
        for name, (a, b) in factors.items():
            layer = folded.get_base_model().get_submodule(name)
            layer.lora_A[ADAPTER].weight.copy_(a)
            layer.lora_B[ADAPTER].weight.copy_(b)
    return folded, ranks
