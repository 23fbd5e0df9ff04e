"""What labelling keeps of a record."""

from hypothesis import given
from hypothesis import strategies as st

from pocketloop.contracts.events import Message, ToolCall
from pocketloop.labeling.extract import Candidate
from pocketloop.labeling.rows import example_of, line_of, with_user

WORDS = st.one_of(st.text(max_size=20), st.sampled_from(['"slices":{', '}],"slices":{}', '\\"slices":{"user":"old"}']))


@given(WORDS, WORDS, st.sampled_from(["", "de-DE"]), st.sampled_from(["", "new", "old"]))
def test_a_kept_line_with_a_user_is_the_line_of_the_example_with_that_user(
    said: str, name: str, locale: str, user: str
) -> None:
    calls = [ToolCall(name=name or "x", arguments={"slices": {"user": said}, "source": name})]
    answer = Message(role="assistant", tool_calls=calls)
    prompt = [Message(role="user", content=said)]
    one = Candidate("e", "g", f"events:{name}", prompt, answer, None, None, role=said, locale=locale)
    kept = line_of(example_of(one, answer, "function_call"))
    assert with_user(kept, user) == line_of(example_of(one, answer, "function_call", user))
