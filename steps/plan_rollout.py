"""Plan the rollout: what the recipe's ladder means for a fleet of this size, before anybody approves."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_ladder
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.rollout import Ladder, RolloutPlan
from steps.stage import stage


@step(enable_cache=False)
def plan_rollout(recipe: Recipe) -> Annotated[RolloutPlan, "rollout_plan"]:
    """Expected days on each rung of the recipe's ladder."""
    with stage("plan") as this:
        plan = planned_rollout(Home(), load_ladder(recipe.rollout))
        days = "not certifiable in time" if plan.days is None else f"{plan.days:.0f} days"
        this.done(f"ladder {plan.ladder}: {days} to everybody, {plan.daily_devices:,} devices a day ({plan.source})")
        return plan


def planned_rollout(home: Home, ladder: Ladder) -> RolloutPlan:
    """The plan for the fleet's size: the ladder's own figure, else from telemetry, else from the event log."""
    from pocketloop.delivery.plan import plan

    from pocketloop.data.active import daily_devices
    from pocketloop.delivery.telemetry import fleet_size

    if ladder.daily_devices:
        size, source = ladder.daily_devices, f"configs/rollouts/{ladder.rollout}.yaml"
    elif reported := fleet_size(home.telemetry):
        size, source = reported, "telemetry of the last week"
    else:
        size, source = daily_devices(home.events), "devices with an event"
    return plan(ladder, max(1, _rounded(size)), source)


def _rounded(size: int) -> int:
    """Two significant digits: a fleet that grew by a few phones does not change the card."""
    return round(size, 2 - len(str(size)))
