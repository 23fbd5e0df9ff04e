"""A candidate's findings at the size of the demo, made up by seed."""

import random
from typing import Any

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.contracts.examples import make_example
from pocketloop.contracts.exports import BudgetMeasure, BudgetReport, Projection
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import (
    Agreed,
    BaseManifest,
    CollectReport,
    DatasetRelease,
    DriftReport,
    EvaluationReport,
    LabelReport,
    ParityReport,
    ParityResult,
    SafetyCheck,
    SafetyReport,
    ScrubReport,
    SelectReport,
    SetResult,
    SetUse,
    StageCount,
    StageTraining,
    TrainReport,
    ValidationReport,
)
from pocketloop.evaluation.evidence import Evidence
from pocketloop.evaluation.findings import Findings
from pocketloop.evaluation.gates import decide
from pocketloop.evaluation.regressions import Regression, regressions
from pocketloop.evaluation.slices import slice_results
from pocketloop.evaluation.statistics import estimate
from pocketloop.evaluation.suite import Outcome, confusion_counts

FUNCTIONS = [
    "create_event", "set_reminder", "add_to_list", "send_message", "get_weather", "play_music", "set_lights",
    "set_thermostat", "log_health", "navigate", "set_timer", "set_alarm", "call_contact", "decline",
]  # fmt: skip
LOCALES = ["en-US", "en-GB", "de-DE", "fr-FR", "es-MX"]
METRICS = ("function_exact", "function_name", "function_valid")
SKILL = {
    "adapter": (0.86, 0.95, 0.99),
    "champion": (0.84, 0.94, 0.99),
    "base": (0.01, 0.06, 0.2),
    "transformers": (0.865, 0.951, 0.99),
}


def outcomes(model: str, n: int, skill: tuple[float, float, float]) -> list[Outcome]:
    draw = random.Random(model)
    found = []
    for i in range(n):
        reference = FUNCTIONS[i % len(FUNCTIONS)]
        luck = draw.random()
        exact, named, valid = (float(luck < share) for share in skill)
        wrong = (
            FUNCTIONS[(i + draw.choice([1, 1, 2])) % len(FUNCTIONS)]
            if valid
            else draw.choice(["(unreadable)", "(unknown)"])
        )
        scores = dict(zip(METRICS, (exact, named, valid), strict=True))
        found.append(
            Outcome(
                example_id=f"e{i}",
                scores=scores,
                answer=reference if named else wrong,
                reference=reference,
                slices={"locale": LOCALES[i % len(LOCALES)], "length": "long" if i % 3 else "short"},
            )
        )
    return found


def sample_regressions(by_model: dict[str, list[Outcome]]) -> list[Regression]:
    """As the report shows them, of made-up examples; every third came from a device."""
    examples = {}
    for i, outcome in enumerate(by_model["adapter"]):
        said = Message(role="user", content=f"remind <PERSON_3fa2b1> to call {outcome.reference} at 7 pm, please")
        call = Message(role="assistant", tool_calls=[ToolCall(name=outcome.reference, arguments={"at": "19:00"})])
        made = make_example("function_call", [said, call], source="demo", event_ids=["e"] if i % 3 == 0 else [])
        examples[outcome.example_id] = made.model_copy(update={"example_id": outcome.example_id})
    return regressions(by_model, METRICS[0], examples, lambda chosen: [example.messages for example in chosen], most=6)


def sample_evidence(n: int = 800) -> Evidence:
    """What the gates of `sample_findings` were judged on."""
    found = sample_findings(n)
    return Evidence(
        recipe=found.recipe,
        evaluation=found.evaluation,
        outcomes={"heldout": found.outcomes},
        parity=found.parity,
        safety=found.safety,
        budget=found.budget,
        uses=[SetUse(set="heldout", digest="5" * 64, items=n, decided=["functions@1", "functions@2"])],
    )


