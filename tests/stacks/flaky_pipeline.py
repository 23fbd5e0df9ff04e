"""A pipeline whose one step fails the first time."""

from pathlib import Path

from zenml import pipeline, step


@step(enable_cache=False)
def people(count: str) -> None:
    """Leave a dot in the file `count`; fail while there is only one."""
    with open(count, "a") as written:
        written.write(".")
    if len(Path(count).read_text()) < 2:
        raise OSError("the server restarts")


@pipeline(enable_cache=False)
def once(count: str) -> None:
    """The step alone."""
    people(count)
