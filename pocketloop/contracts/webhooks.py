"""Telling somebody else's system: a POST that is taken or is not, and that nothing waits for."""

from typing import Any
from urllib.parse import urlsplit

_SECONDS = 5
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


def post_json(url: str, body: dict[str, Any]) -> str:
    """POST `body` to `url`, which is HTTPS or an address of this machine.

    Returns:
        What went wrong, in words; empty when it was taken. The address, which may hold a secret, is not in it.
    """
    import requests

    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _THIS_MACHINE):
        return "the notification was not delivered: its address is neither https nor on this machine"
    try:
        # A redirect could carry the message to an address that nobody configured.
        answer = requests.post(url, json=body, timeout=_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        return f"the notification was not delivered: {type(error).__name__}"
    return "" if answer.ok and not answer.is_redirect else f"the notification was answered with {answer.status_code}"
