"""A version's note: the card where it fits, else without its longest sections."""

from tasks.version_note import is_cut, version_note


def card(template: str = "short", results: str = "| a | b |", first: str = "What it is.") -> str:
    use, rest = f"## Use\n\n````text\n{template}\n````", f"## Results\n\n{results}\n\n## Limits\n\nSome.\n"
    return f"# Policy\n\n{first}\n\n{use}\n\n{rest}"


def test_a_card_that_fits_is_the_note():
    assert version_note(card()) == card()
    assert not is_cut(card())


def test_the_longest_section_is_left_out_and_named_and_a_heading_in_a_template_is_none():
    note = version_note(card(template="## No heading\n```\n" + "x" * 6000))

    assert note == (
        "# Policy\n\nWhat it is.\n\n## Results\n\n| a | b |\n\n## Limits\n\nSome.\n\n"
        "Left out here: Use; the whole card is the artifact model_card.md.\n"
    )
    assert is_cut(note)


def test_as_many_are_left_out_as_must_be():
    note = version_note(card(template="x" * 6000, results="y" * 7000))

    assert "## Limits" in note
    assert "Left out here: Results, Use; " in note
    assert len(note) <= 5000


def test_a_beginning_that_is_too_long_by_itself_is_cut():
    note = version_note(card(first="z" * 20000))

    assert note.startswith("# Policy\n\nzzz")
    assert len(note) == 5000
    assert is_cut(note)
