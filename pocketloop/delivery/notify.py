"""Tell somebody else's system about a decision. It is told or it is not; a rollout never waits for it."""

from pocketloop.contracts.rollout import Decision, Rollout
from pocketloop.contracts.webhooks import post_json


def notify(url: str, rollout: Rollout, decision: Decision) -> str:
    """POST a decision with its evidence as JSON to `url`; it holds counts, and nothing about any device.

    Returns:
        What went wrong, in words; empty when it was taken, or when there is no `url`.
    """
    if not url:
        return ""
    body = {
        "rollout": rollout.rollout_id,
        "adapter": rollout.adapter,
        "version": rollout.version,
        "state": rollout.state,
        "decision": decision.model_dump(mode="json"),
    }
    return post_json(url, body)
