"""Decide: one look at what the fleet reported; widen, hold or roll back every running rollout."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery
from pocketloop.contracts.rollout import Rollout
from steps.stage import moment, stage


@step(enable_cache=False)
def decide(adapter: str, as_of: str) -> Annotated[list[Rollout], "rollouts"]:
    """The rollouts to tell of, each with its newest decision and evidence last; already in force.

    `as_of` (RFC 3339) looks as of another moment than now: for simulated fleets and replays.
    """
    from pocketloop.delivery.repository import Repository
    from pocketloop.delivery.rollouts import RolloutStore, watch_once

    with stage("decide") as this:
        home = Home()
        store, repository = RolloutStore(home.rollouts), Repository.open(load_delivery(), home)
        ours = [r for r in store.all() if adapter in ("", r.adapter)]
        running = [r for r in ours if r.state == "running"]
        now = moment(as_of)
        for rollout in running:
            decision = watch_once(repository, store, rollout, home.telemetry, now)
            print(f"  {rollout.adapter}@{rollout.version}: {decision.action}, {decision.reason}", flush=True)
        this.done(f"{len(running)} running rollouts", **{r.rollout_id: r.decisions[-1].action for r in running})
        return [r for r in ours if r in running or store.untold(r)]
