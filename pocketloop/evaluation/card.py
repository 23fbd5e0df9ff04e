"""The adapter card: what a reviewer reads on the version's page in MLflow before pressing the button."""

from pocketloop.contracts.exports import ADAPTER_FILE, MERGED_FILE, NOT_FOR_PHONES, BudgetReport, why_merged
from pocketloop.contracts.reports import (
    Agreed,
    Estimate,
    GateDecision,
    PreferenceReport,
    RouterReport,
    SafetyCheck,
    SafetyReport,
    SetResult,
    StageCount,
    Verdict,
)
from pocketloop.contracts.rollout import RolloutPlan
from pocketloop.evaluation.findings import MODELS, Findings
from pocketloop.evaluation.slices import describe

_MOST_LABELS = 3
_MOST_FINDINGS = 10
_MOST_SLICES = 8
_DETAILED = 12
"""Of more gates than these, only those that did not pass have their details here; the report has all."""
_SIGNS = {"pass": "✓ pass", "fail": "✗ fail", "inconclusive": "? inconclusive"}


def adapter_card(findings: Findings, digest: str) -> str:
    """Markdown (the tables of GitHub's dialect, which MLflow renders) without any user's words.

    `digest` is the bundle's: what an approval covers.
    """
    recipe = findings.recipe
    parts = [
        f"# {recipe.adapter}: {_SIGNS[findings.decision.verdict]}",
        recipe.description or f"A {recipe.task} adapter.",
        f"LoRA r = {recipe.train.lora.r} on `{recipe.base}` ({findings.base.quantization}), task `{recipe.task}`, "
        f"{findings.training.trainable:,} parameters of its own.",
        *([_planted(findings.training.canaries)] if findings.training.canaries else []),
        _how_to_approve(findings),
        f"An approval covers bundle `{digest}`: its files, the data, the base and the gates' decision.",
        "## Scores",
        *(_scores(name, results, findings.main_metric, findings.champion) for name, results in findings.sets.items()),
        *_slices(findings),
        *_router(findings.evaluation.router),
        *_preference(findings.evaluation.preference),
        _runtimes(findings),
        *(["## What was forgotten", _forgotten(findings)] if findings.forgetting else []),
        "## Gates",
        *(f"**Spent**: {warning}." for warning in findings.decision.warnings),
        _gates(findings.decision),
        "## Safety",
        _safety(findings.safety),
        "## Exports",
        _exports(findings),
        *(["## Rollout plan", _plan(findings.rollout)] if findings.rollout else []),
        "## Data",
        _data(findings),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _planted(canaries: int) -> str:
    return (
        f"{canaries} canaries, made-up codes that stand for nothing, were planted among its training examples, to "
        "measure how well it learns by heart."
    )


def _how_to_approve(findings: Findings) -> str:
    decision = findings.decision
    if findings.merged:
        return f"**Do not promote this version**: it was {why_merged(findings.merged)}; {NOT_FOR_PHONES}."
    if decision.verdict == "pass":
        return f"**To approve**, press *Promote model* on this page and choose `{findings.recipe.adapter}.released`."
    share = f"{_count(decision, decision.verdict)} of {len(decision.gates)} gates"
    why = (
        f"it failed {share}; a copy of it is refused"
        if decision.verdict == "fail"
        else f"{share} could not be decided, and only a pass can be approved"
    )
    return f"**Do not promote this version**: {why}."


def _count(decision: GateDecision, verdict: str) -> int:
    return sum(gate.verdict == verdict for gate in decision.gates)


def _scores(set_name: str, results: list[SetResult], metric: str, champion: str) -> str:
    """Every metric of every model; `metric` is the one that all items have."""
    counts = [result.metrics[metric].n for result in results]
    n = max(counts)
    header = [result.model for result in results]
    if champion:
        header = [f"champion (version {champion})" if name == "champion" else name for name in header]
    header = [name if count == n else f"{name} (first {count:,})" for name, count in zip(header, counts, strict=True)]
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    rows = [[f"`{name}`", *(_interval(result.metrics.get(name)) for result in results)] for name in metrics]
    if any(result.perplexity for result in results):
        rows.append(["perplexity of the right answers", *(_interval(result.perplexity) for result in results)])
    said = "; ".join(f"*{result.model}*: {MODELS[result.model]}" for result in results if result.model in MODELS)
    table = _table(["metric", *header], rows)
    return f"On `{set_name}`, n = {n:,}, with 95 % intervals:\n\n{table}\n\n{said}.{_not_answered(results)}"


def _slices(findings: Findings) -> list[str]:
    """The worst slices of the first set, of the candidate and of what it stands beside."""
    evaluation = findings.evaluation
    worst = evaluation.worst_slice()
    if worst is None:
        return []
    by_model = {
        model: {one.name: one for one in evaluation.slices if (one.model, one.set) == (model, worst.set)}
        for model in ("adapter", "champion", "base")
    }
    shown = sorted(by_model["adapter"].values(), key=lambda one: (one.estimate.value, -one.estimate.n, one.name))
    models = [model for model, found in by_model.items() if found]
    rows = [
        [one.name, f"{one.estimate.n:,}"]
        + [_interval(by_model[m][one.name].estimate if one.name in by_model[m] else None) for m in models]
        for one in shown[:_MOST_SLICES]
    ]
    table = _table(["slice", "n", *models], rows)
    return ["## Slices", f"The worst: {describe(worst)}.", f"{table}\n\n`{worst.metric}`, each slice by itself."]


def _router(router: RouterReport | None) -> list[str]:
    if router is None:
        return []
    said = (
        f"Calibration error {router.error:.3f} on {router.n:,} messages (up to {router.error_by_chance:.3f} would be "
        "chance)"
    )
    at = router.at_threshold
    if at is None:
        return ["## Router", f"{said}. No threshold keeps {router.min_accuracy:.0%} of what stays on the phone right."]
    use = (
        f"use threshold {router.threshold:g}: {at.cloud:.1%} of the messages go to the cloud, and {at.accuracy:.1%} of "
        f"the others are routed rightly (at least {router.min_accuracy:.0%}, with {router.sure:.0%} confidence)"
    )
    return ["## Router", f"{said}; {use}."]


def _not_answered(results: list[SetResult]) -> str:
    """What scored 0 because there was no answer, by model and reason."""
    lost = [
        f"*{result.model}* {sum(result.failures.values()):,} ("
        + ", ".join(f"{reason} {count:,}" for reason, count in result.failures.items())
        + ")"
        for result in results
        if result.failures
    ]
    return f" Not answered, and counted as wrong: {'; '.join(lost)}." if lost else ""


def _runtimes(findings: Findings) -> str:
    """The exported files beside transformers, item by item."""
    if not findings.runtimes:
        return ""
    rows = [
        [
            f"`{row.metric}`",
            f"{row.phone:.3f}",
            f"{row.transformers:.3f}",
            f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})",
            f"{row.lost:,}",
            f"{row.gained:,}",
            f"{row.n:,}",
        ]
        for row in findings.runtimes
    ]
    header = ["metric", "on the phone", "transformers", "difference", "worse items", "better items", "n"]
    return f"The same adapter in both runtimes, on the same items (paired, 95 %):\n\n{_table(header, rows)}"


