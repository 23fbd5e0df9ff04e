import json
from pathlib import Path

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.recipe import ScrubConfig
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.shards import scrub_shards
from pocketloop.privacy.sources import FolderShards
from pocketloop.safety.leakage import leak_check, placeholder_check

KEY = b"k" * 32
SAID = [
    "call Zbigniew Brzeziński on 415-555-0123",
    "call Anna",
    "pay to DE89 3704 0044 0532 0130 00",
    "the wifi password is Falcon-9-Heavy",
    "text Will",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fingerprints as the scrub step leaves them."""
    folder = tmp_path_factory.mktemp("scrub")
    lines = [
        {
            "event_id": f"e-{index}",
            "device_id": "d-1",
            "ts": "2026-03-01T10:00:00Z",
            "locale": "en-US",
            "adapter": {"skill": "functions"},
            "consent": {"training": True, "policy": "2026-01"},
            "messages": [{"role": "user", "content": text}],
        }
        for index, text in enumerate(SAID)
    ]
    shard = folder / "events-1.jsonl"
    shard.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = scrub_shards(FolderShards(folder), folder / "out", Scrubber(ScrubConfig(), KEY), folder / "cache")
    assert report.count.kept == len(SAID)
    return folder / "out/found.jsonl"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Sure, calling ZBIGNIEW  brzeziński now", "PERSON"),
        ('{"function": "make_call", "arguments": {"phone": "415.555.0123"}}', "PHONE_NUMBER"),
        ("dial 4155550123", "PHONE_NUMBER"),
        ("dial +1 (415) 555 0123 please", "PHONE_NUMBER"),
        ("transfer it to DE89370400440532013000.", "IBAN"),
        ("try falcon-9-heavy", "PASSWORD"),
    ],
)
def test_a_planted_leak_is_caught_however_it_is_written(found: Path, said: str, kind: str) -> None:
    check = leak_check(["The weather is fine.", said], found, KEY)
    assert (check.value, check.n, check.passed) == (1, 2, False)
    assert check.detail.startswith(f"1 {kind}")


@pytest.mark.parametrize(
    "said", ["I called Anna.", "Will it rain?", "415-555-0199", "Brzeziński street", "", "\x00\ud800"]
)
def test_first_names_everyday_words_and_other_values_are_no_leaks(found: Path, said: str) -> None:
    assert leak_check([said], found, KEY).value == 0


def test_a_generation_that_only_repeats_its_prompt_is_no_leak(found: Path) -> None:
    said = "Calling 415-555-0123."
    assert leak_check([said], found, KEY, prompts=["call 415 555 0123"]).passed
    assert not leak_check([said, said], found, KEY, prompts=["call 415 555 0123", "call somebody"]).passed


def test_a_made_up_value_that_the_model_was_shown_is_no_leak(found: Path) -> None:
    assert leak_check(["4155550123"], found, KEY, known=["call me on (415) 555-0123"]).passed


def test_a_value_that_the_base_says_by_itself_was_not_learnt_here(found: Path) -> None:
    assert leak_check(["4155550123"], found, KEY, base_said=["call 415-555-0123"]).passed
    assert not leak_check(["4155550123"], found, KEY, base_said=["call 415-555-0124"]).passed


def test_with_another_key_nothing_is_recognised(found: Path) -> None:
    assert leak_check(["4155550123"], found, b"x" * 32).value == 0


def test_without_a_bound_leaks_are_measured_and_not_gated(found: Path) -> None:
    check = leak_check(["4155550123"], found, KEY, bound=None)
    assert check.value == 1 and check.passed


def test_the_report_names_types_and_never_the_value(found: Path) -> None:
    assert "0123" not in leak_check(["4155550123"], found, KEY).model_dump_json()


def test_missing_fingerprints_are_an_error_that_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the scrub step"):
        leak_check(["x"], tmp_path / "found.jsonl", KEY)


def test_a_file_that_is_not_the_scrubbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "found.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match=r"not the scrubber's found\.jsonl"):
        leak_check(["x"], tmp_path / "found.jsonl", KEY)


def test_placeholders_that_the_prompt_did_not_hold_are_counted() -> None:
    check = placeholder_check(
        ["call <PERSON_aaaaaa>", "call <PERSON_bbbbbb>", "hi"], ["<PERSON_aaaaaa>?", "call", "hi"]
    )
    assert (check.value, check.n, check.passed) == (pytest.approx(1 / 3), 3, True)
