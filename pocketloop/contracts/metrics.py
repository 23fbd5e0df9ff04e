"""The names of everything that is measured, by task: a gate on anything else is a mistake in the recipe."""

from pocketloop.contracts.names import Task

ITEM_METRICS: dict[Task, tuple[str, ...]] = {
    "intent": ("intent_accuracy", "intent_out_of_scope"),
    "function_call": ("function_exact", "function_name", "function_right", "function_valid"),
    "chat": ("chat_token_f1", "chat_right", "chat_call", "chat_nonempty", "chat_checks", "chat_checks_loose"),
}
"""Each item has its own, so that two models can be compared item by item; the main one first."""

_ARGUMENTS = ("argument_precision", "argument_recall", "carried_recall", "dialogue_right")
AGAINST_CHAMPION = ("chat_win_rate", "chat_win_rate_even_length")
"""What a judge says of the candidate beside the champion: not measured where there is none yet."""
SET_METRICS: dict[Task, tuple[str, ...]] = {
    "intent": ("intent_macro_f1",),
    "function_call": _ARGUMENTS,
    "chat": (*_ARGUMENTS, *AGAINST_CHAMPION),
}
"""Of a set as a whole."""
