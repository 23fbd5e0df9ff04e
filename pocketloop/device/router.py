"""The gateway: which adapter answers a message, or whether the cloud does.

The intent adapter names what a message is about, with the probability that it gives this answer. If that is at least
the threshold, the route table says who answers: a skill's adapter on the device, the cloud, or a refusal. If not, the
message is unclear or complex, and the cloud answers. Whenever the cloud cannot be used (not allowed, not configured, no
network, too slow, cut off), the device answers as well as it can and says that it is not sure.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pocketloop.contracts.errors import ModelError
from pocketloop.contracts.events import Conversation
from pocketloop.contracts.parts import Name, Share
from pocketloop.device.cloud import Cloud, CloudConfig, CloudFault
from pocketloop.device.runtime import Answer, OnText, Runtime, Skill
from pocketloop.device.telemetry import Recorder

CLOUD, REFUSE = "cloud", "refuse"
Source = Literal["device", "cloud", "refusal"]


class RouterConfig(BaseModel):
    """`configs/router.yaml`. A route is the name of a skill's adapter, `cloud`, or `refuse`.

    Of an adapter with several agents, the one answers that is called as the intent is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    intent: Name | None = "intent"
    """The adapter that classifies messages; null sends every message to `default`."""
    threshold: Share = 0.8
    """Least probability of the intent that is trusted; `benchmarks/device.py` shows what each costs and gives."""
    routes: dict[str, Name] = Field(default_factory=dict)
    """Who answers an intent."""
    default: Name = CLOUD
    """Who answers intents that have no route."""
    local: Name | None = None
    """The skill that answers when the cloud cannot, and the intent's own route is no skill; without it, the base."""
    refusal: str = "I can't help with that."
    cloud: CloudConfig | None = None


@dataclass(frozen=True)
class Choice:
    """What the router made of a message."""

    intent: str
    """Empty when there is no intent adapter, or it named none."""
    confidence: float
    route: str
    """A skill, `cloud` or `refuse`."""
    why: str


@dataclass(frozen=True)
class Reply:
    """An answer and where it came from."""

    text: str
    source: Source
    choice: Choice
    skill: str | None
    """The adapter that answered; `None` for the cloud, a refusal, and the base alone."""
    low_confidence: bool
    """The device answered although the cloud should have."""
    why: str
    """Why it was answered like this, for `device chat` and logs; holds nothing that anybody said."""
    latency_ms: float


