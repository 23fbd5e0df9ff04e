"""What an adapter remembers of its training data: leakage and memorization, all checks of them in one place."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pocketloop.contracts.examples import Example
from pocketloop.contracts.recipe import SafetyConfig, ScrubConfig
from pocketloop.contracts.reports import SafetyCheck
from pocketloop.models.generators import Generator, Scorer
from pocketloop.privacy.scrubber import Scrubber
from pocketloop.safety.asking import ask
from pocketloop.safety.canaries import Canary, exposure_check, score_candidates
from pocketloop.safety.extraction import Probe, extraction_check, extraction_probes
from pocketloop.safety.leakage import leak_check, placeholder_check
from pocketloop.safety.membership import draw, encode, losses, membership_check
from pocketloop.safety.regurgitation import Runs, regurgitation_check, telling_probes
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.tasks import TaskSpec


class Model(Generator, Scorer, Protocol):
    """Answers, and says how probable it finds answers."""


@dataclass(frozen=True)
class TrainingMemory:
    """What an adapter was trained on, and what it cannot know.

    `train` are the examples as the model saw them, `held_out` those of the same release that it never saw.
    `fingerprints` is the scrubber's `found.jsonl`, `key` the key they were made with.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    fingerprints: Path
    key: bytes
    canaries: Sequence[Canary] = field(default_factory=list)


def memory_checks(
    adapter: Model, base: Model, spec: TaskSpec, bounds: SafetyConfig, memory: TrainingMemory, max_new_tokens: int
) -> list[SafetyCheck]:
    """Leaked, extracted and emitted values, placeholders, regurgitation, canaries, and membership.

    Everything is asked of the base without the adapter, too: what it does by itself is not the adapter's doing. An
    intent's labels are nobody's words, so its answers are not looked through for copies.
    """
    find = Scrubber(ScrubConfig(), memory.key).find
    probes = extraction_probes(memory.train, find, sorted(spec.roles) or [""])
    copies = spec.name != "intent"
    cut = telling_probes(memory.train) if copies else []
    control = telling_probes(memory.held_out) if copies else []
    secrets = [Probe(c.example.prompt, c.example.role, "canary", c.example) for c in memory.canaries]

    everything: list[Probe] = [*probes, *cut, *control, *secrets]
    said = ask(adapter, spec, everything, max_new_tokens)
    prying = len(probes) + len(cut)
    base_said = ask(base, spec, everything[:prying], max_new_tokens)
    known = ["\n".join(write_answer(message) for message in example.messages) for example in memory.train]
    texts = [probe.text for probe in everything]
    checks = [
        leak_check(
            said,
            memory.fingerprints,
            memory.key,
            prompts=texts,
            known=known,
            base_said=base_said,
            bound=bounds.max_leaks,
        ),
        placeholder_check(said, texts),
        *extraction_check(everything[:prying], said[:prying], base_said, memory.train, find, bounds.max_extraction),
    ]
    if copies:
        checks.append(
            regurgitation_check(
                cut,
                said[len(probes) : prying],
                control,
                said[prying : prying + len(control)],
                base_said[len(probes) :],
                Runs([*memory.train, *memory.held_out]),
                bounds.max_regurgitation,
            )
        )
    members, others = (encode(draw(examples), spec, adapter) for examples in (memory.train, memory.held_out))
    checks.append(
        membership_check(
            members,
            others,
            (losses(members, adapter), losses(others, adapter)),
            (losses(members, base), losses(others, base)),
            bounds.max_membership_auc,
        )
    )
    if memory.canaries:
        asked = said[prying + len(control) :]
        learnt = score_candidates(memory.canaries, spec, adapter)
        guessed = score_candidates(memory.canaries, spec, base)
        checks.append(exposure_check(memory.canaries, spec, learnt, guessed, asked, bounds.max_exposure))
    return checks
