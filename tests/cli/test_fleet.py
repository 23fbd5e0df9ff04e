import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pocketloop.cli import fleet
from pocketloop.contracts.errors import ConfigError, ModelError, PocketloopError
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_base_config
from pocketloop.contracts.rollout import Guardrail, Ladder, Rung
from pocketloop.delivery import rollouts
from pocketloop.device.fleet_scenarios import Effect, Expected, Population, Scenario
from pocketloop.export.base import PreparedBase, prepare_base

LADDER = """
rollout: rehearsal
rungs:
  - {percent: 20, min_hours: 24, loosen: 4}   # for a few thousand devices
  - {percent: 50, min_hours: 72, loosen: 2}
  - {percent: 100, min_hours: 0}
guardrails:
  - {metric: crashes, max_ratio: 1.5}
  - {metric: reverts, max_ratio: 2.0}
  - {metric: fallbacks, limit: 0.3, at_least: 10, max_ratio: 1.3}
  - {metric: thumbs_down, limit: 0.5, at_least: 3, max_ratio: 1.5}
  - {metric: slow, limit: 0.2, at_least: 20, max_ratio: 1.5}
  - {metric: silent, max_ratio: 1.5}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of the module's own: the base is prepared once.

    A rollout's id assigns phones to arms. It ends with the file's digest, which follows the base's, and that the
    processor's rounding: without it, the same phones meet the same luck on every machine.
    """
    folder = tmp_path_factory.mktemp("fleet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETLOOP_HOME", str(folder / "home"))
        patch.setattr(rollouts, "_rollout_id", lambda promotion, now: f"{promotion.adapter}-{now:%Y%m%d-%H%M%S}")
        yield folder


