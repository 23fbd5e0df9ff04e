import json
from pathlib import Path

import pytest

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.home import Home
from pocketloop.contracts.recipe import Recipe
from pocketloop.data.forget import TouchedRelease, bury, traces_of
from pocketloop.data.received import Received

pytestmark = pytest.mark.slow


def test_a_release_with_a_forgotten_device_in_it_is_not_trained_on(home: Path, zenml_home: Path) -> None:
    from datetime import UTC, datetime

    from steps.release import load_release

    (home / "releases" / "abc").mkdir(parents=True)
    (home / "releases" / "abc" / "release.json").write_text("{}")
    (home / "releases" / "latest-functions.json").write_text(json.dumps({"digest": "abc"}))
    touched = [TouchedRelease(digest="abc", adapter="functions", records=1)]
    received = Received(str(home / "received"))
    bury(Home(), received, traces_of(Home(), "d1"), touched, datetime(2026, 11, 20, tzinfo=UTC))
    sources = {"sources": [{"kind": "events", "skill": "functions"}]}
    recipe = Recipe.model_validate({"adapter": "functions", "task": "chat", "base": "tiny", "data": sources})
    with pytest.raises(DataError, match=r"release abc holds records.*forgotten on 2026-11-20.*pocketloop curate"):
        load_release.entrypoint(recipe)


def test_scratch_folders_of_living_processes_are_left_alone(home: Path, zenml_home: Path) -> None:
    import os
    from datetime import UTC, datetime

    from steps.forget import forget

    living, ended = home / "work" / f"{os.getpid()}-scrub-x", home / "work" / "999999999-scrub-y"
    for folder in (living, ended):
        folder.mkdir(parents=True)
    report = forget(Home(), Received(str(home / "received")), "d1", datetime(2026, 11, 20, tzinfo=UTC))
    assert (report.work, report.running, report.known) == (1, 1, False)
    assert living.is_dir() and not ended.exists()
