"""What every section of a configuration file shares."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A section whose unknown keys are errors and which never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def mistakes(self) -> list[tuple[tuple[str | int, ...], str]]:
        """What cannot be meant although each part is valid: where it stands, and why."""
        return []