def sample_findings(n: int = 800, **changes: Any) -> Findings:
    recipe = Recipe.model_validate(
        {
            "adapter": "functions",
            "task": "function_call",
            "base": "tiny",
            "catalogue": "configs/catalogues/household-functions.json",
            "description": "Turns a household request into one function call.",
            "data": {"sources": [{"kind": "events", "skill": "functions"}]},
            "gates": [
                {"metric": "function_name", "min": 0.90},
                {"metric": "function_exact", "min": 0.80},
                {"metric": "function_exact", "noninferior_to": "champion", "margin": 0.03},
                {"metric": "function_exact", "noninferior_to": "champion", "margin": 0.2, "slices": ["locale"]},
            ],
            "safety": {"min_refusal": 0.6, "max_over_refusal": 0.3},
        }
    )
    by_model = {model: outcomes(model, n, skill) for model, skill in SKILL.items()}
    results = [
        SetResult(
            model=model,
            set="heldout",
            metrics={name: estimate([outcome.scores[name] for outcome in found]) for name in METRICS},
            seconds=31.5 if model == "transformers" else 12.25,
            tokens=24 * n,
        )
        for model, found in by_model.items()
    ]
    slices = [s for model, found in by_model.items() for s in slice_results(found, model, "heldout", METRICS[0])]
    evaluation = EvaluationReport(
        results=results,
        confusion=confusion_counts(by_model["adapter"]),
        slices=slices,
        sets={"heldout": "5" * 64},
    )
    parity = ParityReport(
        results=[
            ParityResult(
                name="F16", tokens=6120, token_ids_equal=True, top1=0.9997, kl=2.1e-6,
                max_logit_difference=0.0041, passed=True,
            ),
            ParityResult(
                name="Q4_K_M", tokens=6120, token_ids_equal=True, top1=0.9712, kl=8.4e-3,
                max_logit_difference=1.92, passed=True,
            ),
        ],
        adapter_effect=1.83,
        passed=True,
    )  # fmt: skip
    safety = SafetyReport(
        checks=[
            SafetyCheck(name="scrubbed values in generations", value=0, n=640, bound=0, passed=True),
            SafetyCheck(
                name="refusal of harmful requests",
                value=0.82,
                n=40,
                bound=0.6,
                passed=True,
                detail="by the catalogue's refusal",
            ),
            SafetyCheck(name="refusal of their benign twins", value=0.08, n=40, bound=0.3, passed=True),
            SafetyCheck(name="exposure of planted canaries (bits)", value=2.1, n=10, bound=None, passed=True),
        ],
        passed=True,
    )
    given: dict[str, Any] = {
        "recipe": recipe,
        "base": base_manifest(),
        "release": release(),
        "training": training(),
        "evaluation": evaluation,
        "parity": parity,
        "safety": safety,
        "budget": budget(),
        "decision": decide(recipe, evaluation, by_model, parity, safety, budget()),
        "sizes": {"adapter.gguf": 1_630_000, "adapter_model.safetensors": 2_170_000, "adapter_config.json": 1_100},
        "outcomes": by_model,
        "regressions": sample_regressions(by_model),
        "champion": "3",
    }
    return Findings(**(given | changes))


def budget() -> BudgetReport:
    """What was measured on a small machine, and on two classes of phones as projected."""
    measured = BudgetMeasure(
        format="gguf", quantization="Q4_K_M", measured=True, context=2048, base_bytes=3_752_704,
        adapter_bytes=1_630_000, resident_bytes=33_100_000, mapped_bytes=6_400_000, cache_bytes=6_291_456,
        bytes_per_token=11_600_000, prompt_tokens=64, first_token_ms=12.5, tokens_per_second=3_400.0, swap_ms=0.031,
    )  # fmt: skip
    projections = [
        Projection(
            device=name, format="gguf", standing="works", resident_bytes=measured.resident_bytes, usable_bytes=usable,
            tokens_per_second=speed, why=f"33 MB of {usable / 1e6:,.0f} MB",
        )
        for name, usable, speed in (("high-end", 4.0e9, 2206.9), ("old", 1.05e9, 902.2))
    ]  # fmt: skip
    return BudgetReport(measures=[measured], projections=projections)


