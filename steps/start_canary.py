"""Start the canary: a fresh salt, the ladder's first rung, and an equal-sized control."""

from typing import Annotated

from zenml import step

from pocketloop.contracts.files import Folder
from pocketloop.contracts.home import Home
from pocketloop.contracts.loading import load_delivery, load_ladder
from pocketloop.contracts.recipe import Recipe
from pocketloop.contracts.rollout import Promotion
from steps.announce import tell
from steps.plan_rollout import planned_rollout
from steps.stage import moment, stage


@step(enable_cache=False)
def start_canary(promotion: Promotion, bundle: Folder, as_of: str) -> Annotated[Promotion, "started"]:
    """Serve a published adapter to the first rung; waits while another rollout runs on the channel.

    `as_of` (RFC 3339) begins at another moment than now: for simulated fleets and replays.
    """
    from pocketloop.delivery.repository import Repository
    from pocketloop.delivery.rollouts import RolloutStore, start_rollout

    with stage("canary") as this:
        if promotion.state != "published":
            this.done(promotion.detail)
            return promotion
        home, now = Home(), moment(as_of)
        store = RolloutStore(home.rollouts)
        running = store.running(promotion.adapter, str(promotion.base_digest))
        if running is not None:
            detail = f"published; starts when rollout {running.rollout_id} of version {running.version} has ended"
            this.done(detail)
            return promotion.model_copy(update={"state": "waiting", "detail": detail})
        recipe = Recipe.model_validate_json((bundle / "recipe.json").read_text(encoding="utf-8"))
        ladder = load_ladder(recipe.rollout)
        rollout = start_rollout(
            Repository.open(load_delivery(), home),
            store,
            ladder,
            promotion,
            planned_rollout(home, ladder, promotion.adapter, str(promotion.base_digest), now),
            now,
        )
        first = rollout.decisions[-1]
        tell(home, rollout)
        this.done(f"rollout {rollout.rollout_id}: {first.reason}", rollout=rollout.rollout_id)
        return promotion.model_copy(
            update={"state": "started", "detail": first.reason, "rollout_id": rollout.rollout_id}
        )
