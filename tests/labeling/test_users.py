"""New and old users."""

from pocketloop.contracts.events import Message
from pocketloop.labeling.extract import Candidate
from pocketloop.labeling.users import Users

DAY = 86400.0


def candidate(group: str, day: float) -> Candidate:
    said = Message(role="user", content="x")
    return Candidate("e", group, "s", [said], said, None, None, moment=day * DAY)


def test_a_user_is_new_for_seven_days_and_who_was_there_at_the_start_is_never_called_new() -> None:
    users = Users()
    seen = [candidate("first", 0), candidate("first", 3), candidate("first", 8), candidate("later", 20)]
    seen += [candidate("later", 26.9), candidate("later", 27)]
    for one in reversed(seen):
        users.see(one)
    assert [users.standing(one) for one in seen] == ["", "", "old", "new", "new", "old"]
