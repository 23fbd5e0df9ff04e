"""The errors that a user can cause and mend. Anything else that is raised is a bug (exit status `UNEXPECTED`)."""

UNEXPECTED = 70
"""Exit status of a bug."""
_STAGE = "in stage "


class PocketloopError(Exception):
    """Base of all expected errors: the message says what was wrong, where, and what to do."""

    exit_code = 1


class ConfigError(PocketloopError):
    """A recipe, base, stack or catalogue file is wrong (exit status 2)."""

    exit_code = 2


class DataError(PocketloopError):
    """Input data cannot be used: a missing file, an unknown format, nothing left after filtering."""


class LabelQualityError(DataError):
    """The judge agrees too little with people to be trusted with labels."""


class ModelError(PocketloopError):
    """A base or an adapter is missing, damaged, or not the one that was named."""


class TrainingInterrupted(PocketloopError):
    """Training was asked to end (SIGTERM) and saved where it stands (exit status 143, as the signal gives)."""

    exit_code = 143


class ExportError(PocketloopError):
    """A model cannot be expressed in the asked format, or the exported file behaves differently."""


class AdapterBusy(PocketloopError):
    """Another process runs this adapter (exit status 75: the same command succeeds later)."""

    exit_code = 75


class GateFailed(PocketloopError):
    """A candidate did not pass its gates (exit status 3)."""

    exit_code = 3


class RegistryError(PocketloopError):
    """The registry does not hold what was asked for."""


class ReviewRefused(RegistryError):
    """A released version does not count: what is wrong with it."""


class DeliveryError(PocketloopError):
    """The repository of published adapters, its keys or a rollout is not in the state that was asked for."""


class DeviceError(PocketloopError):
    """A device could not take, or refused, what it was offered; what it runs is unchanged."""


def note_stage(error: BaseException, stage: str) -> None:
    """Remember with an error in which stage of a pipeline it arose."""
    error.add_note(f"{_STAGE}{stage}")


def stage_of(error: BaseException) -> str:
    """The stage in which an error, or what it was raised from, arose; empty outside of a pipeline."""
    at: BaseException | None = error
    while at is not None:
        for note in getattr(at, "__notes__", []):
            if note.startswith(_STAGE):
                return str(note.removeprefix(_STAGE))
        at = at.__cause__ or at.__context__
    return ""
