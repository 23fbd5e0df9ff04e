"""The whole way: a candidate, a person's approval in MLflow's pages, a signed publish, and a fleet that decides.

Real: the command line and its pipelines, MLflow and its button, keys, repository, HTTP, collector, watcher, and a few
phones with llama.cpp. Simulated: time, and how the other phones are used.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pytest
from browsing import PATIENCE, choose_promotion, chromium, confirm
from command_line import SMALL, Fleet
from free_port import free_port
from until import until_served

from pocketloop.contracts.delivery import MILLION, ChannelPolicy, bucket
from pocketloop.contracts.home import Home
from pocketloop.contracts.rollout import Decision, Rollout
from pocketloop.delivery.rollouts import RolloutStore
from pocketloop.device import fleet as fleets
from pocketloop.device.errors import NoChannel
from pocketloop.device.fleet_clients import RealClients
from pocketloop.device.fleet_model import NEW, Channel, Clock, moment
from pocketloop.device.fleet_scenarios import START, Scenario, load_scenario
from pocketloop.export.base import open_base
from pocketloop.models.llama_cpp import LlamaCppGenerator
from pocketloop.models.probes import failed_probes
from pocketloop.services import cdn, collector
from pocketloop.services.running import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PHONES, REAL, STEP_HOURS, WARMUP_HOURS = 1000, 4, 12.0, 48.0
ROLLOUT = [*SMALL, "--set=rollout=small"]


class Phones(RealClients):
    """Real clients that know the base alone until their adapter's channel is published for the first time."""

    def policy(self) -> ChannelPolicy:
        try:
            return super().policy()
        except NoChannel:
            return ChannelPolicy(
                adapter=self.channel.adapter, base_digest=self.channel.base_digest, generation=1, updated=START
            )

    def sync(self, number: int) -> str | None:
        try:
            return super().sync(number)
        except NoChannel:
            return None


class Lived(NamedTuple):
    """How a rollout ended for the fleet."""

    outcome: fleets.Outcome
    rollout: Rollout
    clock: Clock
    clients: RealClients
    simulated: fleets.Fleet


