"""Plan the rollout: what the recipe's ladder means for a fleet of this size, before anybody approves."""

from datetime import UTC, datetime
from typing import Annotated

from zenml import step

from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_ladder
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.reports import BaseManifest
from pocketloop.contracts.rollout import Ladder, RolloutPlan
from steps.stage import stage


@step(enable_cache=False)
def plan_rollout(recipe: Recipe, base_manifest: BaseManifest) -> Annotated[RolloutPlan, "rollout_plan"]:
    """Expected days on each rung of the recipe's ladder."""
    with stage("plan") as this:
        plan = planned_rollout(
            Home(), load_ladder(recipe.rollout), recipe.adapter, base_manifest.digest, datetime.now(UTC)
        )
        fleet = f"{plan.daily_devices:,} devices a day ({plan.source})"
        if plan.days is None:
            this.done(f"ladder {plan.ladder} asks for more than {fleet}")
        else:
            late = f", nine in ten within {plan.late_days:.0f}" if plan.late_days is not None else ""
            this.done(f"ladder {plan.ladder}: {plan.days:.0f} days to everybody{late}; {fleet}")
        return plan


def planned_rollout(home: Home, ladder: Ladder, adapter: str, base_digest: str, now: datetime) -> RolloutPlan:
    """The plan for the fleet as it is at `now`.

    Its size is the ladder's own figure, else what telemetry shows, else what the event log shows; how often its devices
    are affected without any rollout comes from telemetry.
    """
    from pocketloop.data.active import daily_devices
    from pocketloop.delivery.plan import measure, plan
    from pocketloop.delivery.telemetry import fleet_size

    reported = fleet_size(home.telemetry, now)
    if ladder.daily_devices:
        size, source = ladder.daily_devices, f"configs/rollouts/{ladder.rollout}.yaml"
    elif reported:
        size, source = reported, "telemetry of the last week"
    else:
        size, source = daily_devices(home.events), "devices with an event"
    baseline = measure(ladder, home.telemetry, adapter, base_digest, now) if reported else None
    return plan(ladder, max(1, _rounded(size)), source, baseline)


def _rounded(size: int) -> int:
    """Two significant digits: a fleet that grew by a few phones does not change the card."""
    return round(size, 2 - len(str(size)))
