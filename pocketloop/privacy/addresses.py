"""Street addresses in the forms of several countries: number first (English, French) or last (most others)."""

import re
from collections.abc import Iterator

from pocketloop.privacy.patterns import has_digit
from pocketloop.privacy.spans import Span


def _any(words: str) -> str:
    """A group that matches any of the words, whatever their case."""
    return "(?i:" + "|".join(words.split()) + ")"


_NAME = r"[A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĖĘĚĞĢĪĮİĶŁĻŃŅŇŐŒŔŘŚŞŠŢŤŪŮŰŲŹŻŽ][\w'’.-]*"
_NUMBER = r"\d{1,5}(?:\s?[a-zA-Z](?!\w))?(?:[-/]\d{1,4}[a-zA-Z]?)?(?!\w|[.:]\d|\s?(?i:[ap]m|uhr)\b)"
_FREE = r"(?<!\w)(?<!\d[.,:/-])(?<![#$€£])"

_SURE_SUFFIXES = """street avenue boulevard road lane terrace parkway highway crescent gardens mews alley turnpike
    expressway esplanade ave blvd rd"""
_SUFFIXES = (
    _SURE_SUFFIXES
    + """ st av ln drive dr court ct place pl square sq ter way row pkwy circle cir hwy trail trl close grove park
    hill loop plaza walk quay wharf green rise view crossing pike run path bypass ville burgh ports? islands?
    mountains? lakes? falls? forges? keys? springs? spurs? stravenue stream summit track trafficway tunnel unions?
    valleys? via viaduct villages? vista wall walks ways wells? branch bridge brooks? burgs? camp canyon cape
    causeway centers? circles cliffs? club common corners? course courts coves? creek crest crossroad curve dale dam
    divide drives estates? extensions? ferry fields? flats? fords? forest forks? fort freeway garden gateway glens?
    greens groves harbors? haven heights hills hollow inlet isle junctions? knolls? landing lights? loaf locks?
    lodge mall manors? meadows? mills? mission motorway mount neck orchard oval overpass parks parkways pass passage
    pines? plains? plazas points? prairie radial ramp ranch rapids? rest ridges? river roads route rue shoals?
    shores? skyway squares station streets throughway trace real marg nagar chowk ganj"""
)
_DIRECTIONS = "north south east west northeast northwest southeast southwest"
_DIRECTION = rf"(?:(?:[NSEW]|[NS][EW]|{_any(_DIRECTIONS)})\.?\s+)?"
_UNITS = "apt apartment suite ste unit flat floor fl room rm lot"
_UNIT = rf"(?:,?\s+(?:{_any(_UNITS)}\b\.?\s*#?\s*\w{{1,5}}|#\s?\w{{1,5}}))?"
_US_TAIL = rf"(?:,?\s+(?:{_NAME}[ ]?){{1,3}},?\s+[A-Z]{{2}}\s+\d{{5}}(?:-\d{{4}})?)?"
_FLAT_FIRST = r"(?:(?i:flat|studio|unit|apt\.?|h\.?\s?no\.?)\s*(?:\w{1,4},\s*)?)?"
_STREET_WORD = rf"(?:{_NAME}|\d{{1,3}}(?i:st|nd|rd|th))"
_ENGLISH = re.compile(
    rf"{_FLAT_FIRST}{_FREE}\d{{1,6}}(?:-?[a-zA-Z])?(?:[-/]\d{{1,4}})?,?\s+{_DIRECTION}"
    rf"{_STREET_WORD}\s+(?:(?:{_STREET_WORD}|de|la|of)\s+){{0,3}}{_any(_SUFFIXES)}\b\.?"
    rf"(?:\s+(?:[NSEW]|[NS][EW]|{_any(_DIRECTIONS)})\b)?{_UNIT}{_US_TAIL}"
)
_SURE_SUFFIX = re.compile(rf"\b{_any(_SURE_SUFFIXES)}\b")
_NOT_IN_NAMES = set(
    """minute minutes min mins hour hours second seconds day days week weeks month months year years people person
    persons mile miles km kilometers meters metres feet percent degrees dollars times time pm am o'clock new a an at
    on in to for from by and or my your his her their our next this that is are was with down up more other items
    copies tickets rooms bedrooms stars blocks steps songs points friends guests email text mail phone january february
    march april may june july august september october november december""".split()
)
_WHERE = re.compile(r"\b(?:to|at|from|is|of)\s+$", re.I)
_NUMBERED = re.compile(
    rf"{_FREE}\d{{1,5}}\s+{_DIRECTION}(?:Broadway|The\s+{_NAME}|Avenue\s+[A-Z]\b|Highway\s+\d+){_UNIT}"
)
_PO_BOX = re.compile(r"\bP\.?\s?O\.?\s?Box\s+\d{1,6}", re.I)
_UK_POSTCODE = re.compile(r"(?<!\w)[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}(?!\w)")

