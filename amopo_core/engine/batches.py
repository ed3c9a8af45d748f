"""The tensors of a micro-batch: its sequences as rows of tokens, and what the objective must know of them.

Axes: V = views, B = pairs of the micro-batch, N = sequences (a view's prompt with one response), R = response tokens of
the longest, X = rows of tokens, T = tokens of the longest row, M = response tokens of all sequences together, P =
tokens that predict one or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from amopo_core.draws import standard_normal
from amopo_core.engine.moving import moved_to
from amopo_core.engine.steps import StepPlan
from amopo_core.engine.tree import Segment, Tokens, lay_out
from amopo_core.training.encoding import EncodedPair


@dataclass(frozen=True)
class Rows:
    """Sequences as the policy reads them: packed in one row that shares their common beginnings, or a row each."""

    input_ids_XT: Tensor
    position_ids_XT: Tensor
    subtree_end_T: Tensor | None
    """Packed: token k is seen by token q where k <= q < subtree_end[k]. None: a row a sequence, padded behind."""
    segments: tuple[Segment, ...]
    """Packed: the same, as the pieces of the row."""
    unread: tuple[int, ...]
    """Packed: of each segment, how many tokens stand before the first that predicts a response token; all behind it
    do, as a response ends its sequence."""
    predicting_M: Tensor
    """Where the token before each response token stands in the rows, laid end to end."""
    places_P: Tensor
    """The same places, each once."""
    target_M: Tensor
    """The response tokens."""
    place_M: Tensor
    """Where each belongs in (N, R), laid end to end."""
    response_mask_NR: Tensor
    """True for the response tokens of each sequence, which stand at its beginning."""

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        return _to(self, device)


@dataclass(frozen=True)
class Batch:
    """The pairs of a micro-batch: each active view of each, both responses."""

    rows: Rows
    slot_N: Tensor
    """Flat index into (V, B, 2) of each sequence; V * B * 2 for a plain prompt of the supervised term."""
    supervised_row_B: Tensor
    """The sequence that holds the pair's chosen response under the generic view or the plain prompt; -1: not needed."""
    active_VB: Tensor
    """True where a view takes part."""
    eps_VB2: Tensor
    """Draws from N(0, 1)."""
    counts_B: Tensor
    """1 for a pair, 0 for a filler."""
    weight_B: Tensor
    """Factor of each pair's loss, above 0, at most 1."""
    pairs_in_step: int
    """Pairs of the global batch that this micro-batch is a part of."""
    pair_ids: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return _to(self, device)


_Moved = TypeVar("_Moved", Rows, Batch)


def packed_rows(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], owners: Sequence[int] | None = None
) -> Rows:
    """All sequences in one row, what an owner's begin with alike once; where tokens meet in attention alone."""
    tree = lay_out(_read(prompts, responses), owners)
    predicting = np.concatenate([path[len(prompt) - 1 :] for path, prompt in zip(tree.paths, prompts, strict=True)])
    predicts = np.zeros(len(tree.tokens), dtype=bool)
    predicts[predicting] = True
    return Rows(
        input_ids_XT=torch.from_numpy(tree.tokens)[None],
        position_ids_XT=torch.from_numpy(tree.positions)[None],
        subtree_end_T=torch.from_numpy(tree.subtree_end),
        segments=tree.segments,
        unread=tuple(int((~predicts[segment.start : segment.stop]).sum()) for segment in tree.segments),
        predicting_M=torch.from_numpy(predicting),
        places_P=torch.from_numpy(predicts.nonzero()[0]),
        **_responses(responses),
    )


def separate_rows(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], owners: Sequence[int] | None = None
) -> Rows:
    """A row a sequence, padded behind, where causal policies do not look: for any of them."""
    sequences = _read(prompts, responses)
    length = max(map(len, sequences))
    input_ids_XT = torch.zeros(len(sequences), length, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        input_ids_XT[row, : len(sequence)] = torch.from_numpy(sequence)
    predicting = [
        np.arange(len(prompt) - 1, len(sequence)) + row * length
        for row, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True))
    ]
    predicting_M = torch.from_numpy(np.concatenate(predicting))
    return Rows(
        input_ids_XT=input_ids_XT,
        position_ids_XT=torch.arange(length).expand(len(sequences), length),
        subtree_end_T=None,
        segments=(),
        unread=(),
        predicting_M=predicting_M,
        places_P=predicting_M,
        **_responses(responses),
    )