@pytest.fixture(scope="module")
def base(shared: Path) -> PreparedBase:
    return prepare_base(load_base_config("tiny"), "Q4_K_M", Home().bases)


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    fleet.add_to(app)
    result = CliRunner().invoke(app, ["fleet", *arguments])
    if isinstance(result.exception, PocketloopError):
        raise result.exception
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_scenarios_are_listed_with_how_they_should_end() -> None:
    code, text = run("scenarios", "--json")
    listed = {row["scenario"]: row["expect"] for row in json.loads(text)}
    assert code == 0
    assert listed["good"] == "complete"
    assert listed["one-locale"] == "rolled_back by fallbacks in locale=de-DE"
    assert listed["too-small"] == "holding"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--scenario", "nothing"), ConfigError, "there are bad, crashing, good"),
        (("--ladder", "nothing"), ConfigError, "nothing"),
        (("--adapter-file", "absent.gguf"), ConfigError, "no such file"),
        (("--adapter-file", "a.gguf", "--candidate", "functions"), ConfigError, "give one"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: tuple[str, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run("simulate", *arguments)


def test_a_home_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    with pytest.raises(ConfigError, match="not empty"):
        run("simulate", "--home", str(tmp_path))


def test_a_file_that_is_no_adapter_is_refused_before_anything_is_published(base: PreparedBase, tmp_path: Path) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"not an adapter")
    with pytest.raises(ModelError, match="adapter"):
        run("simulate", "--adapter-file", str(file), "--home", str(tmp_path / "kept"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "devices"),
    [("good", 2000), ("slow", 2000), ("crashing", 4000), ("one-locale", 4000), ("silent", 1000), ("novelty", 2000)]
    + [("bad", 1000)],
)
def test_a_scenario_ends_as_expected_and_no_device_is_left_astray(
    base: PreparedBase, tmp_path: Path, scenario: str, devices: int
) -> None:
    ladder = tmp_path / "rehearsal.yaml"
    ladder.write_text(LADDER)
    code, text = run(
        *("simulate", "--scenario", scenario, "--ladder", str(ladder), "--devices", str(devices)),
        *("--real", "3", "--look-hours", "12", "--seed", "1", "--json"),
    )
    report = json.loads(text)
    assert report["problems"] == []
    assert code == 0
    assert report["devices_astray"] == 0
    assert report["settled_hours"] is not None
    assert Path(report["page"]).read_text().lstrip().lower().startswith("<!doctype html>")


@pytest.mark.slow
def test_a_fleet_too_small_for_its_ladder_is_never_widened_and_the_plan_says_so(base: PreparedBase) -> None:
    code, text = run(
        "simulate", "--scenario", "too-small", "--real", "2", "--look-hours", "12", "--days", "8", "--json"
    )
    report = json.loads(text)
    assert (code, report["problems"], report["planned_days"]) == (0, [], None)
    assert set(report["decisions"]) == {"hold"}
    assert len(report["rungs"]) == 1


@pytest.mark.slow
def test_a_small_fleet_gets_through_the_ladder_made_for_it(base: PreparedBase) -> None:
    # With two dozen devices an arm some fleets are held on the first rung by chance.
    for seed in ("2", "3", "4"):
        command = ("simulate", "--scenario", "small", "--real", "2", "--look-hours", "12", "--seed", seed, "--json")
        code, text = run(*command)
        report = json.loads(text)
        assert set(report["decisions"]) <= {"hold", "widen", "finish"}
        if code == 0:
            break
    assert (code, report["problems"], report["ended"]) == (0, [], "complete")
    assert report["devices_on_new"] == report["devices"] == 300


@pytest.mark.slow
def test_a_rollout_that_ends_otherwise_than_expected_fails_the_command(base: PreparedBase, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("scenario: wrong\nabout: x\nladder: small\ndevices: 60\ndays: 1\nexpect: {state: complete}\n")
    code, text = run("simulate", "--scenario", str(file), "--real", "1", "--look-hours", "12")
    assert code == 1
    assert "otherwise than expected: the rollout should end complete, and is holding" in " ".join(text.split())


@pytest.mark.slow
def test_a_registered_candidate_can_be_rehearsed_with_its_own_file(base: PreparedBase, tmp_path: Path) -> None:
    from sample_candidates import register_sample

    from pocketloop.contracts.files import sha256_file
    from pocketloop.services.fleet_files import random_adapter

    file = random_adapter(base, tmp_path / "mine.gguf", 99)
    register_sample(Home(), tmp_path / "bundle", "mine", file=file, base_digest=base.manifest.digest)
    kept = tmp_path / "kept"
    arguments = ("--scenario", "small", "--days", "1", "--devices", "60", "--home", str(kept))
    code, _ = run("simulate", "--candidate", "functions@1", "--look-hours", "12", *arguments)
    assert code == 1  # a day is too short
    assert list((kept / "cdn").rglob(f"*{sha256_file(file)}.gguf"))
    assert not any(path.exists() for path in (Home().cdn, Home().telemetry, Home().rollouts))


@pytest.mark.slow
def test_a_seed_gives_the_same_rollout_again(base: PreparedBase) -> None:
    arguments = ("simulate", "--scenario", "small", "--days", "2", "--devices", "80", "--real", "2", "--json")
    reports = [json.loads(run(*arguments, "--seed", seed)[1]) for seed in ("4", "4", "5")]
    for report in reports:
        del report["bytes"], report["page"], report["seed"]  # signatures differ in length, keys are new each time
    assert reports[0] == reports[1]
    assert reports[0] != reports[2]


@pytest.mark.slow
def test_real_clients_in_a_crash_loop_go_back_and_agree_with_the_model(base: PreparedBase, tmp_path: Path) -> None:
    from pocketloop.services.fleet import open_sandbox, simulate
    from pocketloop.services.fleet_files import random_adapter

    old, new = (random_adapter(base, tmp_path / f"{seed}.gguf", seed) for seed in (1, 2))
    ladder = Ladder(
        rollout="loop",
        rungs=[Rung(percent=50), Rung(percent=100)],
        guardrails=[Guardrail(metric="crashes")],
        min_devices=1000,
    )
    scenario = Scenario(
        scenario="loop",
        about="the app does not start",
        days=4,
        warmup_hours=24,
        population=Population(leaves_a_day=0, sessions_a_day=10),
        effects=[Effect(crashes=10_000)],
        expect=Expected(state="holding"),
    )
    report = simulate(
        scenario,
        open_sandbox(Home(tmp_path / "home"), base, old, new, ladder),
        base,
        devices=20,
        real=20,
        seed=1,
        look_hours=12,
        page=tmp_path / "page.html",
    )
    assert report.problems == [] or report.ended.startswith("rolled_back")
    assert report.devices_that_went_back_themselves > 3
    assert report.devices_astray == 0


@pytest.mark.slow
def test_a_rehearsal_keeps_the_decision_of_every_look(base: PreparedBase, tmp_path: Path) -> None:
    from pocketloop.device.fleet_scenarios import load_scenario
    from pocketloop.services.fleet import rehearse

    scenario = load_scenario("bad").model_copy(update={"ladder": "small", "days": 3.0})
    seen = rehearse(scenario, base, tmp_path / "rehearsal", devices=300)
    assert len(seen.decisions) == sum(seen.report.decisions.values()) >= len(seen.rollout.decisions) - 1
    assert seen.rollout.decisions[-1] == seen.decisions[-1]
    assert seen.rollout.ladder.rollout == "small"
    assert seen.report.real_devices == 5
