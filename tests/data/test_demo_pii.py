import hashlib
import ipaddress
import re
from collections import defaultdict

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketloop.data.demo import PiiRow, demo_pii
from pocketloop.data.demo._random import rng_for
from pocketloop.data.demo.identifiers import bitcoin_address, credit_card, iban, luhn_digit
from pocketloop.data.demo.people import HELDOUT_LOCALES, SHARED_LOCALES, phone_number, region_of
from pocketloop.privacy.spans import PII_TYPES

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def rows() -> dict[str, list[PiiRow]]:
    return {"train": list(demo_pii("train", 1500, seed=2)), "heldout": list(demo_pii("heldout", 900, seed=2))}


def _values(rows: list[PiiRow]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for row in rows:
        for span in row.spans:
            found[span.type].add(row.text[span.start : span.end])
    return found


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_spans_point_at_what_they_name(split: str, rows: dict[str, list[PiiRow]]) -> None:
    forms = {
        "EMAIL_ADDRESS": r"[\w.]+@[\w.]+",
        "CREDIT_CARD": r"[\d -]{15,19}",
        "IBAN": r"[A-Z]{2}\d{2}[A-Z\d ]+",
        "US_SSN": r"\d{3}[- ]\d{2}[- ]\d{4}",
        "URL": r"https?://\S+",
        "CRYPTO": r"1\w{25,34}",
        "PHONE_NUMBER": r"[\d+(). -]{8,}",
        "LICENSE_PLATE": r"[A-Z\d -]{5,13}",
        "API_KEY": r"[\w-]{20,}",
    }
    values = _values(rows[split])
    assert set(values) <= set(PII_TYPES) and len(values) >= 13
    for kind, form in forms.items():
        assert values[kind] and all(re.fullmatch(form, value) for value in values[kind]), kind
    for value in values["IP_ADDRESS"]:
        assert ipaddress.ip_address(value)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_third_of_the_texts_is_clean_and_the_rest_is_not(split: str, rows: dict[str, list[PiiRow]]) -> None:
    clean = sum(not row.spans for row in rows[split])
    assert 0.30 < clean / len(rows[split]) < 0.40
    for row in rows[split]:
        ends = [0, *(place for span in row.spans for place in (span.start, span.end)), len(row.text)]
        assert ends == sorted(ends)


def test_five_locales_or_more_and_some_only_held_out(rows: dict[str, list[PiiRow]]) -> None:
    train, heldout = ({row.locale for row in rows[split]} for split in ("train", "heldout"))
    assert len(train) >= 5 and train <= set(SHARED_LOCALES)
    assert set(HELDOUT_LOCALES) <= heldout


def test_the_splits_share_no_value(rows: dict[str, list[PiiRow]]) -> None:
    train, heldout = _values(rows["train"]), _values(rows["heldout"])
    for kind in train:
        assert not {value.casefold() for value in train[kind]} & {value.casefold() for value in heldout[kind]}, kind


def test_labelled_texts_are_the_same_for_the_same_seed(rows: dict[str, list[PiiRow]]) -> None:
    assert list(demo_pii("train", 50, seed=2)) == rows["train"][:50]
    assert list(demo_pii("train", 50, seed=3)) != rows["train"][:50]


@given(st.integers())
def test_cards_pass_luhn_by_the_textbook(seed: int) -> None:
    digits = [int(char) for char in credit_card(rng_for(seed)) if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    assert sum(doubled) % 10 == 0


def test_the_luhn_digit_of_the_standards_example_is_three() -> None:
    assert luhn_digit("7992739871") == "3"


@given(st.integers(), st.sampled_from(["DE", "GB", "FR", "ES", "PL", "IT", "TR", "NL", "SE", "CZ", "BR", "US"]))
def test_ibans_leave_one_modulo_97(seed: int, region: str) -> None:
    plain = iban(rng_for(seed), region).replace(" ", "")
    assert int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


@given(st.integers())
def test_bitcoin_addresses_carry_their_checksum(seed: int) -> None:
    number = 0
    for char in bitcoin_address(rng_for(seed)):
        number = number * 58 + BASE58.index(char)
    raw = number.to_bytes(25, "big")
    assert hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


@pytest.mark.parametrize("locale", SHARED_LOCALES + HELDOUT_LOCALES)
def test_phone_numbers_are_valid_where_they_are_dialled(locale: str) -> None:
    for seed in range(20):
        number = phone_number(rng_for(locale, seed), region_of(locale), "train")
        assert phonenumbers.is_possible_number(phonenumbers.parse(number, region_of(locale))), number