class BatchMaker:
    """Makes micro-batches of encoded pairs."""

    def __init__(self, *, seed: int, generic_view: bool, supervised: bool, packed: bool) -> None:
        """`supervised`: with what the supervised term needs, of the generic view where there is one."""
        self.seed = seed
        self.generic_view = generic_view
        self.supervised = supervised
        self.rows = packed_rows if packed else separate_rows

    def __call__(self, pairs: Sequence[EncodedPair], *, step: int, pairs_in_step: int, counts: bool = True) -> Batch:
        """The pairs as they meet in a step."""
        views = len(pairs[0].prompts)
        prompts, responses, slots = _view_sequences(pairs)
        owners = [slot // 2 % len(pairs) for slot in slots]
        supervised_rows = [-1] * len(pairs)
        if self.supervised and self.generic_view:
            supervised_rows = [slots.index(2 * b) for b in range(len(pairs))]  # view 0, chosen
        elif self.supervised:
            supervised_rows = list(range(len(prompts), len(prompts) + len(pairs)))
            prompts += [pair.plain_prompt for pair in pairs]
            responses += [pair.chosen for pair in pairs]
            slots += [2 * views * len(pairs)] * len(pairs)
            owners += range(len(pairs))
        draws = [standard_normal(self.seed, step, pair.pair_id, views) for pair in pairs]
        return Batch(
            rows=self.rows(prompts, responses, owners),
            slot_N=torch.tensor(slots),
            supervised_row_B=torch.tensor(supervised_rows),
            active_VB=torch.tensor([[pair.prompts[view] is not None for pair in pairs] for view in range(views)]),
            eps_VB2=torch.stack(draws, dim=1),
            counts_B=torch.full((len(pairs),), float(counts)),
            weight_B=torch.tensor([pair.weight for pair in pairs], dtype=torch.float64),
            pairs_in_step=pairs_in_step,
            pair_ids=tuple(pair.pair_id for pair in pairs),
        )


class PairSource(Protocol):
    """Encoded pairs by their place, and what each costs."""

    @property
    def packed_tokens(self) -> NDArray[np.int64]:
        """Tokens that each pair brings to a packed row."""

    @property
    def separate_tokens(self) -> NDArray[np.int64]:
        """Tokens that each pair brings to rows of one sequence each, padding included."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> EncodedPair: ...


class StepBatches(Dataset[list[Batch]]):
    """One rank's micro-batches, by optimizer step."""

    def __init__(self, plan: StepPlan, pairs: PairSource, maker: BatchMaker) -> None:
        self.plan = plan
        self.pairs = pairs
        self.maker = maker

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> list[Batch]:
        return list(self.micro_batches(step))

    def micro_batches(self, step: int) -> Iterator[Batch]:
        """The micro-batches of a step, each made when it is asked for."""
        for share in self.plan.micro_batches(step):
            pairs = [self.pairs[index] for index in share.indices]
            yield self.maker(pairs, step=step, pairs_in_step=share.pairs_in_step, counts=share.counts)


def sequences_of(pair: EncodedPair, *, plain: bool) -> list[Tokens]:
    """What the policy reads for a pair: each active view with both responses; `plain`: the plain prompt too."""
    prompts, responses, _ = _view_sequences([pair])
    if plain:
        prompts, responses = [*prompts, pair.plain_prompt], [*responses, pair.chosen]
    return _read(prompts, responses)


def _view_sequences(pairs: Sequence[EncodedPair]) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Prompts, responses and slots of every active view, the preferred response of the view first."""
    prompts, responses, slots = [], [], []
    for view in range(len(pairs[0].prompts)):
        for b, pair in enumerate(pairs):
            prompt = pair.prompts[view]
            if prompt is None:
                continue
            sides = (pair.rejected, pair.chosen) if pair.swapped[view] else (pair.chosen, pair.rejected)
            for side, response in enumerate(sides):
                prompts.append(prompt)
                responses.append(response)
                slots.append((view * len(pairs) + b) * 2 + side)
    return prompts, responses, slots


def _read(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[Tokens]:
    """Each prompt with its response but the last token, which is predicted, never read."""
    read = zip(_arrays(prompts), _arrays(responses), strict=True)
    return [np.concatenate([prompt, response[:-1]]) for prompt, response in read]


def _arrays(lists: Sequence[Sequence[int]]) -> list[Tokens]:
    """Lists as arrays; the same list, which several views share, is made into one once."""
    arrays = {number: np.array(ids, dtype=np.int64) for number, ids in {id(ids): ids for ids in lists}.items()}
    return [arrays[id(ids)] for ids in lists]


def _responses(responses: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    lengths = torch.tensor([len(response) for response in responses])
    mask_NR = torch.arange(int(lengths.max())) < lengths[:, None]
    return {
        "target_M": torch.from_numpy(np.concatenate(_arrays(responses))),
        "place_M": mask_NR.flatten().nonzero().squeeze(-1),
        "response_mask_NR": mask_NR,
    }


def _to(value: _Moved, device: torch.device) -> _Moved:
    moved: dict[str, Any] = {}
    for field in fields(value):
        member = getattr(value, field.name)
        if isinstance(member, Tensor):
            moved[field.name] = moved_to(device, member)
        elif isinstance(member, Rows):
            moved[field.name] = member.to(device)
    return replace(value, **moved)