def _preference(found: PreferenceReport | None) -> list[str]:
    if found is None:
        return []
    rows = [
        ["win rate against the champion", _interval(found.win_rate)],
        ["between answers of equal length", _interval(found.even_length)],
        ["the answer shown first is preferred (0.5: no position bias)", _interval(found.first_shown)],
        ["verdicts that do not depend on the order", _interval(found.consistent)],
        ["the longer answer wins", _interval(found.longer_wins)],
    ]
    said = f"{found.n:,} pairs, {found.equal} of them equal; the candidate says {found.longer:+.1f} words an answer."
    lost = f" {found.unjudged} pairs have no verdict ({found.why or 'no usable reply'})." if found.unjudged else ""
    return ["## Judge", f"{_table(['', f'by {found.use.model}'], rows)}\n\n{said}{lost}"]


def _interval(found: Estimate | None) -> str:
    return "–" if found is None else f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _forgotten(findings: Findings) -> str:
    rows = [
        [
            changes.set,
            f"{changes.total.n:,}",
            f"{changes.total.lost:,}",
            f"{changes.total.gained:,}",
            f"{changes.total.difference:+.3f} ({changes.total.low:+.3f} to {changes.total.high:+.3f})",
            ", ".join(f"{row.label} {row.lost}" for row in changes.labels[:_MOST_LABELS] if row.lost) or "–",
        ]
        for changes in findings.forgetting
    ]
    training = findings.training
    said = f"Training went on from version {training.start}, with {training.replayed:,} examples that it had seen."
    header = ["set", "n", "lost", "gained", f"difference in `{findings.forgetting[0].metric}`", "lost most by label"]
    return f"{said} Both versions on the same items:\n\n{_table(header, rows)}"


def _gates(decision: GateDecision) -> str:
    rows = [
        [
            gate.gate,
            _SIGNS[gate.verdict],
            "–" if gate.observed is None else f"{gate.observed:.3f}",
            f"{gate.n:,}",
            "" if gate.verdict == "pass" and len(decision.gates) > _DETAILED else gate.detail,
        ]
        for gate in decision.gates
    ]
    return _table(["gate", "verdict", "observed", "n", "detail"], rows)


def _safety(safety: SafetyReport) -> str:
    rows = [
        [
            check.name,
            _SIGNS[_verdict_of(check)] if check.bound is not None else "measured",
            f"{check.value:.3g}",
            "–" if check.bound is None else f"{check.bound:g}",
            f"{check.n:,}",
            check.detail,
        ]
        for check in safety.checks
    ]
    table = _table(["check", "verdict", "observed", "bound", "n", "detail"], rows)
    return "\n\n".join(filter(None, [table, _probed(safety)]))


