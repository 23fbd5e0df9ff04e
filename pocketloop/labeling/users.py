"""Who is new to the assistant: evaluation tells new users from old ones."""

from typing import Literal

from pocketloop.labeling.extract import Answered

NEW_SECONDS = 7 * 86400.0


class Users:
    """When each user was first seen; `see` every candidate before asking for any."""

    def __init__(self) -> None:
        self._first: dict[str, float] = {}
        self._begin = float("inf")

    def see(self, candidate: Answered) -> None:
        """Take a candidate's moment into account."""
        self._first[candidate.group] = min(candidate.moment, self._first.get(candidate.group, candidate.moment))
        self._begin = min(self._begin, candidate.moment)

    def standing(self, candidate: Answered) -> Literal["new", "old", ""]:
        """`new` in the seven days after a user was first seen, `old` later.

        Of users who were there when the log begins nobody knows since when; they are `old` once seven days have passed.
        """
        first = self._first[candidate.group]
        if candidate.moment - first >= NEW_SECONDS:
            return "old"
        return "new" if first - self._begin >= NEW_SECONDS else ""
