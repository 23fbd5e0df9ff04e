from pathlib import Path

import pytest
from sample_candidates import RELEASE, register_sample

from pocketloop.contracts.home import Home
from pocketloop.registry.mlflow_store import CHAMPION, REJECTED, client, released_name
from pocketloop.registry.touched import versions_trained_on

pytestmark = pytest.mark.slow


def test_versions_say_how_far_they_got(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    made = {
        name: register_sample(home, tmp_path / name, name).version
        for name in ("candidate", "rejected", "released", "canary", "stable")
    }
    api, released = client(home), released_name("functions")
    api.set_model_version_tag("functions", made["rejected"], REJECTED, "too chatty")
    copies = {
        name: api.copy_model_version(f"models:/functions/{made[name]}", released).version
        for name in ("released", "canary", "stable")
    }
    api.set_model_version_tag(released, copies["canary"], "rollout.state", "running")
    api.set_registered_model_alias(released, CHAMPION, copies["stable"])
    register_sample(home, tmp_path / "other", "other", adapter="intents")

    found = versions_trained_on(home, {RELEASE.digest})
    assert {v.version: v.state for v in found if v.adapter == "functions"} == {made[name]: name for name in made}
    assert [(v.version, v.state) for v in found if v.adapter == "intents"] == [("1", "candidate")]
    assert versions_trained_on(home, {"another release"}) == []


def test_without_a_touched_release_no_store_is_opened(tmp_path: Path) -> None:
    assert versions_trained_on(Home(tmp_path / "home"), []) == []
    assert not (tmp_path / "home").exists()
