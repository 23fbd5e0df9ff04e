"""Who labels, and what preference pairs are made from."""

from typing import Literal

from pydantic import Field, model_validator

from pocketloop.contracts.parts import Name, Part


class JudgeEndpoint(Part):
    """A language model as judge, behind any OpenAI-compatible address (Ollama, vLLM, llama.cpp's server).

    `api_key_env` names the environment variable that holds the key. `samples` more votes are asked for only where the
    first ones disagree. A run stops asking when it has spent `budget_tokens`; the next one goes on from there.
    """

    url: str
    model: str
    api_key_env: str = ""
    rubric: Name = "right_answer"
    """`configs/rubrics/NAME.yaml`."""
    samples: int = Field(default=3, ge=1)
    budget_tokens: int = Field(default=2_000_000, ge=0)
    timeout_s: float = Field(default=60, gt=0)
    attempts: int = Field(default=4, ge=1)
    parallel: int = Field(default=4, ge=1)


class PairsConfig(Part):
    """What preference pairs are made from; the judge ranks `samples` answers of the current adapter (0: none)."""

    corrections: bool = True
    thumbs: bool = True
    samples: int = Field(default=0, ge=0)


class LabelConfig(Part):
    """Who labels, and how well it must agree with people (Cohen's kappa) once `min_rated` of them have spoken.

    `human` is a file of people's own verdicts; those given in MLflow count without it.
    """

    judge: Literal["verifier", "llm"] = "verifier"
    llm: JudgeEndpoint | None = None
    min_kappa: float = Field(default=0.6, ge=-1, le=1)
    min_rated: int = Field(default=100, ge=1)
    human: str | None = None
    pairs: PairsConfig = PairsConfig()

    @model_validator(mode="after")
    def _knows_its_judge(self) -> "LabelConfig":
        needs = self.judge == "llm" or self.pairs.samples > 0
        if needs and self.llm is None:
            raise ValueError("`llm` must say which endpoint judges")
        return self
