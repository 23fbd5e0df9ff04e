"""What the report shows of items that the champion answers better, and what it never shows."""

from collections.abc import Sequence

from evaluation_samples import sample_findings

from pocketloop.contracts.events import Message
from pocketloop.contracts.examples import Example, make_example
from pocketloop.contracts.recipe import ScrubConfig
from pocketloop.evaluation.regressions import Regression, regressions
from pocketloop.evaluation.report import render_report
from pocketloop.evaluation.suite import Outcome
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.sure import scrub_conversations

METRIC = "intent_accuracy"


def outcome(name: str, right: bool, reference: str = "timers") -> Outcome:
    answer = reference if right else "music"
    return Outcome(example_id=name, scores={METRIC: float(right)}, answer=answer, reference=reference)


def example(name: str, text: str, event_ids: list[str] | None = None) -> Example:
    said = [Message(role="user", content=text), Message(role="assistant", content="timers")]
    return make_example("intent", said, source="test", event_ids=event_ids).model_copy(update={"example_id": name})


def unchanged(chosen: Sequence[Example]) -> list[list[Message] | None]:
    return [row.messages for row in chosen]


def test_only_what_was_lost_is_shown_and_every_class_has_its_turn() -> None:
    classes = ["timers"] * 8 + ["lists"] * 2
    theirs = [outcome(f"e{i}", True, name) for i, name in enumerate(classes)]
    ours = [outcome(f"e{i}", i == 0, name) for i, name in enumerate(classes)]
    examples = {f"e{i}": example(f"e{i}", f"text {i}") for i in range(len(classes))}
    found = regressions({"adapter": ours, "champion": theirs}, METRIC, examples, unchanged, most=4)
    assert [item.example_id for item in found] == ["e1", "e8", "e2", "e9"]
    assert (found[0].ours, found[0].theirs) == ("music", "timers")
    assert regressions({"adapter": ours}, METRIC, examples, unchanged) == []


def test_words_of_a_device_are_not_even_given_to_the_scrubber() -> None:
    given: list[str] = []

    def seen(chosen: Sequence[Example]) -> list[list[Message] | None]:
        given.extend(row.example_id for row in chosen)
        return [None for _ in chosen]

    both = {"adapter": [outcome("a", False), outcome("b", False)], "champion": [outcome("a", True), outcome("b", True)]}
    examples = {"a": example("a", "from a phone", ["event-1"]), "b": example("b", "from a file")}
    phone, file = regressions(both, METRIC, examples, seen)
    assert given == ["b"]
    assert (phone.turns, phone.withheld) == ((), "from a device: shown by its id alone")
    assert file.turns == () and "not sure" in file.withheld


def test_placeholders_are_shown_by_type_so_that_nobody_can_be_followed() -> None:
    both = {"adapter": [outcome("a", False)], "champion": [outcome("a", True)]}
    rows = {"a": example("a", "call <PERSON_3fa2b1> and <PERSON_aaaaaa>" + " please" * 100)}
    (found,) = regressions(both, METRIC, rows, unchanged)
    role, text = found.turns[0]
    assert role == "user" and text.startswith("call <PERSON> and <PERSON> please")
    assert len(text) == 400 and text.endswith("…")


def test_the_scrubber_takes_personal_values_out_of_what_is_shown() -> None:
    scrubber = Scrubber(ScrubConfig.model_validate({"ner": {"engine": "none"}}), b"k" * 32)
    said = [
        [Message(role="user", content="mail zoe.miller@example.org the list")],
        [Message(role="user", content="hi")],
    ]
    mail, plain = scrub_conversations(scrubber, said)
    assert mail is not None and "zoe" not in mail[0].content and "<EMAIL_ADDRESS_" in mail[0].content
    assert plain is not None and plain[0].content == "hi"
    assert scrub_conversations(scrubber, []) == []


def test_the_page_shows_them_escaped_and_without_pseudonyms() -> None:
    shown = Regression(
        "e1", "timers", "music", "timers", {"locale": "de-DE"}, (("user", "call <PERSON>"), ("assistant", "a"))
    )
    hidden = Regression("e2", "timers", "music", "timers", {}, withheld="from a device: shown by its id alone")
    html = render_report(sample_findings(28, regressions=[shown, hidden]))
    assert "Answered better by the champion" in html
    assert "call &lt;PERSON&gt;" in html and "locale de-DE" in html
    assert "e2: from a device: shown by its id alone" in html
    assert "3fa2b1" not in render_report(sample_findings(140))
