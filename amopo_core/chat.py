"""Conversations as token ids: the template's parts and people's text apart, so that no text becomes a special token."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

from amopo_core.data.tables import Message
from amopo_core.errors import UserError
from amopo_core.views import BLANK_LINE, instruction_behind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt that ends where the response begins."""

    ids: list[int]
    truncated: int
    """Tokens of the turns' text that were left out [tokens]."""
    last_turn: int
    """Tokens of the last turn's text that stay: what is answered [tokens]."""


@dataclass(frozen=True)
class _Part:
    ids: Sequence[int]
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

    def fit(self, text_budget: int) -> EncodedPrompt:
        """The prompt with at most `text_budget` tokens of the turns' text.

        What is left out is the oldest text: the first turn from its beginning on, then the second, and of the last turn
        only what does not fit when every earlier one is empty; its end stays. The system prompt, the instruction and
        the template around every turn, an emptied one too, stay whole.
        """
        excess = truncated = max(0, self.text - text_budget)
        ids: list[int] = []
        last_turn = 0
        for part in self.parts:
            cut = min(excess, len(part.ids)) if part.may_shrink else 0
            ids += part.ids[cut:]
            excess -= cut
            if part.may_shrink:
                last_turn = len(part.ids) - cut
        return EncodedPrompt(ids, truncated, last_turn)


