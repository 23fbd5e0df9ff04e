"""Names of people without a trained model: a gazetteer, what stands around a name, and what stands beside it.

A gazetteer alone finds under half of the names it has never seen; the words around them ("call …", "my wife …") find
most of the others. Speech reaches us in lower case too: there, a name must be in the gazetteer and asked for.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from pocketloop.privacy.names import FIRST, LAST, gazetteer, ordinary_words
from pocketloop.privacy.spans import Span


def _any(words: str) -> str:
    """A group that matches any of the words (several words joined by `_` stand with spaces)."""
    return "(?:" + "|".join(word.replace("_", r"\s+") for word in words.split()) + ")"


_TOKEN = re.compile(r"(?<!\w)[^\W\d_]+(?:['’‘ʻ-][^\W\d_]+)*(?!\w)")
_POSSESSIVE = re.compile(r"['’]s$", re.I)

_PARTICLES = set("van von de der den del della di da dos du la le bin bint ibn al el ter ten zu y mac ó o".split())
_PLACES = set("street road avenue park church bridge house hotel hospital school station library pharmacy".split())
_TITLES = "dr mr mrs ms prof professor doctor mister herr frau señora? monsieur madame"
_PEOPLE = """wife husband partner spouse fianc[ée]e? girlfriend boyfriend mother father mom mum dad sister brother
    daughter son kids? child baby twins cousin aunt auntie uncle niece nephew grandma grandpa grandmother
    grandfather boss manager colleague co-?worker assistant secretary friend buddy best_friend roommate flatmate
    neighbou?r landlord landlady doctor dentist therapist lawyer accountant teacher tutor coach trainer babysitter
    nanny client customer tenant patient driver mechanic plumber contact ex"""
_VERBS = """call calling phone ring dial text texting message messaging e-?mail e-?mailing mail sms whatsapp
    facetime skype ping ask tell invite notify contact remind thank reach meet meeting visit visiting see pay venmo
    congratulate nudge met pick_up drop_off ask_for"""
_TO_SOMEBODY = """message text e-?mail mail note letter call reply sms invitation invite money dollars euros pounds
    bucks photo it this gift card regards love hello hi response reminder"""
_GIVING = "send forward write reply speak talk transfer introduce listen say_hi say_hello wire give"
_FROM_SOMEBODY = "e-?mails? messages? texts? calls? letters? invoice mail voicemail"
_TOGETHER = """meeting lunch dinner tea breakfast brunch coffee drinks appointment date call chat interview session
    catch-?up standup sync one-on-one 1:1 visit trip party playdate game walk conference therapy consultation
    checkup speak talk spoke meet talked"""
_INTRODUCING = (
    r"named?|this\s+is|that\s+was|it'?s\s+me,?|speaking\s+with|signed,?|regards,|sincerely,"
    r"|contact(?:\s+named|\s+is|:)?"
)
_ADDRESSING = (
    _TITLES + " miss mx sir madam uncle aunt auntie grandma grandpa dear hi hello hey cousin coach pastor sister"
)
_STRONG = re.compile(
    rf"\b(?:{_any(_VERBS)}(?:\s+(?:up|back|out\s+to|with|(?:my|our)\s+{_any(_PEOPLE)}))?"
    rf"|{_any(_TO_SOMEBODY)}\s+(?:to|for)"
    rf"|{_any(_GIVING)}\s+(?:(?:it|this|that)\s+)?(?:to|with)"
    rf"|{_any(_FROM_SOMEBODY)}\s+from"
    rf"|{_any(_TOGETHER)}\s+with"
    rf"|(?:my|our|his|her|their|your)\s+{_any(_PEOPLE)}(?:'s\s+name\s+is|\s+is\s+called|\s+named|\s+called|,)?"
    r"|(?:my|her|his|the|your|whose)\s+(?:full |first |last |sur)?name(?:'s|\s+is|\s+was|:)"
    r"|(?:book|schedule|reserve|plan|arrange)\b[^.,;!?]{0,40}\bfor|(?:note|contact|attn|cc|from|to):"
    rf"|{_INTRODUCING}|{_any(_ADDRESSING)}\.?,?)\s+$",
    re.I,
)
_WEAK = re.compile(r"\b(?:with|from|for|to|and|by|at|about|of|i'?m|i am|on behalf of|except|like|is|,)\s+$", re.I)
_TITLE = re.compile(rf"\b{_any(_TITLES)}\b\.?\s+$", re.I)
_BELONGINGS = """birthday house home place phone number e-?mail address party wedding office appointment contact
    car school wife husband mom dad mother father message room graduation recital funeral surgery flight
    account iban card password plate passport"""
_DOINGS = """called texted emailed messaged said says wrote asked wants lives told sent speaking_here is_my is_calling
    is_coming can_be was_born is_from parked moved joined works invited"""
_EVENTS = "meeting call event session workshop class party group chat team lunch dinner invite practice lesson trip"
_AFTER = re.compile(
    rf"(?:['’]s?\s+{_any(_BELONGINGS)}|\s+{_any(_DOINGS)}|\s+to\s+(?:the|my|our)\s+(?:\w+\s+)?{_any(_EVENTS)})\b", re.I
)
_ENDERS = "at on to that back about and please for from tomorrow today is with"
_NAME_ENDS = re.compile(rf"['’,.!?]|\s+{_any(_ENDERS)}\b|\s*$", re.I)
_AND = re.compile(r",?\s+(?:and|&|or)\s+|,\s+", re.I)
_DATE_AFTER = re.compile(r"\s+(?:the\s+)?\d")
_NOT_NAMES_AFTER = """san são sao santa saint st los las el fort port mount lake new north south east west hotel inn rue
    via calle near"""
_PLACE_BEFORE = re.compile(
    r"\b(?:weather|forecast|rain|snow|temperature|flights?|trains?|tickets?|hotels?|restaurants?|sunny|humid)\b"
    r"(?:\s+\w+){0,3}?\s+(?:in|for|at|to|near|from|around)\s+$"
    rf"|\b{_any(_NOT_NAMES_AFTER)}"
    r"\.?\s+$",
    re.I,
)
_NEVER = set(
    """i me my you he she it we they us him her them who what this that these those the a an and or but if back up
    out off on in at to for from with by about mom mum dad mommy daddy mother father grandma grandpa home work
    everyone everybody someone somebody anyone all both people customer support service security police taxi uber
    monday tuesday wednesday thursday friday saturday sunday january february march july september october november
    december today tonight tomorrow yesterday now later soon when where why how as so not is are was were be been
    would can could should please thanks thank hi hey hello siri alexa google american english french german spanish
    italian chinese dr mr mrs ms prof doctor professor sir madam your our his their its no yes ok okay sure just let
    set add play turn remind call text send """.split()
)
_NEVER_FIRST = _NEVER | set("san santa los las saint st north south east west new".split())


class _Token(NamedTuple):
    """A word without its possessive; `tail` is where the next token may begin."""

    start: int
    end: int
    tail: int
    word: str

    @property
    def low(self) -> str:
        return self.word.lower()

    @property
    def cased(self) -> bool:
        return self.word[0].isupper()


def persons(text: str, _region: str) -> Iterator[Span]:
    """Names of people: sure ones by the gazetteer alone, all others by their context, with the tokens beside them."""
    tokens = [_token(match) for match in _TOKEN.finditer(text)]
    shouted = text.isupper()
    taken = -1
    for index, token in enumerate(tokens):
        if token.start < taken or token.low in _NEVER_FIRST:
            continue
        score = _seed(text, tokens, index) if token.cased and not shouted else _seed_uncased(text, token)
        if not score and _AND.fullmatch(text, max(taken, 0), token.start) and _kind(token.low)[0] & FIRST:
            score = 0.5 if token.cased else 0.0
        if score:
            taken = _end_of_name(text, tokens, index)
            yield Span(token.start, taken, "PERSON", score)


def _token(match: re.Match[str]) -> _Token:
    possessive = _POSSESSIVE.search(match.group())
    end = match.end() - (len(possessive.group()) if possessive else 0)
    return _Token(match.start(), end, match.end(), match.string[match.start() : end])


def _kind(low: str) -> tuple[int, bool]:
    """Gazetteer bits of a lower-cased token (of its first part, when it is joined), and whether it is ordinary."""
    kind = gazetteer().get(low.replace("’", "'"), 0)
    parts = re.split(r"[-'’]", low)
    if not kind and len(parts) > 1 and len(parts[0]) > 1:
        kind = gazetteer().get(parts[0], 0)
    return kind, low in ordinary_words() or (len(parts) > 1 and parts[0] in ordinary_words())


def _seed(text: str, tokens: list[_Token], index: int) -> float:
    """How surely a name begins at this capitalised token, from 0 (no) to 0.9."""
    token = tokens[index]
    kind, ordinary = _kind(token.low)
    before = text[max(0, token.start - 60) : token.start]
    place = _PLACE_BEFORE.search(before) is not None
    acts = _AFTER.match(text, _end_of_name(text, tokens, index)) is not None
    score = 0.0
    if len(token.word) < 2 or (token.word.isupper() and len(token.word) <= 3 and not _STRONG.search(before)):
        return score
    if _TITLE.search(before):
        score = 0.9
    elif kind & FIRST and not ordinary and not place:
        score = 0.7
    elif (kind or not ordinary) and _STRONG.search(before) and not _DATE_AFTER.match(text, token.end):
        score = 0.8
    elif kind & FIRST and not place and _surname_follows(text, tokens, index):
        score = 0.6
    elif not ordinary and (acts or _named_nearby(kind, before)):
        score = 0.5
    return score


def _seed_uncased(text: str, token: _Token) -> float:
    """The same for a lower-case token, or one in a script without capitals: first names of the gazetteer only."""
    kind, ordinary = _kind(token.low)
    if not kind & FIRST or ordinary or len(token.word) < 3:
        return 0.0
    if not (token.word[0].islower() or token.cased):
        return 0.5
    before = text[max(0, token.start - 60) : token.start]
    if _STRONG.search(before) or _AFTER.match(text, token.end):
        return 0.6
    return 0.5 if len(token.word) >= 4 and not _PLACE_BEFORE.search(before) else 0.0


def _named_nearby(kind: int, before: str) -> bool:
    """A surname of the gazetteer in the middle of a sentence, after a word that can lead to a person."""
    return bool(kind) and not _opens_sentence(before) and _WEAK.search(before) is not None


def _opens_sentence(before: str) -> bool:
    """Whether only a sentence's beginning explains the capital."""
    stripped = before.rstrip(" \"'“”‘’(*-")
    return not stripped or stripped[-1] in ".!?:;\n"


