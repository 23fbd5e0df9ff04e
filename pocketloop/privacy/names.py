"""First names and surnames of many countries, from Faker's locale providers, and the everyday words among them."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import resources

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
FIRST, LAST = 1, 2
_forgotten: set[str] = set()


@lru_cache(maxsize=1)
def ordinary_words() -> frozenset[str]:
    """Everyday English words, places and brands, lower-cased (`ordinary_words.txt`)."""
    text = resources.files("pocketloop.privacy").joinpath("ordinary_words.txt").read_text(encoding="utf-8")
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


def _lists(provider: type, part: str) -> set[str]:
    """All names in a provider's class attributes whose name speaks of `part` (some locales split them by gender)."""
    found: set[str] = set()
    for attribute in dir(provider):
        if part in attribute and "name" in attribute and not attribute.startswith("_") and "format" not in attribute:
            value = getattr(provider, attribute)
            if isinstance(value, (tuple, list, dict, set)):
                found.update(item for item in value if isinstance(item, str))
    return found


@lru_cache(maxsize=1)
def gazetteer() -> dict[str, int]:
    """Lower-cased single-word names of all locales: `FIRST`, `LAST`, or both bits set. About 50,000, in half a second.

    Words that are also everyday English stay in: whoever asks decides what context they need.
    """
    import importlib
    import pkgutil

    from faker.providers import person

    names: dict[str, int] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(person.__path__)):
        provider = importlib.import_module(f"{person.__name__}.{module}").Provider
        for part, bit in (("first", FIRST), ("last", LAST)):
            for name in _lists(provider, part):
                for word in _words(name):
                    names[word] = names.get(word, 0) | bit
    return {word: bits for word, bits in names.items() if word not in _forgotten}


@contextmanager
def forgotten(words: Iterable[str]) -> Iterator[None]:
    """Within, the gazetteer does not know these lower-cased words: how names are found that nobody has listed."""
    _forgotten.update(words)
    gazetteer.cache_clear()
    try:
        yield
    finally:
        _forgotten.clear()
        gazetteer.cache_clear()


@lru_cache(maxsize=128)
def names_of(locale: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sorted first names and surnames of one Faker locale (`de_DE`), as written."""
    import importlib

    provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
    first = sorted(_lists(provider, "first"))
    last = sorted(_lists(provider, "last"))
    return tuple(first), tuple(last)


@lru_cache(maxsize=8)
def words_of_locales(locales: tuple[str, ...]) -> frozenset[str]:
    """Every word of every name of these locales, lower-cased."""
    return frozenset(word for locale in locales for part in names_of(locale) for name in part for word in _words(name))


def words_of_name(name: str) -> frozenset[str]:
    """The words of one name, lower-cased."""
    return frozenset(_words(name))


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name) if len(word) >= 2]
