"""A language model compares the candidate's answers with the champion's, each pair in both orders."""

from collections.abc import Sequence

from pocketloop.contracts.labels import Duel, Preferred, Rubric
from pocketloop.contracts.recipe import Catalogue, JudgeEndpoint
from pocketloop.contracts.reports import JudgeUse
from pocketloop.labeling.answer_cache import AnswerCache
from pocketloop.labeling.endpoint import Endpoint
from pocketloop.labeling.jury import Jury
from pocketloop.labeling.questions import Asker


def judge_duels(
    duels: Sequence[Duel], config: JudgeEndpoint, rubric: Rubric, catalogue: Catalogue | None, answers: AnswerCache
) -> tuple[list[Preferred | None], JudgeUse]:
    """The judge's preference on each pair, and what it was asked; `None` where it gave no usable one.

    Raises:
        ConfigError: the endpoint's key is not set, or the endpoint refuses to be asked at all.
    """
    jury = Jury(Endpoint(config, rubric, answers), Asker(rubric, catalogue))
    found: list[Preferred | None] = [None] * len(duels)

    async def settle(place: int) -> None:
        found[place] = await jury.prefer(duels[place].prompt, duels[place].ours, duels[place].theirs)

    jury.endpoint.run(settle, range(len(duels)))
    return found, jury.use()