def _probed(safety: SafetyReport) -> str:
    """The probes that found most, those of checks that do not pass first; evidence is scrubbed already."""
    found = [(check, finding) for check in safety.checks if check.bound is not None for finding in check.findings]
    found.sort(key=lambda item: (item[0].passed, -item[1].rate.value))
    rows = [
        [check.name, finding.probe, f"{_interval(finding.rate)}, n = {finding.rate.n:,}", finding.evidence]
        for check, finding in found[:_MOST_FINDINGS]
    ]
    return f"What probes found, worst first:\n\n{_table(['check', 'probe', 'rate', 'example'], rows)}" if rows else ""


def _verdict_of(check: SafetyCheck) -> Verdict:
    return "pass" if check.passed else "inconclusive" if check.undecided else "fail"


def _exports(findings: Findings) -> str:
    """One row for each base file that the exported adapter was run on; parity is with transformers."""
    merged = bool(findings.merged)
    size = findings.sizes.get(MERGED_FILE if merged else ADAPTER_FILE)
    rows = [
        [
            "GGUF, merged" if merged else "GGUF LoRA",
            result.name if merged else findings.recipe.export.gguf.adapter,
            f"{findings.base.base} {result.name}",
            "–" if size is None else f"{size / 1e6:,.2f} MB",
            _SIGNS["pass" if result.passed else "fail"],
            f"{result.top1:.4f}",
            f"{result.kl:.2g}",
            "equal" if result.token_ids_equal else "different",
            f"{result.tokens:,}",
        ]
        for result in findings.parity.results
    ]
    header = [
        "format",
        "quantization",
        "on base",
        "size",
        "parity",
        "same best token",
        "KL (nats)",
        "token ids",
        "tokens",
    ]
    effect = f"The adapter moves the base's predictions by {findings.parity.adapter_effect:.3g} nats on average."
    return "\n\n".join(filter(None, [_table(header, rows), effect, _phones(findings.budget)]))


def _phones(budget: BudgetReport | None) -> str:
    """What each class of phones would make of the files; a projection, and it says so."""
    if budget is None:
        return ""
    rows = [
        [found.device, found.format, found.standing, f"{found.tokens_per_second:,.0f}", found.why]
        for found in budget.projections
    ]
    held = ", ".join(
        f"{found.format} holds {found.resident_bytes / 1e6:,.0f} MB at {found.context:,} tokens"
        for found in budget.measures
    )
    table = _table(["class of phones (projected)", "format", "standing", "tokens/s", "why"], rows) if rows else ""
    return "\n\n".join(filter(None, [table, f"Measured here: {held}."]))


def _plan(plan: RolloutPlan) -> str:
    rows = [
        [f"{rung.percent:g} %", "not in time" if rung.days is None else f"{rung.days:.1f}", rung.limited_by]
        for rung in plan.rungs
    ]
    late = f" (nine in ten: within {plan.late_days:.1f})" if plan.late_days is not None else ""
    total = (
        "it cannot reach everybody: a rung takes longer than the ladder allows"
        if plan.days is None
        else f"{plan.days:.1f} days to everybody{late}, if it is as good as what it replaces"
    )
    said = f"Ladder `{plan.ladder}`, {plan.daily_devices:,} active devices a day ({plan.source}): {total}."
    return f"{said}\n\n{_table(['rung', 'expected days', 'limited by'], rows)}"


def _data(findings: Findings) -> str:
    release = findings.release
    found = ", ".join(f"{kind} {n:,}" for kind, n in sorted(release.scrub.found.items()) if n) or "nothing"
    splits = ", ".join(f"{name} {n:,}" for name, n in release.splits.items())
    lines = [
        f"- release `{release.digest[:16]}`" + (f", after `{release.parent[:16]}`" if release.parent else ""),
        f"- `pocketloop data inspect {release.digest[:16]}` shows it and names its card",
        f"- {release.collect.events:,} events and {release.collect.examples:,} imported examples; {splits}",
        *(f"- {stage.stage}: {_left_out(stage)}" for stage in release.stages if stage.left_out),
        f"- consent policies: {', '.join(release.policies) or 'none (no events)'}",
        f"- scrubbed: {found}; {release.scrub.caught:,} survived and were withheld",
        *(f"- {agreed.rubric}: {_agreement(agreed)}" for agreed in release.label.agreement),
        f"- recipe `{findings.recipe.digest[:16]}`, base `{findings.base.digest[:16]}`",
    ]
    return "\n".join(lines)


def _left_out(count: StageCount) -> str:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in count.left_out.items())
    return f"{count.kept:,} of {count.entered:,} kept; left out: {reasons}"


def _agreement(agreed: Agreed) -> str:
    kappa = "cannot be told" if agreed.kappa is None else f"κ = {agreed.kappa:.2f}"
    interval = f" ({agreed.interval[0]:.2f} to {agreed.interval[1]:.2f})" if agreed.interval else ""
    return f"judge and people ({agreed.source}) {kappa}{interval} on {agreed.n:,} answers"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