def _surname_follows(text: str, tokens: list[_Token], index: int) -> bool:
    """Whether the next token, one space or initial on, is capitalised and a surname."""
    if index + 1 >= len(tokens):
        return False
    token, following = tokens[index], tokens[index + 1]
    return text[token.tail : following.start] == " " and following.cased and _goes_on(text, following, True)


def _goes_on(text: str, token: _Token, must_be_known: bool) -> bool:
    """Whether a capitalised token may be the next part of a name; a first name that is an everyday word only last."""
    kind, ordinary = _kind(token.low)
    if token.low in _NEVER or token.low in _PLACES:
        return False
    if not ordinary:
        return bool(kind & LAST) if must_be_known else True
    return bool(kind & LAST) or (bool(kind) and not text[token.tail : token.tail + 2].strip().istitle())


def _end_of_name(text: str, tokens: list[_Token], index: int) -> int:
    """End of the name that begins at `index`: capitalised tokens, initials and particles that go on from it."""
    if not tokens[index].cased or text.isupper():
        return _end_of_uncased_name(text, tokens, index)
    end, position, parts = tokens[index].end, index + 1, 1
    while tokens[position - 1].tail == end and position < len(tokens) and parts < 5:
        token = tokens[position]
        gap = text[end : token.start]
        if gap != " " and not (gap == ". " and len(tokens[position - 1].word) == 1):
            break
        if token.low in _PARTICLES and not token.cased:
            ahead = _after_particles(text, tokens, position)
            if ahead is None:
                break
            position, token = ahead, tokens[ahead]
        else:
            initial = len(token.word) == 1 and token.word != "I" and position + 1 < len(tokens)
            if not token.cased or not (initial or (len(token.word) > 1 and _goes_on(text, token, False))):
                break
        end, position, parts = token.end, position + 1, parts + 1
    return end


def _end_of_uncased_name(text: str, tokens: list[_Token], index: int) -> int:
    """In lower case only names of the gazetteer go on from a first name; everyday words only where the name ends."""
    end = tokens[index].tail
    for token in tokens[index + 1 : index + 4]:
        kind, ordinary = _kind(token.low)
        if text[end : token.start] != " " or token.low in _NEVER:
            break
        if token.low in _PARTICLES:
            end = token.tail
            continue
        closed = _NAME_ENDS.match(text, token.end) is not None
        joined = tokens[index].end < token.start and text[end - 4 : end].strip() in _PARTICLES
        if not (kind and not ordinary) and not (kind & LAST and closed) and not (joined and not ordinary):
            break
        end = token.tail
        index = tokens.index(token)
    return tokens[index].end


def _after_particles(text: str, tokens: list[_Token], position: int) -> int | None:
    """Index of the capitalised token after "van der …", or `None`."""
    for index in range(position, min(position + 3, len(tokens))):
        token = tokens[index]
        if index > position and text[tokens[index - 1].tail : token.start] != " ":
            return None
        if not (token.low in _PARTICLES and not token.cased):
            return index if token.cased and token.low not in _NEVER else None
    return None
