from dataclasses import replace

import pytest
import torch

from amopo_core.engine.batches import BatchMaker, packed_rows, separate_rows, sequences_of
from amopo_core.engine.tree import MIN_SHARED
from amopo_core.training.encoding import EncodedPair

PROMPT = [7] * MIN_SHARED


def encoded(pair_id, prompts=([7], [8]), swapped=(False, False)):
    return EncodedPair(pair_id, prompts, swapped, plain_prompt=[9], chosen=[1, 2, 3], rejected=[4, 5], truncated=0)


def make(pairs, **options):
    maker = BatchMaker(**{"seed": 0, "generic_view": True, "supervised": False, "packed": False} | options)
    return maker(pairs, step=0, pairs_in_step=len(pairs))


@pytest.mark.parametrize("rows_of", [packed_rows, separate_rows])
def test_each_response_token_is_predicted_by_the_one_before_it(rows_of):
    prompts, responses = [PROMPT, PROMPT, [8]], [[1, 2, 3], [4, 5], [6, 7]]

    rows = rows_of(prompts, responses)

    assert rows.target_M.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert rows.input_ids_XT.flatten()[rows.predicting_M].tolist() == [7, 1, 2, 7, 4, 8, 6]
    assert rows.position_ids_XT.flatten()[rows.predicting_M].tolist() == [15, 16, 17, 15, 16, 0, 1]
    assert rows.response_mask_NR.tolist() == [[True] * 3, [True, True, False], [True, True, False]]
    assert rows.place_M.tolist() == [0, 1, 2, 3, 4, 6, 7]


def test_a_row_a_sequence_is_padded_behind():
    rows = separate_rows([[7, 7], [8]], [[1, 2, 3], [4, 5]])

    assert rows.input_ids_XT.tolist() == [[7, 7, 1, 2], [8, 4, 0, 0]]  # the last token is predicted, never read


def test_a_packed_row_has_a_shared_prompt_once():
    rows = packed_rows([PROMPT, PROMPT], [[1, 2, 3], [4, 5]])

    assert rows.input_ids_XT.tolist() == [[*PROMPT, 1, 2, 4]]
    assert rows.position_ids_XT.tolist() == [[*range(MIN_SHARED), 16, 17, 16]]


def test_inactive_views_have_no_sequences_and_swapped_ones_change_sides():
    batch = make([encoded("a", ([7], None)), encoded("b", ([7], [8]), swapped=(False, True))])

    assert batch.active_VB.tolist() == [[True, True], [False, True]]
    assert batch.slot_N.tolist() == [0, 1, 2, 3, 6, 7]  # (view, pair, side) flat: view 1 of pair a is missing
    assert batch.rows.input_ids_XT[4].tolist() == [8, 4, 0]  # the rejected response is preferred there


def test_the_supervised_term_reads_the_generic_view_or_the_plain_prompt():
    pairs = [encoded("a"), encoded("b")]
    generic = make(pairs, supervised=True)
    plain = make(pairs, supervised=True, generic_view=False)

    assert generic.supervised_row_B.tolist() == [0, 2]
    assert [generic.rows.input_ids_XT[row].tolist() for row in generic.supervised_row_B] == [[7, 1, 2]] * 2
    assert [plain.rows.input_ids_XT[row].tolist() for row in plain.supervised_row_B] == [[9, 1, 2]] * 2
    assert plain.slot_N[plain.supervised_row_B].tolist() == [plain.eps_VB2.numel()] * 2


def test_what_a_pair_reads_is_what_its_rows_hold():
    pair = encoded("a")
    batch = make([pair], packed=True, supervised=True, generic_view=False)

    assert sum(map(len, sequences_of(pair, plain=True))) == batch.rows.input_ids_XT.numel()
    assert [read.tolist() for read in sequences_of(pair, plain=False)] == [[7, 1, 2], [7, 4], [8, 1, 2], [8, 4]]


def test_each_pair_brings_its_weight_and_a_filler_does_not_count():
    maker = BatchMaker(seed=0, generic_view=True, supervised=False, packed=True)
    pairs = [encoded("a"), replace(encoded("b"), weight=0.25)]

    assert maker(pairs, step=0, pairs_in_step=2).weight_B.tolist() == [1.0, 0.25]
    assert maker(pairs[:1], step=0, pairs_in_step=2, counts=False).counts_B.tolist() == [0.0]


def test_draws_belong_to_the_pair_not_to_its_place():
    pairs = [encoded("a"), encoded("b")]

    assert torch.equal(make(pairs).eps_VB2[:, 1], make(pairs[::-1]).eps_VB2[:, 0])