def placed(salt: str) -> list[str]:
    """Ids that the salt puts where the same phones always are: in the canary, in its control, or in neither.

    A rollout's salt follows the adapter's digest, and that the processor's rounding. With ids that do not follow the
    salt one rollout in ten takes longer than its plan says.
    """
    tenths = np.random.default_rng(5).permutation(PHONES) % 10
    tried = ([f"phone-{number:04d}-{attempt}" for attempt in range(500)] for number in range(PHONES))
    return [
        next(one for one in ids if bucket(salt, one) * 10 // MILLION == tenth)
        for ids, tenth in zip(tried, tenths, strict=True)
    ]


@contextmanager
def mlflow_pages(fleet: Fleet) -> Iterator[str]:
    port = free_port()
    server = fleet.start("ui", "--port", str(port))
    try:
        url = f"http://127.0.0.1:{port}"
        until_served(f"{url}/health", server)
        yield url
    finally:
        fleet.stop(server)


def live_through(
    fleet: Fleet, scenario: Scenario, adapter: str, new: str, old: str | None, clock: Clock, ids: list[str]
) -> Lived:
    """Let the fleet live until the rollout has ended; the command line promotes, and looks after each step."""
    home = fleet.home
    base = open_base(next(path for path in home.bases.iterdir() if not path.name.startswith(".")))
    channel = Channel(adapter, base.manifest.digest, old, new)
    simulated = fleets.Fleet(scenario.population, scenario.effects, PHONES, seed=5)
    simulated.ids = ids

    def command(name: str, now: datetime) -> None:
        fleet.run(name, adapter, "--as-of", now.strftime("%Y-%m-%dT%H:%M:%S"))

    def watch(now: datetime) -> Decision:
        if newest(home).state == "running":
            command("watch", now)
        return newest(home).decisions[-1]

    apps = (
        running(cdn.create_app(home.cdn)),
        running(collector.create_app(home.telemetry, flush_reports=1, clock=clock)),
    )
    with apps[0] as repository, apps[1] as posts, LlamaCppGenerator(base.quantized, base.tokenizer) as runtime:

        def probe(file, companion) -> int:
            runtime.set_adapter(file)
            return failed_probes(runtime, companion.probes)

        root = (home.keys / "root.json").read_bytes()
        folder = home.root / f"phones-{clock.hours:g}"
        clients = Phones(folder, repository, root, channel, simulated.ids[:REAL], probe, clock)
        simulation = fleets.Simulation(
            simulated,
            channel,
            clients,
            fleets.Collector(posts),
            clock,
            begin=lambda now: command("promote", now),
            watch=watch,
            hours=STEP_HOURS,
        )
        outcome = simulation.run(scenario.model_copy(update={"warmup_hours": clock.hours + WARMUP_HOURS}))
    return Lived(outcome, newest(home), clock, clients, simulated)


def newest(home: Home) -> Rollout:
    return RolloutStore(home.rollouts).all()[-1]


@pytest.fixture(scope="session")
def repository(fleet: Fleet, first_run: str) -> Fleet:
    """Keys, an empty signed repository, and the base that phones have."""
    fleet.run("cdn", "init")
    fleet.run("cdn", "add-base", "tiny")
    fleet.run("cdn", "sign")
    fleet.run("cdn", "publish")
    return fleet


@pytest.fixture(scope="session")
def candidate(repository: Fleet) -> str:
    """A candidate that asks for the small ladder; training is reused from the first run."""
    repository.run("train", "functions", *ROLLOUT)
    return json.loads(repository.run("review", "list", "functions", "--json"))[0]["version"]


@pytest.fixture(scope="session")
def good(repository: Fleet, candidate: str) -> Lived:
    """A person presses MLflow's button; the adapter is as good as what phones had."""
    with mlflow_pages(repository) as url, chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        confirm(choose_promotion(page, url, "functions", candidate))
        page.wait_for_url("**/models/functions.released/versions/**")
    new = json.loads(repository.run("review", "show", f"functions@{candidate}", "--json"))
    digest = file_digest(repository, new["version"])
    salt = f"functions-{moment(WARMUP_HOURS):%Y%m%d-%H%M%S}-{digest[:8]}"
    lived = live_through(repository, load_scenario("good"), "functions", digest, None, Clock(), placed(salt))
    assert lived.rollout.rollout_id == salt
    return lived


def file_digest(fleet: Fleet, version: str) -> str:
    traced = json.loads(fleet.run("trace", f"functions@{version}", "--json"))
    return traced["bundle"]["files"]["adapter.gguf"]


def test_a_good_adapter_that_a_person_approved_reaches_every_phone_in_the_plans_order_of_time(good: Lived) -> None:
    assert good.outcome.state == "complete"
    assert [d.action for d in good.rollout.decisions if d.action != "hold"] == ["start", "widen", "finish"]
    assert not good.outcome.astray
    assert (good.simulated.holds == NEW).all()
    assert all(good.clients.runs(number) == good.rollout.digest for number in range(REAL))
    assert good.rollout.plan is not None and good.rollout.plan.late_days is not None
    # One rollout in ten is later than that, and which one depends on the adapter's last bit: twice as late was seen.
    assert good.outcome.decided_hours / 24 <= 4 * good.rollout.plan.late_days


def test_the_champion_is_what_the_fleet_runs_and_its_page_in_mlflow_tells_how_it_got_there(
    repository: Fleet, good: Lived
) -> None:
    from pocketloop.registry.mlflow_store import champion, client

    served = champion(repository.home, "functions")
    assert served is not None and served.version == good.rollout.version
    described = client(repository.home).get_model_version("functions.released", good.rollout.released).description
    assert "to everybody" in described or "100 %" in described
    assert (repository.home.rollouts / f"{good.rollout.rollout_id}.html").stat().st_size > 10_000


@pytest.fixture(scope="session")
def bad(repository: Fleet, good: Lived) -> Lived:
    """Another candidate passes its gates, and crashes on people's phones."""
    repository.run("train", "functions", *ROLLOUT, "--set=train.seed=8", "--set=train.stages.0.sft.epochs=1")
    version = json.loads(repository.run("review", "list", "functions", "--json"))[0]["version"]
    repository.run("review", "approve", f"functions@{version}")
    new = file_digest(repository, version)
    ids = good.simulated.ids
    return live_through(repository, load_scenario("bad"), "functions", new, good.rollout.digest, good.clock, ids)


def test_a_bad_adapter_is_taken_back_from_every_phone_before_it_reached_them_all(bad: Lived) -> None:
    assert bad.outcome.state == "rolled_back"
    assert "finish" not in [decision.action for decision in bad.rollout.decisions]
    assert bad.rollout.decisions[-1].why in ("harm", "segment_harm")
    assert not bad.outcome.astray
    assert not (bad.simulated.holds == NEW).any()
    assert all(bad.clients.runs(number) == bad.rollout.previous for number in range(REAL))


def test_the_champion_stays_what_it_was(repository: Fleet, good: Lived, bad: Lived) -> None:
    from pocketloop.registry.mlflow_store import champion

    served = champion(repository.home, "functions")
    assert served is not None and served.version == good.rollout.version


def test_what_was_taken_back_is_not_started_again(repository: Fleet, bad: Lived) -> None:
    printed = repository.run("promote", "functions", "--json")
    assert json.loads(printed[printed.index("\n{") :])["state"] == "nothing"


def test_a_phone_explains_why_it_runs_what_it_runs(repository: Fleet, bad: Lived) -> None:
    repository.run("device", "sync", "--adapter", "functions", "--device-id", "phone-1")
    told = repository.run("device", "explain", "--adapter", "functions")
    assert str(bad.rollout.previous)[:12] in told
