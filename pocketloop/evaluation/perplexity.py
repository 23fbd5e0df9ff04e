"""How surprising a model finds the right answers: perplexity over their tokens."""

import math
from collections.abc import Sequence

from pocketloop.contracts.examples import Example
from pocketloop.contracts.reports import Estimate
from pocketloop.evaluation.measures import ratio_bounds
from pocketloop.models.chat import encode_prompt
from pocketloop.models.generators import Scorer
from pocketloop.tasks.answers import write_answer
from pocketloop.tasks.tasks import TaskSpec


def perplexity(scorer: Scorer, examples: Sequence[Example], task: TaskSpec, longest: int) -> Estimate | None:
    """exp of the mean loss (nats) over all tokens of the right answers, their ends aside, after their prompts.

    The 95 % interval is from resampling examples; `n` is the number of tokens. Examples without an answer in words or
    calls, or longer than `longest` tokens, are left out; `None` where none is left. Comparable between models of one
    tokenizer alone.
    """
    prompts, answers = [], []
    for example in examples:
        prompt = encode_prompt(scorer.tokenizer, task.conversation(example.prompt, example.role), task.tools)
        answer = scorer.tokenizer(write_answer(example.answer), add_special_tokens=False)["input_ids"]
        if answer and len(prompt) + len(answer) <= longest:
            prompts.append(prompt)
            answers.append(answer)
    if not answers:
        return None
    losses = [-value for value in scorer.log_probs(prompts, answers)]
    lengths = [float(len(answer)) for answer in answers]
    low, high = ratio_bounds(losses, lengths)
    value = math.exp(math.fsum(losses) / math.fsum(lengths))
    return Estimate(value=value, n=int(sum(lengths)), low=min(math.exp(low), value), high=max(math.exp(high), value))
