from hypothesis import given
from hypothesis import strategies as st

from amopo_core.engine.tree import MIN_SHARED, Segment, lay_out, packed_tokens

tokens = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@st.composite
def families(draw):
    """Sequences that begin alike, some long enough to share, some equal, some the beginning of another."""
    stems = draw(st.lists(st.lists(st.integers(0, 1), max_size=2 * MIN_SHARED + 3), min_size=1, max_size=3))
    return [draw(st.sampled_from(stems)) + draw(tokens) for _ in range(draw(st.integers(1, 7)))]


@given(families())
def test_every_path_reads_its_sequence(sequences):
    tree = lay_out(sequences)

    for path, sequence in zip(tree.paths, sequences, strict=True):
        assert tree.tokens[path].tolist() == sequence
        assert tree.positions[path].tolist() == list(range(len(sequence)))
    assert packed_tokens(sequences) == len(tree.tokens) <= sum(map(len, sequences))


@given(families())
def test_a_token_sees_exactly_what_is_before_it_on_its_path(sequences):
    tree = lay_out(sequences)

    seen = {int(q): {int(k) for k in path[: place + 1]} for path in tree.paths for place, q in enumerate(path)}

    everything = range(len(tree.tokens))
    assert set(seen) == set(everything)  # no token is nobody's
    for q in everything:
        assert {k for k in everything if k <= q < tree.subtree_end[k]} == seen[q]


@given(families())
def test_segments_cover_the_row_and_name_their_path(sequences):
    tree = lay_out(sequences)

    assert [segment.start for segment in tree.segments] == [0, *(segment.stop for segment in tree.segments[:-1])]
    assert all(segment.start < segment.stop for segment in tree.segments)
    for path in tree.paths:
        last = next(segment for segment in tree.segments if segment.start <= path[-1] < segment.stop)
        spans = [range(tree.segments[n].start, tree.segments[n].stop) for n in last.parents]
        assert [place for span in spans for place in span] == path[: sum(map(len, spans))].tolist()


def test_a_prompt_is_there_once_and_a_short_beginning_is_not_shared():
    prompt = [7] * MIN_SHARED

    tree = lay_out([[*prompt, 1, 2], [*prompt, 3]])

    assert tree.segments == (
        Segment(0, MIN_SHARED, ()),
        Segment(MIN_SHARED, MIN_SHARED + 2, (0,)),
        Segment(MIN_SHARED + 2, MIN_SHARED + 3, (0,)),
    )
    assert packed_tokens([[*prompt[1:], 1], [*prompt[1:], 2]]) == 2 * MIN_SHARED


def test_equal_sequences_are_one():
    assert len(lay_out([[1, 2, 3]] * 3).tokens) == 3


def test_owners_share_nothing_with_each_other():
    prompt = [7] * MIN_SHARED
    sequences = [[*prompt, 1], [*prompt, 2], [*prompt, 1], [*prompt, 3]]

    tree = lay_out(sequences, owners=[0, 1, 0, 1])

    assert len(tree.tokens) == len(lay_out(sequences[::2]).tokens) + len(lay_out(sequences[1::2]).tokens)
    assert [segment.parents for segment in tree.segments] == [(), (), (1,), (1,)]
    for path, sequence in zip(tree.paths, sequences, strict=True):
        assert tree.tokens[path].tolist() == sequence
