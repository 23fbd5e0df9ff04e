"""Which kind of step each step is: the kind names its image (deploy/images) and its resources (configs/runs)."""

from typing import Literal, get_args

Kind = Literal["data", "train", "export"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_STEPS: dict[Kind, str] = {
    # what comes from phones, what goes to them, and the books: no torch
    "data": """
        collect scrub validate drift label select evaluation_prompts previous_release release load_release people
        champion plan_rollout count_uses register approval publish start_canary refresh decide announce
        generate_corpus train_recognizer audit_recognizer package_recognizer
    """,
    # what computes gradients
    "train": "train_adapter",
    # what opens models to convert, to ask or to measure them
    "export": """
        prepare_base export_gguf parity measure_budget sample_answers evaluate check_safety judge
    """,
}
KIND_OF: dict[str, Kind] = {step: kind for kind, steps in _STEPS.items() for step in steps.split()}
"""The kind of every step of `steps/`, by the step's name."""
