"""The playground's base policy: a small model that has read a mediocre assistant, made here from nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from transformers import Lfm2Config, PreTrainedTokenizerFast

from amopo_core.chat import ChatEncoder
from amopo_core.config import GENERIC_VIEW, Dimension, Playground, Runtime
from amopo_core.data.tables import Message
from amopo_core.playground.domain import Domain
from amopo_core.playground.pretraining import Conversation, pretrain
from amopo_core.playground.responses import draw_quality, recitation_prompt, recite, write_response
from amopo_core.playground.tokenizer import END, PAD, train_tokenizer
from amopo_core.policy import Policy, quiet_transformers, save_policy
from amopo_core.views import instruction

RECITED_SHARE = 0.5
"""Share of the conversations in which the notes are read aloud."""
INSTRUCTED_SHARE = 0.5
"""Share of the other conversations that begin with a view's instruction. It says nothing about the response, but
a small model that never saw one would be thrown off by what AMoPO puts before its prompts."""
TOKENIZER_TEXTS = 4000
"""Conversations that the tokenizer is trained on."""
INITIALIZER_RANGE = 0.1
"""Standard deviation of the first weights, near 1 / sqrt(width); so narrow a model is slow to leave the usual 0.02."""
ROPE_THETA = 100.0
"""Base of the rotary positions: a small one tells near positions well apart."""


DIMENSIONS = {
    name: Dimension(description=description, weight=1.0)
    for name, description in (
        ("helpfulness", "gives the extra help that the asker can use"),
        ("correctness", "states the facts as they are"),
        ("instruction_following", "keeps the format that was asked for"),
    )
}
"""What the world is judged by, in words that so small a model must have read; params.yaml says the same."""


class Text(NamedTuple):
    """A conversation before it is encoded."""

    instruction: str
    """A view's, often empty."""
    prompt: str
    response: str


def make_base(playground: Playground, runtime: Runtime, out: Path) -> dict[str, Any]:
    """Train the base policy and write it as a transformers folder; what it is made of comes back.

    Weights, order and texts come from `playground.seed`; `runtime.threads` decides the last bits.
    """
    quiet_transformers()
    texts = list(conversations(playground))
    tokenizer = train_tokenizer(
        ("".join(text) for text in texts[:TOKENIZER_TEXTS]), playground.vocabulary, playground.context
    )
    encoder = ChatEncoder(tokenizer)
    encoded = [_encoded(encoder, text) for text in texts]
    model = pretrain(
        _architecture(playground, tokenizer),
        encoded,
        steps=playground.pretraining_steps,
        batch=playground.pretraining_batch,
        learning_rate=playground.pretraining_learning_rate,
        seed=playground.seed,
        threads=runtime.threads,
    )
    save_policy(Policy(model, tokenizer), out)
    return {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "conversations": len(texts)}


def conversations(playground: Playground) -> Iterator[Text]:
    """What the base policy is made of, none of it held out: half of it is mediocre help, half is reading aloud.

    Reading aloud is what teaches so small a model, in so little time, to find a person in the notes.
    """
    domain, rng = Domain(playground.seed), Random(f"pretraining {playground.seed}")
    for _ in range(playground.pretraining_conversations):
        question = domain.question(rng, held_out=False)
        if rng.random() < RECITED_SHARE:
            yield Text("", recitation_prompt(question.notes), recite(question.notes, rng))
        else:
            prompt = domain.template(rng, held_out=False).prompt(question)
            yield Text(_instruction(rng), prompt, write_response(question, draw_quality(rng), rng))


def _instruction(rng: Random) -> str:
    if rng.random() >= INSTRUCTED_SHARE:
        return ""
    return instruction(rng.choice([GENERIC_VIEW, *DIMENSIONS]), rng.randint(1, 5), DIMENSIONS)


def _encoded(encoder: ChatEncoder, text: Text) -> Conversation:
    parts = encoder.parts([Message(role="user", content=text.prompt)], text.instruction)
    return Conversation(parts.fit(parts.text).ids, encoder.response(text.response))


def _architecture(playground: Playground, tokenizer: PreTrainedTokenizerFast) -> Lfm2Config:
    """A short convolution, then attention: what stands beside a word is known before it is looked up, not learnt first.

    Attention alone needs many times the steps to find a fact by the name before it.
    """
    layers = ["conv", "full_attention"] * playground.blocks
    return Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=playground.hidden_size,
        intermediate_size=2 * playground.hidden_size,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=len(layers),
        layer_types=layers,
        num_attention_heads=playground.heads,
        num_key_value_heads=playground.heads,
        max_position_embeddings=playground.context,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        initializer_range=INITIALIZER_RANGE,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        bos_token_id=None,
    )