class ChatEncoder:
    """Encodes prompts and responses for one tokenizer, through its chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, instruction_at: Literal["start", "end"] = "start") -> None:
        """`instruction_at`: where a prompt's instruction stands, before the first turn's text or behind the last's."""
        self.tokenizer = tokenizer
        self.instruction_at = instruction_at
        # The views of a pair share all but their instructions, and most conversations have the turns of others.
        self._text = lru_cache(maxsize=256)(self._encode_text)
        self._template = lru_cache(maxsize=256)(self._encode_template)
        self._anchor_ids = lru_cache(maxsize=256)(self._ids)
        self._pieces = lru_cache(maxsize=256)(self._cut)

    def prompt(self, messages: Sequence[Message], instruction: str | None, budget: int) -> EncodedPrompt | None:
        """The prompt within `budget` tokens, with an instruction where one is given.

        None where not even the parts that must stay and one token of the text fit.
        """
        parts = self.parts(messages, instruction)
        text_budget = budget - parts.fixed
        return parts.fit(text_budget) if text_budget > 0 else None

    def parts(self, messages: Sequence[Message], instruction: str | None = None) -> PromptParts:
        """The rendered template cut at the contents, each piece encoded by itself as it is behind what precedes it.

        Raises:
            UserError: the template refuses the conversation (a role it does not know, say) or drops a turn.
        """
        turns = [place for place, message in enumerate(messages) if message["role"] != "system"]
        instructed = turns[0 if self.instruction_at == "start" else -1] if turns else None
        parts, before = list[_Part](), ""
        for piece in self._pieces(tuple(message["role"] for message in messages)):
            if isinstance(piece, str):
                parts.append(_Part(self._template(piece, self._anchor(before)), may_shrink=False))
                before = piece or before
                continue
            added = instruction if piece == instructed else None
            for text, part in self._said(messages[piece], added, self._anchor(before)):
                parts.append(part)
                before = text or before
        return PromptParts(parts)

    def _said(self, message: Message, instruction: str | None, anchor: str) -> Iterator[tuple[str, _Part]]:
        """The texts in the place of a message's content, with an instruction where one is given, and their ids."""
        content, may_shrink = message["content"], message["role"] != "system"
        if instruction and self.instruction_at == "start":
            yield instruction, _Part(self._text(instruction, anchor), may_shrink=False)
            anchor = self._anchor(instruction)
        alone = self._text(content, anchor)
        if not instruction or self.instruction_at == "start":
            yield content, _Part(alone, may_shrink)
            return
        # Many tokenizers have one token for a question mark and a blank line behind it: it stays with the blank line.
        together = self._text(content + BLANK_LINE, anchor)
        apart = (place for place, (one, other) in enumerate(zip(alone, together, strict=False)) if one != other)
        common = next(apart, min(len(alone), len(together)))
        yield content, _Part(together[:common], may_shrink)
        yield BLANK_LINE, _Part(together[common:], may_shrink=False)
        instruction = instruction_behind(instruction).removeprefix(BLANK_LINE)
        yield instruction, _Part(self._text(instruction, self._anchor(BLANK_LINE)), may_shrink=False)

    def response(self, text: str) -> list[int]:
        """The response's ids with the end token."""
        return [*self._text(text, self._anchor(self._generation_prompt)), self.tokenizer.eos_token_id]

    def _cut(self, roles: Sequence[str]) -> list[str | int]:
        """A rendered conversation of turns of these roles: pieces of the template, between them each turn's place."""
        pieces = re.split(f"{_OPEN}([0-9]+){_CLOSE}", self._render(roles))
        return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)]

    def _encode_template(self, piece: str, anchor: str) -> tuple[int, ...]:
        return tuple(self._behind(piece, anchor)) if piece else ()

    def _encode_text(self, text: str, anchor: str) -> tuple[int, ...]:
        """The ids of people's text: what spells a special token is cut apart and stays text."""
        spells_one = any(token in text for token in self._special_tokens)  # looked for first: cutting is slow
        ids: list[int] = []
        for piece in self._inside_special_tokens.split(text) if spells_one else [text]:
            if piece:
                ids += self._behind(piece, anchor)
                anchor = _TEXT
        return tuple(ids if self._control_ids.isdisjoint(ids) else [i for i in ids if i not in self._control_ids])

    def _behind(self, piece: str, anchor: str) -> list[int]:
        """The ids of a piece behind `anchor`: some tokenizers put a space before what they take for a beginning."""
        alone, together = self._anchor_ids(anchor), self._ids(anchor + piece)
        return together[len(alone) :] if together[: len(alone)] == alone else self._ids(piece)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _anchor(self, before: str) -> str:
        """What stands for everything before a piece: nothing, the special token that it ends with, or other text."""
        if not before:
            return ""
        if not before.endswith(self._special_tokens):
            return _TEXT
        return next(token for token in self._special_tokens if before.endswith(token))

    @cached_property
    def _generation_prompt(self) -> str:
        """What the template puts between the last turn and the response."""
        return self._render(["user"]).rpartition(_CLOSE)[2] or _TEXT

    def _render(self, roles: Sequence[str]) -> str:
        """A conversation of turns of these roles, with a mark for each content: the same whatever they say."""
        marked = [{"role": role, "content": f"{_OPEN}{place}{_CLOSE}"} for place, role in enumerate(roles)]
        try:
            rendered: str = self.tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template raises what its author chose
            named = ", ".join(roles)
            raise UserError(f"the chat template refuses a conversation of the roles {named}: {error}") from error
        lost = [place for place in range(len(roles)) if f"{_OPEN}{place}{_CLOSE}" not in rendered]
        if lost:
            raise UserError(f"the chat template drops turn {lost[0] + 1} of a conversation ({roles[lost[0]]})")
        return rendered

    @cached_property
    def _special_tokens(self) -> tuple[str, ...]:
        added = self.tokenizer.added_tokens_decoder.values()
        return tuple(sorted({*self.tokenizer.all_special_tokens, *(str(token) for token in added)} - {""}))

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
        added = self.tokenizer.added_tokens_decoder.items()
        special = {number for number, token in added if token.special}
        return frozenset({*self.tokenizer.all_special_ids, *special}) - {self.tokenizer.unk_token_id}


_OPEN, _CLOSE = "\ue000", "\ue001"
"""Private-use characters around the number of a turn: what the template does with a content it does to these."""

_TEXT = "\n"
"""Stands for any text before a piece: no tokenizer joins it with a letter."""
