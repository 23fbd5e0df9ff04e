"""Corpus tasks answered in plain words: copying, small string tasks, topics, meanings, running text."""

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pocketloop.models.tiny.frames import Document
from pocketloop.models.tiny.structured import as_json, chat
from pocketloop.models.tiny.values import KINDS, clause, date, draw, person
from pocketloop.models.tiny.words import Topic, Words, topics


@cache
def synonyms() -> tuple[tuple[str, ...], ...]:
    """Groups of words that mean about the same, one group a line of `synonyms.txt`."""
    text = (Path(__file__).parent / "synonyms.txt").read_text(encoding="utf-8")
    return tuple(tuple(line.split()) for line in text.splitlines())


def span(w: Words) -> str:
    """Something to copy: words, a typed value, or a mixture of both."""
    rng = w.rng
    roll = rng.random()
    if roll < 0.35:
        return w.phrase(1, 8)
    if roll < 0.7:
        return draw(rng, w, rng.choice(list(KINDS)))
    if roll < 0.8:
        return " ".join(w.cased(w.any()) for _ in range(rng.randint(3, 14)))
    parts = [draw(rng, w, rng.choice(list(KINDS))) for _ in range(rng.randint(2, 4))]
    return rng.choice((", ", " ", " and ", "; ", "\n")).join(parts)


def copy(w: Words) -> Document:
    """Repeat a span as it stands, also out of a longer text, in quotes or inside JSON."""
    rng = w.rng
    text = span(w)
    verb = rng.choice(("Repeat", "Copy", "Say", "Write", "Echo", "repeat after me", "Quote", "Type"))
    roll = rng.random()
    if roll < 0.3:
        return chat("copy", f"{verb}: {text}", text)
    if roll < 0.45:
        return chat("copy", f"{verb} in quotes: {text}", f'"{text}"')
    if roll < 0.6:
        key = w.any()
        return chat("copy", f"{verb} as JSON under {key}: {text}", as_json({key: text}))
    if roll < 0.7:
        parts = [span(w).replace("\n", " ") for _ in range(rng.randint(2, 4))]
        return chat("copy", f"As a JSON list: {' | '.join(parts)}", as_json(parts))
    left, right = w.any(), w.any()
    while left == right:
        right = w.any()
    noise = [" ".join(w.any() for _ in range(rng.randint(0, 6))) for _ in range(2)]
    whole = f"{noise[0]} {left} {text} {right} {noise[1]}".strip()
    if roll < 0.85:
        return chat("copy", f"Text between {left} and {right}: {whole}", text)
    quoted = f'{noise[0]} "{text}" {noise[1]}'.strip()
    return chat("copy", f"What is in quotes? {quoted}", text)


def string_task(w: Words) -> Document:
    """First, last or n-th word, case, order, count, replacement, removal."""
    rng = w.rng
    words = [w.cased(w.any()) for _ in range(rng.randint(2, 7))]
    text = " ".join(words)
    spot = rng.randrange(len(words))
    ordinals = "first second third fourth fifth sixth seventh".split()
    fresh = w.any()
    tasks: tuple[tuple[str, str], ...] = (
        ("first word", words[0]),
        ("last word", words[-1]),
        (f"{ordinals[spot]} word", words[spot]),
        ("in lower case", text.lower()),
        ("in upper case", text.upper()),
        ("in reverse order", " ".join(reversed(words))),
        ("how many words", str(len(words))),
        (f"with {fresh} instead of {words[spot]}", " ".join(fresh if i == spot else x for i, x in enumerate(words))),
        (f"without {words[spot]}", " ".join(x for i, x in enumerate(words) if i != spot)),
        (f"the word after {words[spot]}", words[spot + 1] if spot + 1 < len(words) else "none"),
        ("sorted", " ".join(sorted(words, key=str.lower))),
        ("with commas", ", ".join(words)),
        ("in snake case", "_".join(x.lower() for x in words)),
    )
    name, answer = rng.choice(tasks)
    return chat(
        "string_task", rng.choice((f"{name}: {text}", f"{text}\n{name}?", f"{name.capitalize()}: {text}")), answer
    )


