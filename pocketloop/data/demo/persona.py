"""A made-up assistant that keeps the name, the formality and the humour that its user chose in the app."""

from random import Random

from pocketloop.contracts.examples import Check, SaysNoneOf, SaysOneOf
from pocketloop.data.demo._random import Split
from pocketloop.data.demo.exchange import Exchange, part, say

NAMES = """Nova; Mila; Otto; Juno; Pixel; Luna; Ari; Echo; Sol; Kiko; Atlas; Ruby; Milo; Iris; Sage; Orion; Piper; Zed;
Coco; Felix; Hazel; Indy; Jasper; Kit; Leo; Maple; Nico; Olive; Pepper; Remy; Skye; Theo; Uno; Violet; Wren; Yuki"""
TOPICS = """my letters; the garden; a birthday card; my French; cooking; the taxes; a new hobby; my playlists; the move;
my speech; a travel plan; spelling; the shopping; my essay; fixing the bike; a bedtime story; my budget; the party;
learning chess; the dog; my homework; table manners; the news; small talk; a riddle"""
JOKES = (
    "Why did the phone wear glasses? It lost its contacts.",
    "Why did the clock rest? It was wound up.",
    "Why did the book smile? It knew the ending.",
    "Why did the lamp laugh? It saw the light.",
    "Why did the key sing? It found its note.",
    "Why did the bike nap? It was two tired.",
)
_JOKE = "why did the"

_SYSTEM: dict[Split, tuple[str, ...]] = {
    "train": (
        "Your name is {name}. Tone: {tone}. Humour: {humour}.",
        "You are called {name}. Be {tone}. Humour is {humour}.",
        "Name: {name}; tone: {tone}; humour: {humour}",
    ),
    "heldout": (
        "You are {name}. Keep a {tone} tone, with humour {humour}.",
        "I call you {name}. {tone}, humour {humour}.",
    ),
}
_ASKED: dict[str, dict[Split, tuple[str, ...]]] = {
    "who": {
        "train": (
            "Who are you?",
            "What is your name?",
            "(Hi|Hello|Good morning), who is this?",
            "What are you called?",
        ),
        "heldout": ("Tell me your name.", "(Hello there|Hey), how should I call you?", "May I know your name?"),
    },
    "help": {
        "train": (
            "Can you help me with {topic}?",
            "I need help with {topic}.",
            "{name}, would you help me with {topic}?",
            "(Hi|Hey) {name}, I need (help|advice) with {topic}.",
            "Do you know about {topic}?",
        ),
        "heldout": (
            "Could you lend me a hand with {topic}?",
            "I would like some support with {topic}, {name}.",
            "{name}, what do you make of {topic}?",
        ),
    },
    "thanks": {
        "train": (
            "Thank you!",
            "Thanks (a lot|so much|for that), {name}.",
            "That was (great|helpful), thank you {name}.",
        ),
        "heldout": ("I really appreciate it, thanks {name}.", "{name}, many thanks for your help with {topic}."),
    },
    "bye": {
        "train": (
            "Good night {name}.",
            "Bye (for now|then|), {name}.",
            "I have to go now.",
            "See you (later|tomorrow) {name}.",
        ),
        "heldout": ("I am off to bed, {name}.", "Until next time.", "So long {name}, I'm leaving for {topic}."),
    },
}
_ANSWERS = {
    ("who", "formal"): "Good day, my name is {name}. How may I assist you?",
    ("who", "casual"): "Hey, {name} here! What's up?",
    ("help", "formal"): "Certainly. {name} will gladly assist you with {yours}.",
    ("help", "casual"): "Sure thing! {name} can help with {yours}.",
    ("thanks", "formal"): "You are most welcome. {name} remains at your service.",
    ("thanks", "casual"): "No problem! {name} is happy to help.",
    ("bye", "formal"): "Farewell. {name} wishes you a pleasant time.",
    ("bye", "casual"): "See you! {name} says bye.",
}
_WORDS = {
    "formal": ["good day", "certainly", "most welcome", "farewell", "may i", "gladly", "at your service"],
    "casual": ["hey", "sure thing", "no problem", "see you", "what's up"],
}


def exchange(rng: Random, split: Split) -> Exchange:
    """A remark to an assistant with a name, a tone (formal or casual) and humour (on or off)."""
    name, topic = rng.choice(part(NAMES, split)), rng.choice(part(TOPICS, split))
    tone, other = rng.sample(("formal", "casual"), 2)
    humour = rng.choice(("on", "off"))
    kind = rng.choice(list(_ASKED))
    answer = _ANSWERS[kind, tone].format(name=name, yours=topic.replace("my ", "your "))
    if humour == "on":
        answer = f"{answer} {rng.choice(JOKES)}"
    checks: list[Check] = [
        SaysOneOf(any=[name]),
        SaysOneOf(any=_WORDS[tone]),
        SaysNoneOf(any=_WORDS[other]),
        SaysOneOf(any=[_JOKE]) if humour == "on" else SaysNoneOf(any=[_JOKE]),
    ]
    system = rng.choice(_SYSTEM[split]).format(name=name, tone=tone, humour=humour)
    return Exchange(say(rng, _ASKED[kind][split], topic=topic, name=name), answer, checks, system)
