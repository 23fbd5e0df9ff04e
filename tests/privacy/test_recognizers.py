import pytest

from pocketloop.privacy.scrubber import Scrubber
from pocketloop.privacy.spans import Span

FOUND = [
    ("Call Sandy Wu tomorrow at 10:30", "Sandy Wu", "PERSON"),
    ("text Will that it is late", "Will", "PERSON"),
    ("tell Xochitl hello", "Xochitl", "PERSON"),
    ("my wife Zuzanna is here", "Zuzanna", "PERSON"),
    ("a meeting with Dr. Ellen M. Sanford", "Ellen M. Sanford", "PERSON"),
    ("call maria garcia please", "maria garcia", "PERSON"),
    ("when is Łucja's birthday", "Łucja", "PERSON"),
    ("invite Vincent van Gogh to dinner", "Vincent van Gogh", "PERSON"),
    ("book it for Keith and Victoria.", "Victoria", "PERSON"),
    ("dial 415-555-0123", "415-555-0123", "PHONE_NUMBER"),
    ("+44 7700 900123 is my new mobile", "+44 7700 900123", "PHONE_NUMBER"),
    ("It is booked.408-265-4808 is the number", "408-265-4808", "PHONE_NUMBER"),
    ("mail zbyszek.k@poczta.example.pl", "zbyszek.k@poczta.example.pl", "EMAIL_ADDRESS"),
    ("write to anna at example dot com", "anna at example dot com", "EMAIL_ADDRESS"),
    ("open https://example.com/x?y=1.", "https://example.com/x?y=1", "URL"),
    ("my card is 2221 0000 0000 0009", "2221 0000 0000 0009", "CREDIT_CARD"),
    ("pay 4111111111111111", "4111111111111111", "CREDIT_CARD"),
    ("pay to DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00", "IBAN"),
    ("the camera is at 192.168.1.20", "192.168.1.20", "IP_ADDRESS"),
    ("ping 2001:db8::ff00:42:8329", "2001:db8::ff00:42:8329", "IP_ADDRESS"),
    ("my ssn is 123-45-6789", "123-45-6789", "US_SSN"),
    ("she was born on 25 October 1970", "25 October 1970", "DATE_OF_BIRTH"),
    ("dob: 10/25/1970", "10/25/1970", "DATE_OF_BIRTH"),
    ("api key sk-abcdefghijklmnopqrstuvwxyz123456", "sk-abcdefghijklmnopqrstuvwxyz123456", "API_KEY"),
    ("the wifi password is hunter2", "hunter2", "PASSWORD"),
    ("the door code is 4821", "4821", "PASSWORD"),
    ("drive to 377 Santana Row #1000", "377 Santana Row #1000", "ADDRESS"),
    ("navigate to 12 main street", "12 main street", "ADDRESS"),
    ("take me to Berliner Straße 12, 10115 Berlin", "Berliner Straße 12, 10115 Berlin", "ADDRESS"),
    ("go to 12, rue de la Paix", "12, rue de la Paix", "ADDRESS"),
    ("Calle Mayor 15, 28013 Madrid", "Calle Mayor 15, 28013 Madrid", "ADDRESS"),
    ("she lives in Via Roma, 7", "Via Roma, 7", "ADDRESS"),
    ("ul. Długa 5", "ul. Długa 5", "ADDRESS"),
    ("my plate is B-MW 1234", "B-MW 1234", "LICENSE_PLATE"),
    ("license plate 7ABC123", "7ABC123", "LICENSE_PLATE"),
    ("send it to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "CRYPTO"),
    ("follow @sandy_wu", "@sandy_wu", "USERNAME"),
]

ORDINARY = [
    "set a timer for 10 minutes",
    "remind me on 25 December to call mom",
    "wake me at 7:30 on May 5th",
    "Will it rain in Leeds on Saturday?",
    "set the thermostat to 21.5 degrees",
    "transfer 1000000 dollars to savings by 01/02/2026",
    "from 2026-03-01 10:30 to 2026-03-02",
    "my password is wrong",
    "call the pharmacy",
    "Dim the lights in the living room",
    "What's the weather in San Jose",
    "flight LH1234 leaves at 12am",
    "the score was 10.30-11.45",
    "the order number is 19000-109",
    "mark all reminders as done",
    "Play Summer Rain",
    "it takes 15 minutes to drive",
    "my birthday is on 25 December",
]


@pytest.mark.parametrize(("text", "value", "kind"), FOUND)
def test_personal_data_is_found_whole_and_named(scrubber: Scrubber, text: str, value: str, kind: str) -> None:
    assert (value, kind) in [(text[s.start : s.end], s.type) for s in scrubber.find(text)]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_requests_stay_as_they_are(scrubber: Scrubber, text: str) -> None:
    assert scrubber.find(text) == []


def test_an_email_address_is_one_find_and_not_also_a_url(scrubber: Scrubber) -> None:
    assert [s.type for s in scrubber.find("write to bob@mail.example.com")] == ["EMAIL_ADDRESS"]


def test_a_trained_recognizer_slots_in_beside_the_patterns() -> None:
    from presidio_analyzer import EntityRecognizer, RecognizerResult

    from pocketloop.contracts.recipe import ScrubConfig

    class Trained(EntityRecognizer):
        def load(self) -> None:
            pass

        def analyze(self, text: str, entities: list[str], nlp_artifacts: object = None) -> list[RecognizerResult]:
            at = text.find("grault")
            return [RecognizerResult("PERSON", at, at + 6, 0.9)] if at >= 0 else []

    scrubber = Scrubber(ScrubConfig(), b"k" * 32, extra=[Trained(["PERSON"])])
    assert [s.type for s in scrubber.find("say hi, grault")] == ["PERSON"]
    assert scrubber.digest != Scrubber(ScrubConfig(), b"k" * 32).digest


def test_many_texts_at_once_give_what_each_gives_alone(scrubber: Scrubber) -> None:
    analyzer = scrubber.analyzer
    texts = (
        [text for text, _, _ in FOUND] + ORDINARY + ["", "  ", "call <PERSON_3fa2b1> at 12 Main Street"] + ORDINARY[:3]
    )
    regions = ["US" if index % 3 else "GB" for index in range(len(texts))]
    together = analyzer.find_many(texts, regions)
    assert len(together) == len(texts)
    for text, region, spans in zip(texts, regions, together, strict=True):
        alone = analyzer.find(text, region)
        assert [s[:3] for s in alone] == [s[:3] for s in spans], text
        assert [s.score for s in alone] == pytest.approx([s.score for s in spans], abs=0.002)


def test_equal_texts_of_two_regions_are_searched_for_each() -> None:
    from pocketloop.contracts.recipe import NerConfig
    from pocketloop.privacy.recognizers import Analyzer

    text = "ruf 0171 1234567 an"
    german, american = Analyzer(NerConfig(engine="none")).find_many([text, text], ["DE", "US"])
    assert max(s.score for s in german) > max(s.score for s in american)


def test_a_placeholder_is_never_found_again(scrubber: Scrubber) -> None:
    text = "tell <PERSON_3fa2b1> that <PHONE_NUMBER_aa00bb> is Zbigniew Kowalski's"
    assert [text[s.start : s.end] for s in scrubber.find(text)] == ["Zbigniew Kowalski"]


@pytest.mark.slow
def test_presidios_own_engine_over_the_same_recognizers_covers_the_same(scrubber: Scrubber) -> None:
    """Presidio is the oracle: what its engine is spared here must leave nothing uncovered."""
    from pocketloop.data.demo.pii_heldout import heldout_pii

    engine = scrubber.analyzer.presidio()
    for row in heldout_pii("first", 120):
        results = engine.analyze(row.text, language="en")
        theirs = [Span(r.start, r.end, r.entity_type, r.score) for r in results]
        ours = scrubber.analyzer.find(row.text)
        assert _covered(scrubber, row.text, theirs) == _covered(scrubber, row.text, ours), row.text


def _covered(scrubber: Scrubber, text: str, spans: list[Span]) -> set[int]:
    sure = scrubber.wanted.sure(text, spans)
    return {index for span in sure for index in range(span.start, span.end) if text[index].isalnum()}
