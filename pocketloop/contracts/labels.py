"""What judges and people answer: a rubric is the question, a verdict the answer to it about one answer of the model."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator

from pocketloop.contracts.events import Identifier, Message
from pocketloop.contracts.files import canonical_json, sha256_text
from pocketloop.contracts.names import Task
from pocketloop.contracts.parts import Part

Says = Literal["right", "wrong"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]

RIGHT_ANSWER: Name = "right_answer"
"""The rubric that the programmatic verifier and people's thumbs answer: is this answer right?"""


class Criterion(Part):
    """One thing that a right answer fulfils; its name is the reason that a verdict gives."""

    name: Name
    text: str = Field(min_length=1)


class RubricExample(Part):
    """A judged case that is shown to the judge. `criterion` is the one that a wrong answer breaks."""

    said: str = Field(min_length=1)
    answer: str
    verdict: Says
    criterion: Name | None = None


class Rubric(Part):
    """`configs/rubrics/NAME.yaml`: what a judge is asked. Raise `version` whenever the question changes."""

    rubric: Name
    version: int = Field(ge=1)
    question: str = Field(min_length=1)
    criteria: list[Criterion] = Field(min_length=1)
    right: str = Field(min_length=1)
    """When the verdict is `right`."""
    wrong: str = Field(min_length=1)
    prefer: str = Field(min_length=1)
    """Which of two answers is the better one."""
    examples: list[RubricExample] = Field(default_factory=list)

    @field_validator("criteria")
    @classmethod
    def _are_distinct(cls, criteria: list[Criterion]) -> list[Criterion]:
        names = [criterion.name for criterion in criteria]
        if len(set(names)) != len(names) or "none" in names:
            raise ValueError("criteria need names of their own, and `none` says that none is broken")
        return criteria

    @property
    def digest(self) -> str:
        """Digest of everything that the judge is told."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))

    @property
    def label(self) -> str:
        """Name, version and digest, as reports give them."""
        return f"{self.rubric} v{self.version} {self.digest[:12]}"


class HumanVerdict(Part):
    """What one person said about one answer. `drawn` tells why they were shown it.

    Answers that were shown because judge and thumb disagree say nothing about how often they do: only those drawn at
    random (or chosen by the people themselves, as in a file) count towards the agreement.
    """

    event_id: Identifier | None = None
    example_id: Identifier | None = None
    rubric: Name = RIGHT_ANSWER
    verdict: Says
    rater: str = ""
    source: Literal["file", "mlflow"] = "file"
    drawn: Literal["random", "disagreement"] = "random"


class ForPeople(Part):
    """An answer that people are asked about: scrubbed text, and the judge's word on it.

    `why`: judge and person disagree; or it was drawn at random, and then the judge's word is not shown.
    """

    event_id: str
    group: str
    task: Task
    rubric: str
    judge: str
    messages: list[Message]
    says: Says
    reason: str
    person: Says | None
    why: Literal["disagreement", "random"]


class Duel(NamedTuple):
    """Two answers to one conversation: the candidate's and the one it is compared with."""

    prompt: list[Message]
    ours: Message
    theirs: Message


class Preferred(NamedTuple):
    """Whether a judge preferred our answer when it was shown first, and when it was shown second."""

    when_first: bool
    when_second: bool
