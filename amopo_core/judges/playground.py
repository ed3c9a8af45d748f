"""The playground's judge: reads a prompt's notes and question, and scores what is answered by code.

Training never sees it: feedback holds only what simulated raters say, with their noise and their bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from amopo_core.config import Playground
from amopo_core.data.tables import Message
from amopo_core.errors import UserError
from amopo_core.playground.domain import Domain, read_question
from amopo_core.playground.scoring import score_response


class PlaygroundJudge:
    """Scores every dimension by code, whatever the response's text."""

    def prompts(self, playground: Playground, n: int) -> list[list[Message]]:
        """At most `n` different prompts, of facts and wording that neither feedback nor pretraining holds."""
        domain, rng = Domain(playground.seed), Random(f"held-out {playground.seed}")
        texts: dict[str, None] = {}
        while len(texts) < min(n, playground.held_out_prompts):
            question, template = domain.question(rng, held_out=True), domain.template(rng, held_out=True)
            texts[template.prompt(question)] = None
        return [[Message(role="user", content=text)] for text in texts]

    def score(self, prompt: Sequence[Message], response: str) -> dict[str, float]:
        """The score of each dimension, 1 to 5.

        Raises:
            UserError: the prompt is none of the playground's.
        """
        text = prompt[-1]["content"]
        question = read_question(text)
        if question is None:
            raise UserError(
                f"evaluation.judge: the playground's judge reads its own prompts only, not {text[:80]!r};"
                " for other prompts set amopo_core/judges/none.py"
            )
        return score_response(question, response)


JUDGE = PlaygroundJudge()
