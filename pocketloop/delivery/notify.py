"""Tell somebody else's system about a decision. It is told or it is not; a rollout never waits for it."""

from pocketloop.contracts.rollout import Decision, Rollout

_SECONDS = 5


def notify(url: str, rollout: Rollout, decision: Decision) -> str:
    """POST a decision with its evidence as JSON to `url`; it holds counts, and nothing about any device.

    Returns:
        What went wrong, in words; empty when it was taken, or when there is no `url`.
    """
    if not url:
        return ""
    import requests

    body = {
        "rollout": rollout.rollout_id,
        "adapter": rollout.adapter,
        "version": rollout.version,
        "state": rollout.state,
        "decision": decision.model_dump(mode="json"),
    }
    try:
        # A redirect could carry the decision to an address that nobody configured.
        answer = requests.post(url, json=body, timeout=_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        return f"the notification was not delivered: {type(error).__name__}"
    return "" if answer.ok and not answer.is_redirect else f"the notification was answered with {answer.status_code}"