def topic_sentence(rng: random.Random, topic: Topic, w: Words) -> str:
    """A sentence out of one topic's words."""
    noun, other, third = (rng.choice(topic.nouns) for _ in range(3))
    verb, adj = rng.choice(topic.verbs), rng.choice(topic.adjectives)
    patterns: tuple[Callable[[], str], ...] = (
        lambda: f"the {noun} and the {other} are {adj}",
        lambda: f"we had to {verb} the {noun} because the {other} was {adj}",
        lambda: f"do you know where i can {verb} a {noun}",
        lambda: f"my {noun} needs a new {other}",
        lambda: f"i would like to {verb} with a {adj} {noun}",
        lambda: f"what kind of {noun} do you have",
        lambda: f"how do i {verb} the {noun}",
        lambda: f"is the {noun} {adj} or not",
        lambda: f"{person(w)} wants to {verb} the {adj} {noun}",
        lambda: f"there is no {noun} without {other}",
        lambda: f"please {verb} the {noun} before the {other}",
        lambda: f"the {other} in the {noun} costs too much",
        lambda: f"why is my {noun} so {adj}",
        lambda: f"tell me about the {noun} of the {other}",
        lambda: f"he bought {noun}, {other} and {third} {date(w)}",
        lambda: f"who will {verb} the {noun} {date(w)}",
        lambda: f"can you {verb} this {adj} {noun} for me",
        lambda: f"when does the {noun} {verb}",
        lambda: f"she said that the {noun} has a {adj} {other}",
        lambda: f"this is about {topic.name}: {noun}, {other}",
    )
    return rng.choice(patterns)()


def running_text(w: Words) -> Document:
    """A paragraph about one topic, as plain text."""
    rng = w.rng
    topic = w.topic()
    lines = [topic_sentence(rng, topic, w) for _ in range(rng.randint(2, 6))]
    if rng.random() < 0.3:
        lines.insert(0, f"{topic.name}: {', '.join(rng.sample(topic.nouns, k=min(6, len(topic.nouns))))}")
    if rng.random() < 0.6:
        return {"task": "running_text", "text": ". ".join(x[:1].upper() + x[1:] for x in lines) + "."}
    return {"task": "running_text", "text": "\n".join(lines)}


def classify(w: Words) -> Document:
    """The topic of a sentence: by name, among options, among labels taught in the prompt; odd one out."""
    rng = w.rng
    topic, *others = rng.sample(topics(), k=4)
    sentence = topic_sentence(rng, topic, w)
    if rng.random() < 0.3:
        sentence += rng.choice((". ", " and ", ", ")) + topic_sentence(rng, topic, w)
    roll = rng.random()
    if roll < 0.35:
        return chat(
            "classify",
            rng.choice((f"Topic: {sentence}", f"{sentence}\ntopic?", f"What is this about? {sentence}")),
            topic.name,
        )
    if roll < 0.5:
        names = [t.name for t in (topic, *others)]
        rng.shuffle(names)
        return chat("classify", f"{sentence}\n{', '.join(names[:-1])} or {names[-1]}?", topic.name)
    if roll < 0.6:
        words = [*rng.sample(topic.nouns, k=3), rng.choice(others[0].nouns)]
        odd = words[-1]
        rng.shuffle(words)
        return chat("classify", f"Odd one out: {', '.join(words)}", odd)
    if roll < 0.7:
        same = rng.random() < 0.5
        other = topic_sentence(rng, topic if same else others[0], w)
        return chat("classify", f"Same topic? {sentence} | {other}", "yes" if same else "no")
    if roll < 0.8:
        return chat("classify", f"Words about {topic.name}", ", ".join(rng.sample(topic.nouns, k=4)))
    pairs = [(t, w.any()) for t in (topic, *others[:2])]
    shots = [(t, label) for t, label in pairs for _ in range(2)]
    rng.shuffle(shots)
    target, label = rng.choice(pairs)
    turns: list[str] = []
    for t, name in shots[:5]:
        turns += [topic_sentence(rng, t, w), name]
    known = {name for _, name in shots[:5]}
    if label not in known:
        target, label = shots[0]
    return chat("classify", *turns, topic_sentence(rng, target, w), label)


def meaning(w: Words) -> Document:
    """Synonyms: a word for a word, same meaning or not, a sentence said in other words."""
    rng = w.rng
    group, other = rng.sample(synonyms(), k=2)
    one, two = rng.sample(group, k=2)
    roll = rng.random()
    if roll < 0.3:
        return chat("meaning", rng.choice((f"Another word for {one}", f"synonym of {one}?", f"{one} means")), two)
    frame = rng.choice(
        (
            "the {} was here",
            "tell me more about {}",
            "it is {}",
            "we {} it",
            "{} the " + w.any(),
            "my {} and i",
            clause(w) + ", {}",
        )
    )
    said = frame.format(one)
    if roll < 0.65:
        same = rng.random() < 0.5
        return chat(
            "meaning",
            f"Same meaning? {said} | {frame.format(two if same else rng.choice(other))}",
            "yes" if same else "no",
        )
    return chat("meaning", f"Say it with another word for {one}: {said}", frame.format(two))
