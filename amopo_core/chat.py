"""Conversations as token ids: the template's parts and people's text apart, so that no text becomes a special token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from amopo_core.data.tables import Message
from amopo_core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt that ends where the response begins."""

    ids: list[int]
    truncated: int
    """Tokens of the user's text that were left out [tokens]."""


@dataclass(frozen=True)
class _Part:
    ids: list[int]
    may_shrink: bool


@dataclass(frozen=True)
class PromptParts:
    """An encoded prompt before it is shortened: template and system parts stay, the turns' text may shrink."""

    parts: Sequence[_Part]

    @property
    def fixed(self) -> int:
        """Tokens that are never left out [tokens]."""
        return sum(len(part.ids) for part in self.parts if not part.may_shrink)

    @property
    def text(self) -> int:
        """Tokens of the turns' text [tokens]."""
        return sum(len(part.ids) for part in self.parts if part.may_shrink)

    def with_instruction(self, ids: list[int]) -> PromptParts:
        """The same prompt with an instruction put before the first turn's text."""
        first = next(place for place, part in enumerate(self.parts) if part.may_shrink)
        return PromptParts([*self.parts[:first], _Part(ids, may_shrink=False), *self.parts[first:]])

    def fit(self, text_budget: int) -> EncodedPrompt:
        """The prompt with at most `text_budget` tokens of text, the oldest left out first: the question's end stays."""
        excess = truncated = max(0, self.text - text_budget)
        ids: list[int] = []
        for part in self.parts:
            cut = min(excess, len(part.ids)) if part.may_shrink else 0
            ids += part.ids[cut:]
            excess -= cut
        return EncodedPrompt(ids, truncated)


class ChatEncoder:
    """Encodes prompts and responses for one tokenizer, through its chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def prompt(self, messages: Sequence[Message], instruction: str | None, budget: int) -> EncodedPrompt | None:
        """The prompt within `budget` tokens, an instruction before the first turn's text where one is given.

        None where not even the parts that must stay and one token of the text fit.
        """
        parts = self.parts(messages)
        if instruction:
            parts = parts.with_instruction(self.plain(instruction))
        text_budget = budget - parts.fixed
        return parts.fit(text_budget) if text_budget > 0 else None

    def parts(self, messages: Sequence[Message]) -> PromptParts:
        """The rendered template cut at the contents, each piece encoded by itself.

        Raises:
            UserError: the template refuses the conversation (a role it does not know, say) or drops a turn.
        """
        parts: list[_Part] = []
        rendered = self._render(messages)
        for place, piece in enumerate(re.split(f"{_OPEN}([0-9]+){_CLOSE}", rendered)):
            if place % 2 == 0:
                ids = self.tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []
                parts.append(_Part(list(ids), may_shrink=False))
            else:
                message = messages[int(piece)]
                parts.append(_Part(self.plain(message["content"]), may_shrink=message["role"] != "system"))
        return PromptParts(parts)

    def response(self, text: str) -> list[int]:
        """The response's ids with the end token."""
        return [*self.plain(text), self.tokenizer.eos_token_id]

    def plain(self, text: str) -> list[int]:
        """The ids of people's text: what spells a special token is cut apart and stays text."""
        ids: list[int] = []
        for piece in self._inside_special_tokens.split(text) if self._special_tokens else [text]:
            if piece:
                ids += self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return [token for token in ids if token not in self._control_ids]

    def _render(self, messages: Sequence[Message]) -> str:
        marked = [{"role": m["role"], "content": f"{_OPEN}{place}{_CLOSE}"} for place, m in enumerate(messages)]
        try:
            rendered: str = self.tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises what its author chose
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(f"the chat template refuses a conversation of the roles {roles}: {error}") from error
        lost = [place for place in range(len(messages)) if f"{_OPEN}{place}{_CLOSE}" not in rendered]
        if lost:
            raise UserError(
                f"the chat template drops turn {lost[0] + 1} of a conversation ({messages[lost[0]]['role']})"
            )
        return rendered

    @cached_property
    def _special_tokens(self) -> list[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        return sorted({*self.tokenizer.all_special_tokens, *(str(token) for token in added)} - {""})

    @cached_property
    def _inside_special_tokens(self) -> re.Pattern[str]:
        """Matches the empty place behind the first letter of whatever spells a special token."""
        spelled = (
            f"(?<={re.escape(token[0])})(?={re.escape(token[1:])})" for token in self._special_tokens if token[1:]
        )
        return re.compile("|".join(spelled) or "(?!)")

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        """Ids that text may never become, whatever the normaliser makes of it; the unknown token is no such."""
        return frozenset(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}


_OPEN, _CLOSE = "\ue000", "\ue001"
"""Private-use characters around the number of a turn: what the template does with a content it does to these."""
