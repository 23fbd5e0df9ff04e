from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluation_samples import FUNCTIONS, sample_findings, training

from pocketloop.contracts.reports import GateDecision, GateResult
from pocketloop.contracts.rollout import PlannedRung, RolloutPlan
from pocketloop.evaluation.card import adapter_card
from pocketloop.evaluation.findings import class_rows
from pocketloop.evaluation.intervals import interval_svg
from pocketloop.evaluation.report import render_report, write_report
from pocketloop.evaluation.statistics import estimate

DIGEST = "0123456789abcdef" * 4
VOID = {"meta", "link", "br", "img", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects text and what the page would load from elsewhere."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.loads: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        given = dict(attrs)
        self.loads += [value for key in ("src", "href", "xlink:href") if (value := given.get(key)) and value[0] != "#"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        # HTML lets a list item or a table cell end by itself; nothing here does.
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_whole_page_that_loads_nothing(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", sample_findings(140))
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.loads == []
    for said in ["functions", "0.87", "champion, version 3", "consent withheld", "function_exact ≥ 0.8", *FUNCTIONS]:
        assert said in page.text


def test_the_same_findings_give_the_same_bytes() -> None:
    assert render_report(sample_findings(140)) == render_report(sample_findings(140))


def test_a_candidate_without_champion_classes_or_mistakes_still_has_a_report() -> None:
    findings = sample_findings(140)
    alone = [result for result in findings.evaluation.results if result.model in ("adapter", "base")]
    evaluation = findings.evaluation.model_copy(update={"results": alone, "confusion": {}})
    page = Page(render_report(sample_findings(140, evaluation=evaluation, outcomes={}, champion="")))
    assert "no champion yet" in page.text
    assert "By class" not in page.text


def test_every_stage_is_shown_with_its_curves_measures_and_remarks() -> None:
    (sft,) = training().stages
    ppo = sft.model_copy(
        update={
            "stage": "ppo",
            "curves": {"reward": [(1, 0.25), (9, 0.5)], "kl": [(1, 0.0), (9, 3.5)]},
            "metrics": {"mean_reward": estimate([1, 1, 0, 1])},
            "stopped": "3.60 nats an answer, more than max_kl 3",
            "left_out": {"answer beyond max_length": 17},
            "best_step": 9,
        }
    )
    started = training().model_copy(update={"stages": [sft, ppo]})
    text = " ".join(Page(render_report(sample_findings(140, training=started))).text.split())
    for said in [
        "reward 0.250 → 0.500", "kl 0.000 → 3.500", "mean reward 0.750", "n = 4", "state of step 9 kept",
        "more than max_kl 3", "17 left out: answer beyond max_length",
    ]:  # fmt: skip
        assert said in text


def test_gates_lead_with_what_failed_and_show_their_evidence() -> None:
    order = ["pass", "fail", "inconclusive"]
    gates = [
        GateResult(gate=f"gate {verdict}", verdict=verdict, observed=0.9, n=40, detail="", change="twelve more right")  # type: ignore[arg-type]
        for verdict in order
    ]
    decision = GateDecision(verdict="fail", gates=gates, warnings=["it is spent"], evidence={"a": "b"})
    text = Page(render_report(sample_findings(28, decision=decision))).text
    assert text.index("gate fail") < text.index("gate inconclusive") < text.index("gate pass")
    for said in ["What would change it: twelve more right", "Spent.", "pocketloop gates explain functions@VERSION"]:
        assert said in text
    card = adapter_card(sample_findings(28, decision=decision), DIGEST)
    assert "**Spent**: it is spent." in card


def test_the_page_is_laid_out_for_a_phone() -> None:
    html = render_report(sample_findings(140))
    assert "width=device-width" in html and "@media (max-width: 720px)" in html
    assert "<script" not in html
    text = Page(html).text
    for said in ["locale=de-DE", "5 slices", "better on", "lost against champion"[:4]]:
        assert said in text


def test_intervals_are_drawn_beside_their_bound() -> None:
    found = {gate.gate: interval_svg(gate) for gate in sample_findings(140).decision.gates}
    assert "held against -0.03" in found["function_exact not more than 0.03 below champion"]
    assert "held against +0.9" in found["function_name ≥ 0.9"]
    assert found["parity of the exported files"] == ""


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    gate = GateResult(gate="<script>alert(1)</script>", verdict="fail", observed=None, n=0, detail="a & b")
    decision = GateDecision(verdict="fail", gates=[gate])
    html = render_report(sample_findings(28, decision=decision, evaluation=confused("<b>x</b>")))
    assert "<script>" not in html
    assert "<b>x</b>" not in html
    assert "alert(1)" in Page(html).text


def test_classes_are_listed_worst_first_with_their_most_frequent_mistake() -> None:
    rows = class_rows(sample_findings(800))
    assert {row.name for row in rows} == set(FUNCTIONS)
    shares = [row.scores["adapter"] for row in rows]
    assert shares == sorted(shares)
    assert sum(row.n for row in rows) == 800
    assert all(row.mistaken_for != row.name for row in rows)


def test_the_card_shows_scores_beside_champion_and_base_and_says_how_to_approve() -> None:
    card = adapter_card(sample_findings(), DIGEST)
    assert "| metric | adapter | champion (version 3) | base | transformers |" in card
    assert "press *Promote model* on this page and choose `functions.released`" in card
    assert "n = 800" in card
    assert all(len(set(map(cells, table))) == 1 for table in tables(card))
    assert "_|_" not in card


def test_a_model_that_was_measured_on_fewer_items_is_shown_with_its_own_number() -> None:
    evaluation = sample_findings(140).evaluation
    results = [
        result.model_copy(update={"metrics": {name: estimate([1.0] * 40) for name in result.metrics}})
        if result.model == "transformers"
        else result
        for result in evaluation.results
    ]
    card = adapter_card(sample_findings(140, evaluation=evaluation.model_copy(update={"results": results})), DIGEST)
    assert "n = 140" in card
    assert "| transformers (first 40) |" in card


def test_the_card_of_a_failed_candidate_says_not_to_promote_it() -> None:
    gate = GateResult(gate="a | b", verdict="fail", observed=0.1, n=5, detail="below the floor")
    card = adapter_card(sample_findings(28, decision=GateDecision(verdict="fail", gates=[gate])), DIGEST)
    assert "**Do not promote this version**: it failed 1 of 1 gates; a copy of it is refused." in card
    assert "To approve" not in card
    assert "a \\| b" in card


def test_the_card_of_a_merged_candidate_says_why_it_cannot_be_published() -> None:
    found = sample_findings(merged=["DoRA"], sizes={"merged.gguf": 4_030_000})
    card = adapter_card(found, "d" * 64)
    assert "✓ pass" in card and "Do not promote this version" in card and "press *Promote model*" not in card
    assert "llama.cpp takes no adapter with DoRA" in card
    assert "| GGUF, merged | Q4_K_M | tiny Q4_K_M | 4.03 MB |" in card


def test_an_inconclusive_candidate_cannot_be_approved_and_its_card_says_so() -> None:
    gates = [
        GateResult(gate="exact", verdict="inconclusive", observed=0.8, n=40, detail="too few"),
        GateResult(gate="name", verdict="pass", observed=0.9, n=40, detail="0.90"),
    ]
    decision = GateDecision(verdict="inconclusive", gates=gates)
    card = adapter_card(sample_findings(28, decision=decision), DIGEST)
    assert (
        "**Do not promote this version**: 1 of 2 gates could not be decided, and only a pass can be approved." in card
    )
    assert "To approve" not in card


def test_the_card_names_every_export_and_what_an_approval_covers() -> None:
    card = adapter_card(sample_findings(28), DIGEST)
    assert "| GGUF LoRA | F16 | tiny F16 | 1.63 MB | ✓ pass | 0.9997 |" in card
    assert "| high-end | gguf | works | 2,207 | 33 MB of 4,000 MB |" in card
    assert f"An approval covers bundle `{DIGEST}`" in card


def test_report_and_card_call_a_projection_one() -> None:
    findings = sample_findings(28)
    assert "measured on no phone" in render_report(findings) and "(projected)" in adapter_card(findings, DIGEST)
    assert "On phones" not in render_report(sample_findings(28, budget=None))


def test_the_card_shows_the_rollout_plan_for_this_fleet() -> None:
    rungs = [
        PlannedRung(percent=1, days=1.0, limited_by="hold"),
        PlannedRung(percent=100, days=6.25, limited_by="crashes"),
    ]
    plan = RolloutPlan(ladder="standard", daily_devices=20_000, source="telemetry of 28 days", rungs=rungs)
    card = adapter_card(sample_findings(28, rollout=plan), DIGEST)
    assert "Ladder `standard`, 20,000 active devices a day (telemetry of 28 days): 7.2 days to everybody" in card
    assert "| 1 % | 1.0 | hold |\n| 100 % | 6.2 | crashes |" in card
    assert all(len(set(map(cells, table))) == 1 for table in tables(card))
    stalled = plan.model_copy(update={"rungs": [rungs[0], rungs[1].model_copy(update={"days": None})]})
    card = adapter_card(sample_findings(28, rollout=stalled), DIGEST)
    assert "it cannot reach everybody" in card
    assert "| 100 % | not in time | crashes |" in card
    assert "Rollout plan" not in adapter_card(sample_findings(28), DIGEST)


def confused(label: str):  # type: ignore[no-untyped-def]
    evaluation = sample_findings(28).evaluation
    return evaluation.model_copy(update={"confusion": {label: {label: 1, "other": 2}, "other": {label: 1}}})


def tables(card: str) -> list[list[str]]:
    blocks = [block.split("\n") for block in card.strip().split("\n\n")]
    return [block for block in blocks if block[0].startswith("|")]


def cells(line: str) -> int:
    return line.replace("\\|", "").count("|")


def test_report_and_card_show_both_runtimes_with_the_paired_difference(tmp_path: Path) -> None:
    findings = sample_findings()
    few = {**findings.outcomes, "transformers": findings.outcomes["transformers"][:256]}
    (exact, *_) = (findings := replace(findings, outcomes=few)).runtimes
    ours = [outcome.scores["function_exact"] for outcome in findings.outcomes["adapter"][:256]]
    theirs = [outcome.scores["function_exact"] for outcome in few["transformers"]]
    assert (exact.n, exact.metric) == (256, "function_exact")
    assert exact.difference == pytest.approx((sum(ours) - sum(theirs)) / 256)
    assert exact.low < exact.difference < exact.high
    assert exact.lost - exact.gained == sum(theirs) - sum(ours)
    write_report(tmp_path / "report.html", findings)
    shown = f"{exact.difference:+.3f}"
    assert shown in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"{shown} ({exact.low:+.3f} to {exact.high:+.3f})" in adapter_card(findings, "d" * 64)
    assert replace(findings, outcomes={}).runtimes == []


def test_what_was_not_answered_is_told_by_reason(tmp_path: Path) -> None:
    findings = sample_findings()
    lost = findings.evaluation.results[0].model_copy(update={"failures": {"timed out": 3, "broken JSON": 1}})
    report = findings.evaluation.model_copy(update={"results": [lost, *findings.evaluation.results[1:]]})
    findings = replace(findings, evaluation=report)
    write_report(tmp_path / "report.html", findings)
    assert "3 (timed out), 1 (broken JSON)" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"*{lost.model}* 4 (timed out 3, broken JSON 1)" in adapter_card(findings, "d" * 64)