_FLATS = "puerta piso planta bajo escalera apartamento appartamento piano interno bloco andar apt appt étage"
_FLAT = rf"(?:,?\s+{_any(_FLATS)}\.?\s+\w{{1,4}})"
_TOWN = rf"{_FLAT}?(?:,?\s+(?:[A-Z]{{1,2}}-)?\d{{4,5}}(?:\s?[A-Z]{{2}})?\s+{_NAME}(?:\s{_NAME})?)?"
_SURE_ENDINGS = (
    "straße strasse str\\. straat gatan vägen laan gracht gasse allee platz vej veien vegen plein dijk singel"
)
_ENDINGS = "weg damm ufer pfad chaussee kade hof gränd gata steig"
_JOINED = re.compile(
    rf"(?<!\w)(?:{_NAME}\s+){{0,2}}(?:[^\W\d_][\w-]*{_any(_SURE_ENDINGS)}|{_NAME}{_any(_ENDINGS)})\s+{_NUMBER}{_TOWN}"
)
_APART = re.compile(
    rf"(?<!\w)(?:(?:{_NAME}|{_any('an auf zum zur im unter der den dem alten neuen')})[ ]){{1,4}}"
    r"(?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Damm|Ufer|Ring|Straat|Laan|Plein|utca|út|tér)"
    rf"\s+{_NUMBER}{_TOWN}"
)
_PREPOSITION = re.compile(
    rf"(?<!\w)(?:Am|Im|Zum|Zur|An de[rn]|Auf de[mr]|Unter den|In der)\s+{_NAME}\s+{_NUMBER}{_TOWN}"
)
_LINK = (
    r"(?:(?:(?i:del?|della|delle|des|dei|degli|du|di|da|do|dos|das|la|las|los|les?|el|santa|san|e|y|i)\s+)"
    r"|(?i:dell|d|l)['’])*"
)
_FRENCH_STREETS = """rue avenue av\\. boulevard bd\\.? place chemin allée impasse quai cours route passage faubourg
    villa camino avenida calle"""
_FRENCH = re.compile(
    rf"{_FREE}\d{{1,4}}(?:\s?(?i:bis|ter|quater))?,?\s+"
    + _any(_FRENCH_STREETS)
    + rf"\s+{_LINK}(?!(?i:for|to|at|in|and|the|is|near|of)\b)[\w'’-]+(?:\s{_LINK}{_NAME})*{_TOWN}"
)
_ROMANCE_STREETS = """calle c/ avenida avda\\.? av\\. plaza pza\\.? paseo carrera cra\\.? camino ronda rambla
    glorieta pasaje cuesta callejón cañada acceso urbanización alameda via viale piazza piazzale corso vicolo largo
    strada rotonda contrada borgo canale stretto incrocio rua r\\. travessa praça estrada rodovia avinguda carrer
    bulevardul"""
