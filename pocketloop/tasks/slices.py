"""What kind of item an example is: evaluation reports each kind by itself."""

from pocketloop.contracts.examples import Example


def slices_of(example: Example, reference: str) -> dict[str, str]:
    """The example's value in each dimension; `reference` is the class of its right answer.

    What the data says (`Example.slices`: locale, user ...) comes with what can be seen: `length` of the user's last
    words, `intent` or `tool` of the right answer, `agent` of a role, `turn` of a dialogue.
    """
    users = [message.content for message in example.prompt if message.role == "user"]
    seen = {
        **example.slices,
        "length": _length(len(users[-1].split()) if users else 0),
        "intent" if example.task == "intent" else "tool": reference,
    }
    if example.role:
        seen["agent"] = example.role
    if example.dialogue:
        answered = sum(message.role == "assistant" for message in example.prompt)
        seen["turn"] = str(answered + 1) if answered < 4 else "5 or later"
    return seen


def _length(words: int) -> str:
    return "1 to 5 words" if words <= 5 else "6 to 12 words" if words <= 12 else "over 12 words"
