"""Whatever is posted, the collector answers as its own schema says, and never with an error of its own."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from posting import NDJSON, NOW, Posts, collecting, event, lines_of, stored
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from pocketloop.contracts.files import canonical_json
from pocketloop.data.parsing import parse_event

_SLOW_DRAWS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@schemathesis.serializer(NDJSON)
def _as_lines(context: Any, value: Any) -> bytes:
    return lines_of(value) if isinstance(value, list) else json.dumps(value).encode()


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posts]:
    with collecting(tmp_path_factory.mktemp("fuzz")) as posts:
        yield posts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("POST", "/v1/events", GenerationMode.POSITIVE),
        ("POST", "/v1/events", GenerationMode.NEGATIVE),
        ("POST", "/telemetry", GenerationMode.POSITIVE),
        ("POST", "/telemetry", GenerationMode.NEGATIVE),
        ("GET", "/healthz", GenerationMode.POSITIVE),
    ],
)
def test_the_app_keeps_its_own_schema(posts: Posts, method: str, path: str, mode: GenerationMode) -> None:
    """Posts that its OpenAPI schema allows, and others, with all that schemathesis checks of an answer but two checks:

    a post is judged line by line, so that one whose lines are all refused is answered all the same; and an event or
    report can be of the right shape and too old or too new.
    """
    operation = schemathesis.openapi.from_url(f"{posts.address}/openapi.json")[path][method]
    by_status = [negative_data_rejection, positive_data_acceptance]

    @settings(max_examples=40, suppress_health_check=_SLOW_DRAWS)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {posts.token}"}, excluded_checks=by_status)

    check()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
near_events = st.builds(
    lambda key, value, number: event(number, **{key: value}),
    st.sampled_from([*sorted(event()), "unknown"]),
    json_values,
    st.integers(0, 30),
)
lines = st.one_of(near_events, st.integers(0, 30).map(event), json_values, st.binary(max_size=30))


@settings(max_examples=80)
@given(items=st.lists(lines, max_size=6), zipped=st.booleans(), cut=st.integers(0, 40))
def test_every_line_is_accepted_known_or_refused_and_what_was_accepted_is_stored(
    posts: Posts, items: list[Any], zipped: bool, cut: int
) -> None:
    before = len(stored(posts.store)) + posts.inbox.waiting
    whole = lines_of(items)
    body = gzip.compress(whole) if zipped else whole
    body = body[: len(body) - cut] if cut > 20 else body
    answer = posts.post(body, **({"Content_Encoding": "gzip"} if zipped else {}))
    assert answer.status_code == 200 or (zipped and cut > 20 and answer.status_code == 400), answer.text
    accepted = 0
    if answer.status_code == 200:
        found = answer.json()
        accepted = found["accepted"]
        assert accepted + found["duplicates"] + found["rejected"] == len(found["lines"])
        sent = gzip.decompress(body) if zipped else body
        numbers = [number for number, line in enumerate(sent.split(b"\n"), 1) if line.strip()]
        assert [line["line"] for line in found["lines"]] == numbers
    posts.inbox.flush()
    after = stored(posts.store)
    assert len(after) == before + accepted
    for one in after[before:]:
        parse_event(canonical_json(one).encode(), NOW)  # as those who take events out of the store will


@settings(max_examples=80)
@given(body=st.binary(max_size=200), encoding=st.sampled_from(["gzip", "identity", "", "GZIP", "br", "gzip, gzip"]))
def test_no_bytes_are_an_error_of_the_collector(posts: Posts, body: bytes, encoding: str) -> None:
    assert posts.post(body, Content_Encoding=encoding).status_code in (200, 400, 415)


@settings(max_examples=60)
@given(secret=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60))
def test_no_guess_is_a_token(posts: Posts, secret: str) -> None:
    headers = {"Authorization": f"Bearer {secret}".encode("latin-1")}
    assert posts.post(b"", **headers).status_code == 401  # type: ignore[arg-type]
