import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amopo_core.engine.steps import StepPlan, share_out

sizes = st.lists(st.integers(1, 60), min_size=1, max_size=30)
small = st.integers(1, 7)


def plan(tokens=range(1, 24), rank=0, ranks=1, **changes):
    settings = {"batch_pairs": 8, "micro_batch_tokens": 40, "epochs": 2, "seed": 0} | changes
    return StepPlan(np.array(list(tokens)), rank=rank, ranks=ranks, **settings)


@given(tokens=sizes, batch=small, limit=st.integers(1, 80), ranks=st.integers(1, 4), epochs=st.integers(1, 2))
def test_every_epoch_has_every_pair_once_however_it_is_shared_out(tokens, batch, limit, ranks, epochs):
    changes = {"batch_pairs": batch, "micro_batch_tokens": limit, "epochs": epochs}
    shares = [plan(tokens, rank, ranks, **changes) for rank in range(ranks)]

    everything = []
    for step in range(len(shares[0])):
        micro_batches = [micro for share in shares for micro in share.micro_batches(step)]
        found = [index for micro in micro_batches if micro.counts for index in micro.indices]
        everything += found
        assert sorted(found) == sorted(plan(tokens, **changes).global_batch(step))
        assert {micro.pairs_in_step for micro in micro_batches} == {len(found)}
        assert len({len(share.micro_batches(step)) for share in shares}) == 1

    assert sorted(everything) == sorted(list(range(len(tokens))) * epochs)


@given(tokens=sizes, limit=st.integers(1, 100), ranks=st.integers(1, 4))
def test_no_bin_is_over_the_limit_but_that_of_one_item(tokens, limit, ranks):
    bins = share_out(tokens, limit, ranks)

    assert len(bins) % ranks == 0
    assert sorted(item for items in bins for item in items) == list(range(len(tokens)))
    assert all(len(items) <= 1 or sum(tokens[item] for item in items) <= limit for items in bins)


def test_bins_are_few_and_even():
    assert share_out([5, 4, 3, 2, 1], limit=8, ranks=1) == [[0, 3, 4], [1, 2]]  # 8 and 7
    assert share_out([5, 4, 3, 2, 1], limit=100, ranks=2) == [[0, 3, 4], [1, 2]]
    assert share_out([9, 1, 1], limit=4, ranks=1) == [[0], [1, 2]]
    assert share_out([1], limit=4, ranks=2) == [[0], []]


def test_a_step_is_the_same_whether_or_not_those_before_it_were_made():
    whole = plan()
    before = [whole.micro_batches(step) for step in range(len(whole))]

    assert [plan().micro_batches(step) for step in reversed(range(len(whole)))] == before[::-1]


def test_epochs_are_shuffled_anew_and_seeds_differ():
    def order(shares, epoch):
        steps = range(epoch * shares.steps_per_epoch, (epoch + 1) * shares.steps_per_epoch)
        return [index for step in steps for index in shares.global_batch(step)]

    assert order(plan(), 0) != order(plan(), 1)
    assert order(plan(), 0) == order(plan(), 0)
    assert order(plan(), 0) != order(plan(seed=1), 0)