_ROMANCE = re.compile(
    rf"(?<!\w){_any(_ROMANCE_STREETS)}(?<=[\w./])(?:(?<=/)|\s+){_LINK}{_NAME}(?:\s+{_LINK}{_NAME}){{0,4}}"
    rf"\s*,?\s*(?:(?i:n)[.º°o]{{0,2}}\s?|#\s?)?{_NUMBER}(?:\s?-\s?\d{{1,3}})?{_TOWN}"
)
_SLAVIC = re.compile(
    "(?<!\\w)"
    + _any("ul\\. ulica ulicy al\\. aleja alei aleje pl\\. plac os\\. osiedle ulice náměstí nám\\. třída")
    + rf"\s+(?:{_NAME}\s?){{1,3}}\s*{_NUMBER}{_TOWN}"
)
_NUMBER_NAMED = re.compile(
    "(?<!\\w)"
    + _any(
        "jalan jl\\. gang gg\\. drumul strada aleea șoseaua soseaua bulevardul intrarea splaiul sokak caddesi mahallesi"
    )
    + rf"\s+(?:[^\W\d_][\w'’.-]*\s+){{1,5}}(?i:no|nr|nº|n°)\.?\s*\d{{1,4}}[a-zA-Z]?(?!\w){_TOWN}"
)
_PLACE_NUMBER = re.compile(
    r"(?:(?<=\b[Aa]t )|(?<=\b[Tt]o )|(?<=\b[Ii]s )|(?<=\b[Ff]rom ))"
    rf"{_NAME}(?:\s+{_LINK}{_NAME}){{0,4}},\s?{_NUMBER}{_TOWN}"
)
_NUMBERED_ROOMS = "gate terminal platform room track channel level line exit highway route unit page chapter step mode"
_LIVING = re.compile(
    r"(?i:\b(?:lives?|living|moved|stay(?:s|ing)?|deliver(?:s|ed)?|parcel|package|navigate|directions?|drive|route|address)\b"
    r"[^.,;!?]{0,40}?\b(?:at|to|is|in)\s+)"
    rf"(?P<value>(?!{_any(_NUMBERED_ROOMS)}\b){_NAME}(?:\s+{_LINK}{_NAME}){{0,3}}\s+{_NUMBER}{_TOWN})"
)
_FORMS = (
    _NUMBERED,
    _PO_BOX,
    _UK_POSTCODE,
    _JOINED,
    _APART,
    _PREPOSITION,
    _FRENCH,
    _ROMANCE,
    _SLAVIC,
    _NUMBER_NAMED,
    _PLACE_NUMBER,
    _LIVING,
)


def addresses(text: str, _region: str) -> Iterator[Span]:
    """Street addresses with a house number; the town belongs to it where a postal code follows.

    The text is searched again as if every word had a capital; everyday words within then speak against an address.
    """
    if not has_digit(text):
        return
    for pattern in (_ENGLISH, *_FORMS):
        for match in pattern.finditer(text):
            yield _span(match, text, 0.8)
    titled = _WORD.sub(lambda match: match.group().title() if len(match.group()) > 2 else match.group(), text)
    if len(titled) != len(text):
        return
    for pattern in (_ENGLISH, *_FORMS):
        for match in pattern.finditer(titled):
            if pattern is _NUMBERED and " The " in match.group():
                continue
            words = match.group("value" if pattern is _LIVING else 0).lower().split()
            sure = pattern is not _ENGLISH or _SURE_SUFFIX.search(match.group())
            if not _NOT_IN_NAMES.intersection(words) and (sure or _WHERE.search(text[: match.start()])):
                yield _span(match, text, 0.7)


_WORD = re.compile(r"[^\W\d_]+")


def is_street(value: str) -> bool:
    """Whether a destination may be somebody's home: it has a number or a street in it.

    A town, "the nearest cinema" or "Heron swimming pool" is where many people go.
    """
    return has_digit(value) or _STREET.search(value) is not None


_STREET = re.compile(
    rf"\b(?:{_any(_SURE_SUFFIXES)}|rue|chemin|allée|impasse|quai|{_any(_ROMANCE_STREETS)}|\w*{_any(_SURE_ENDINGS)})(?!\w)"
)


def _span(match: re.Match[str], text: str, score: float) -> Span:
    """The match without the comma or full stop of the sentence around it."""
    start = match.start("value") if "value" in match.re.groupindex else match.start()
    value = text[start : match.end()].rstrip(" ,")
    if value.endswith(".") and not value.lower().endswith((" st.", " ave.", " rd.", " blvd.", " dr.", " ln.")):
        value = value[:-1]
    return Span(start, start + len(value), "ADDRESS", score)