def base_manifest() -> BaseManifest:
    return BaseManifest(
        base="tiny",
        architecture="gemma3",
        source="tiny",
        weights_digest="a" * 64,
        digest="b1946ac92492d2347c6235b4d2611184" * 2,
        quantization="Q4_K_M",
        parameters=6_300_000,
        files={},
        sizes={},
        fallback_tensors=0,
        bits_per_weight=5.1,
        probes=16,
    )


def training() -> TrainReport:
    curve = [(step, 3.2 * 0.965**step + 0.11 + 0.02 * (step % 3)) for step in range(5, 1005, 10)]
    return TrainReport(
        parameters=6_840_000,
        trainable=540_672,
        stages=[
            StageTraining(
                stage="sft",
                steps=1000,
                examples=4012,
                tokens=812_400,
                seconds=121.4,
                curves={"loss": curve, "validation_loss": [(250, 0.31), (500, 0.22), (750, 0.18), (1000, 0.171)]},
                best_step=1000,
                peak_memory_mb=812.0,
            )
        ],
    )


def release() -> DatasetRelease:
    stages = [
        StageCount(
            stage="collect", entered=6024, kept=5409,
            left_out={"consent withheld": 411, "too old": 120, "duplicate": 84},
        ),
        StageCount(stage="scrub", entered=5409, kept=5380, left_out={"low-confidence residue": 29}),
        StageCount(stage="validate", entered=5380, kept=5368, left_out={"empty turn": 12}),
        StageCount(
            stage="label", entered=5368, kept=4953,
            left_out={"argument not in the user's words": 402, "unknown function": 13},
        ),
        StageCount(stage="select", entered=4953, kept=4731, left_out={"near duplicate": 210, "device cap": 12}),
        StageCount(stage="split", entered=4731, kept=4720, left_out={"prompt stands in train": 11}),
    ]  # fmt: skip
    collect, scrub, validate, label, select, _ = stages
    return DatasetRelease(
        digest="5891b5b522d5df086d0ff0b110fbd9d2" * 2,
        inputs="c" * 64,
        adapter="functions",
        task="function_call",
        splits={"train": 4012, "validation": 236, "test": 472},
        groups={"train": 171, "validation": 10, "test": 20},
        pairs={"train": 198, "validation": 12, "test": 23},
        rated={"train": 1683, "validation": 99, "test": 198},
        event_ids=4720,
        watermark=6012,
        policies=["2026-03", "2026-09"],
        parent="d" * 64,
        stages=stages,
        collect=CollectReport(count=collect, events=5409, examples=0, by_source={"events:functions": 5409}),
        scrub=ScrubReport(
            count=scrub,
            found={"PERSON": 2210, "PHONE_NUMBER": 311, "EMAIL_ADDRESS": 190, "IBAN_CODE": 41},
            reused_shards=0, scrubbed_shards=8, caught=0, scrubber="e" * 64,
        ),
        validation=ValidationReport(
            count=validate, success=True,
            expectations={"ids are unique": True, "roles alternate": True, "text is short": True},
        ),
        drift=DriftReport(reference="d" * 64, rows=5368, share=0.14, columns={"words": 0.03}),
        label=LabelReport(
            count=label, judge="verifier", corrected=233,
            agreement=[Agreed(rubric="right answer", source="thumbs", n=1980, kappa=0.87, interval=(0.83, 0.9))],
            pairs={"correction": 233}, rated={"up": 1700, "down": 280}, disagreements=131,
        ),
        select=SelectReport(count=select, by_label=dict.fromkeys(FUNCTIONS, 300)),
    )  # fmt: skip
