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
    + """st av ln drive dr court ct place pl square sq ter way row pkwy circle cir hwy trail trl close grove park
    hill loop plaza walk quay wharf green rise view crossing pike run path bypass ville burgh ports? islands?
    mountains? lakes? falls? forges? keys? springs? spurs? stravenue stream summit track trafficway tunnel unions?
    valleys? via viaduct villages? vista wall walks ways wells? branch bridge brooks? burgs? camp canyon cape
    causeway centers? circles cliffs? club common corners? course courts coves? creek crest crossroad curve dale dam
    divide drives estates? extensions? ferry fields? flats? fords? forest forks? fort freeway garden gateway glens?
    greens groves harbors? haven heights hills hollow inlet isle junctions? knolls? landing lights? loaf locks?
    lodge mall manors? meadows? mills? mission motorway mount neck orchard oval overpass parks parkways pass passage
    pines? plains? plazas points? prairie radial ramp ranch rapids? rest ridges? river roads route rue shoals?
    shores? skyway squares station streets throughway trace real"""
)
_DIRECTIONS = "north south east west northeast northwest southeast southwest"
_DIRECTION = rf"(?:(?:[NSEW]|[NS][EW]|{_any(_DIRECTIONS)})\.?\s+)?"
_UNITS = "apt apartment suite ste unit flat floor fl room rm lot"
_UNIT = rf"(?:,?\s+(?:{_any(_UNITS)}\b\.?\s*#?\s*\w{{1,5}}|#\s?\w{{1,5}}))?"
_US_TAIL = rf"(?:,?\s+(?:{_NAME}[ ]?){{1,3}},?\s+[A-Z]{{2}}\s+\d{{5}}(?:-\d{{4}})?)?"
_ENGLISH = re.compile(
    rf"{_FREE}\d{{1,6}}(?:-?[a-zA-Z])?(?:-\d{{1,4}})?,?\s+{_DIRECTION}"
    rf"(?:(?:{_NAME}|\d{{1,3}}(?i:st|nd|rd|th)|de|la|el|of|the)\s+){{1,4}}{_any(_SUFFIXES)}\b\.?"
    rf"(?:\s+(?:[NSEW]|[NS][EW]|{_any(_DIRECTIONS)})\b)?{_UNIT}{_US_TAIL}"
)
_ENGLISH_LOWER = re.compile(
    rf"{_FREE}\d{{1,6}}[a-z]?\s+{_DIRECTION}((?:[a-z'’-]+\s+|\d{{1,3}}(?:st|nd|rd|th)\s+){{1,3}}?)"
    rf"{_any(_SURE_SUFFIXES)}\b\.?{_UNIT}",
    re.I,
)
_NOT_IN_NAMES = set(
    """minute minutes min mins hour hours second seconds day days week weeks month months year years people person
    persons mile miles km kilometers meters metres feet percent degrees dollars times time pm am o'clock new of the
    a an at on in to for from by and or my your his her their our next this that is are was with down up more other
    items copies tickets rooms bedrooms stars blocks steps songs points friends guests""".split()
)
_NUMBERED = re.compile(
    rf"{_FREE}\d{{1,5}}\s+{_DIRECTION}(?:Broadway|The\s+{_NAME}|Avenue\s+[A-Z]\b|Highway\s+\d+){_UNIT}"
)
_PO_BOX = re.compile(r"\bP\.?\s?O\.?\s?Box\s+\d{1,6}", re.I)
_UK_POSTCODE = re.compile(r"(?<!\w)[A-Z]{1,2}\d[A-Z\d]?\s?\d[A-Z]{2}(?!\w)")

_TOWN = rf"(?:,?\s+(?:[A-Z]{{1,2}}-)?\d{{4,5}}(?:\s?[A-Z]{{2}})?\s+{_NAME}(?:\s{_NAME})?)?"
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
_FRENCH = re.compile(
    rf"{_FREE}\d{{1,4}}(?:\s?(?i:bis|ter|quater))?,?\s+"
    + _any(
        "rue avenue av\\. boulevard bd\\.? place chemin allée impasse quai cours route passage faubourg villa"
        " camino avenida calle"
    )
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
_ROMANCE_LOWER = re.compile(
    rf"(?<!\w)(?:calle|avenida|via|viale|piazza|corso|rua|plaza|paseo)\s+{_LINK}[^\W\d_]{{3,}}"
    rf"(?:\s{_LINK}[^\W\d_]{{3,}}){{0,2}}\s*,?\s*{_NUMBER}{_TOWN}"
)
_SLAVIC = re.compile(
    "(?<!\\w)"
    + _any("ul\\. ulica ulicy al\\. aleja alei aleje pl\\. plac os\\. osiedle ulice náměstí nám\\. třída")
    + rf"\s+(?:{_NAME}\s?){{1,3}}\s*{_NUMBER}{_TOWN}"
)
_FORMS = (_NUMBERED, _PO_BOX, _UK_POSTCODE, _JOINED, _APART, _PREPOSITION, _FRENCH, _ROMANCE, _ROMANCE_LOWER, _SLAVIC)


def addresses(text: str, _region: str) -> Iterator[Span]:
    """Street addresses with a house number; the town belongs to it where a postal code follows."""
    if not has_digit(text):
        return
    for match in _ENGLISH.finditer(text):
        yield _span(match, 0.8)
    for match in _ENGLISH_LOWER.finditer(text):
        if not _NOT_IN_NAMES.intersection(match.group(1).lower().split()):
            yield _span(match, 0.7)
    for pattern in _FORMS:
        for match in pattern.finditer(text):
            yield _span(match, 0.8)


def _span(match: re.Match[str], score: float) -> Span:
    """The match without the comma or full stop of the sentence around it."""
    value = match.group().rstrip(" ,")
    if value.endswith(".") and not value.lower().endswith((" st.", " ave.", " rd.", " blvd.", " dr.", " ln.")):
        value = value[:-1]
    return Span(match.start(), match.start() + len(value), "ADDRESS", score)