class Router:
    """Answers conversations with a runtime, the skills on the device, and perhaps the cloud.

    Args:
        find: gives an adapter's skill, or None if this device does not know it; one without a file cannot answer.
        base: the base without an adapter.
        recorder: counts sessions, latencies and fallbacks.
        cloud_allowed: whether the user lets what they say leave the device; may change at any time.
        worked: called with a skill's adapter after it answered.
    """

    def __init__(
        self,
        runtime: Runtime,
        find: Callable[[str], Skill | None],
        base: Skill,
        config: RouterConfig,
        *,
        recorder: Recorder | None = None,
        cloud_allowed: bool = True,
        worked: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.config = config
        self.cloud_allowed = cloud_allowed
        self._runtime = runtime
        self._find = find
        self._base = base
        self._recorder = recorder
        self._worked = worked
        self._cloud = Cloud(config.cloud) if config.cloud else None

    def choose(self, conversation: Conversation) -> Choice:
        """Classify the last message and look up who answers it."""
        name = self.config.intent
        if name is None:
            return Choice("", 1.0, self.config.default, "nothing is classified")
        answer, problem = self._try(name, conversation)
        if answer is None:
            return Choice("", 0.0, CLOUD, problem)
        known = answer.confidence > 0
        intent = answer.text.strip() if known else ""
        if answer.confidence < self.config.threshold or not known:
            self._fell_back(name)
            why = f"{intent or 'no known intent'}, {answer.confidence:.2f} sure, below {self.config.threshold:.2f}"
            return Choice(intent, answer.confidence, CLOUD, why)
        route = self.config.routes.get(intent, self.config.default)
        return Choice(intent, answer.confidence, route, f"{intent}, {answer.confidence:.2f} sure")

    def answer(self, conversation: Conversation, on_text: OnText | None = None) -> Reply:
        """Answer the last message of a conversation.

        Args:
            on_text: takes pieces as they come; `None` takes back all of them, when the cloud fails in the middle.

        Raises:
            ModelError: not even the base can answer.
        """
        started = time.perf_counter()
        show = _Shown(on_text)
        choice = self.choose(conversation)
        why = choice.why

        def reply(text: str, source: Source, skill: str | None = None, sure: bool = True) -> Reply:
            return Reply(text, source, choice, skill, not sure, why, (time.perf_counter() - started) * 1000)

        if choice.route == REFUSE:
            show(self.config.refusal)
            return reply(self.config.refusal, "refusal")
        if choice.route != CLOUD:
            said, problem = self._try(choice.route, conversation, show, choice.intent)
            if said is not None:
                return reply(said.text, "device", choice.route)
            why = f"{why}; {problem}"
        text, problem = self._ask_cloud(conversation, show, choice)
        if text is not None:
            return reply(text, "cloud")
        why = f"{why}; {problem}"
        for name in self._locals(choice):
            said, problem = self._try(name, conversation, show, choice.intent)
            if said is not None:
                return reply(said.text, "device", name, sure=False)
            why = f"{why}; {problem}"
        return reply(self._ask(self._base, conversation, show).text, "device", sure=False)

    def _try(
        self, name: str, conversation: Conversation, show: "_Shown | None" = None, role: str = ""
    ) -> tuple[Answer | None, str]:
        """A skill's answer, or None and why it cannot answer; one that has several agents answers as `role`."""
        skill = self._find(name)
        if skill is None:
            return None, f"no adapter {name} on this device"
        if skill.file is None:
            if self._recorder is not None:
                self._recorder.use(skill.used)
                self._recorder.fell_back(skill.used)
            return None, f"the channel of {name} serves the base alone"
        try:
            answer = self._ask(skill, conversation, show, role)
        except ModelError as error:
            if show is not None:
                show.take_back()
            self._fell_back(name)
            return None, f"{name} cannot be used: {error}"
        self._worked(name)
        return answer, ""

    def _ask(self, skill: Skill, conversation: Conversation, show: OnText | None = None, role: str = "") -> Answer:
        if self._recorder is not None:
            self._recorder.use(skill.used)
        # Adapters for single requests have never seen a conversation.
        asked = conversation if skill.companion.task == "chat" else conversation[-1:]
        answer = self._runtime.answer(asked, skill, show, role=role)
        if self._recorder is not None:
            self._recorder.answered(skill.used, answer.latency_ms)
        return answer

    def _ask_cloud(self, conversation: Conversation, show: "_Shown", choice: Choice) -> tuple[str | None, str]:
        """The cloud's answer, or None and why there is none; pieces of a failed one are taken back."""
        if self._cloud is None:
            return None, "no cloud is configured"
        if not self.cloud_allowed:
            return None, "the cloud is not allowed"
        try:
            return self._cloud.answer(conversation, show), ""
        except CloudFault as fault:
            show.take_back()
            if self.config.intent is not None and choice.confidence >= self.config.threshold:
                self._fell_back(self.config.intent)  # a message below the threshold has been counted
            return None, str(fault)

    def _locals(self, choice: Choice) -> list[str]:
        """Skills that may answer in the cloud's place, best first: what the message seems to be about, then `local`."""
        likely = self.config.routes.get(choice.intent)
        names = dict.fromkeys([likely, self.config.local])
        # A route that is a skill has been tried already.
        return [name for name in names if name and name not in (CLOUD, REFUSE, choice.route)]

    def _fell_back(self, name: str) -> None:
        skill = self._find(name)
        if self._recorder is not None and skill is not None:
            self._recorder.fell_back(skill.used)


class _Shown:
    """Passes pieces on, and knows whether there is anything to take back."""

    def __init__(self, on_text: OnText | None) -> None:
        self._on_text = on_text
        self._any = False

    def __call__(self, piece: str | None) -> None:
        self._any = piece is not None
        if self._on_text is not None:
            self._on_text(piece)

    def take_back(self) -> None:
        if self._any:
            self(None)
