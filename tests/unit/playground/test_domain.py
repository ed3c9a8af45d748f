from random import Random

from hypothesis import given
from hypothesis import strategies as st

from amopo_core.playground.domain import GROUPS, Domain, Note, Question, Template, read_question

SEEDS = st.integers(0, 2**31 - 1)
NOTES = (Note("Mira", "sings", "daily"), Note("Hugo", "paints", "weekly"), Note("Dora", "swims", "nightly"))
HUGO = Question(NOTES, "Hugo", "activity", "stars")


def held_out(domain: Domain, note: Note) -> set[bool]:
    """Whether each of a note's two facts is held out."""

    def group(word: str, groups: list[list[str]]) -> int:
        return next(number for number, words in enumerate(groups) if word in words)

    name = group(note.name, domain.names)
    values = group(note.activity, domain.activities), group(note.time, domain.times)
    return {(name + value) % GROUPS == 0 for value in values}


def test_prompt_text():
    prompt = Template("Please", "tell me", "Put it", "inside").prompt(HUGO)

    assert prompt == (
        "Notes: Mira sings daily. Hugo paints weekly. Dora swims nightly.\n"
        "Question: Please tell me what Hugo does. Put it inside stars."
    )


def test_what_a_question_knows_of_its_notes():
    assert HUGO.asked == NOTES[1]
    assert HUGO.others == [NOTES[0], NOTES[2]]
    assert HUGO.asked.value(HUGO.attribute) == "paints"
    assert HUGO.asked.value(HUGO.extra) == "weekly"


@given(SEEDS, st.booleans())
def test_a_prompt_says_all_of_its_question_also_behind_an_instruction(seed: int, held: bool):
    domain, rng = Domain(seed), Random(seed)
    question = domain.question(rng, held_out=held)
    prompt = domain.template(rng, held_out=held).prompt(question)

    assert read_question(prompt) == question
    assert read_question(f"Aim for correctness 4 of 5: states the facts as they are.\n\n{prompt}") == question


@given(
    st.text()
    | st.just("Question: what Hugo does. stars")
    | st.just("Notes: Mira sings daily.\nQuestion: what Hugo does.")
)
def test_other_text_is_no_question(text: str):
    assert read_question(text) is None


@given(SEEDS, st.booleans())
def test_facts_are_held_out_all_or_none_and_so_is_whatever_is_mixed_up_among_them(seed: int, held: bool):
    domain = Domain(seed)
    question = domain.question(Random(seed), held_out=held)
    mixed = [Note(a.name, b.activity, c.time) for a in question.notes for b in question.notes for c in question.notes]

    assert all(held_out(domain, note) == {held} for note in mixed)


@given(SEEDS)
def test_no_part_of_a_held_out_template_is_in_another(seed: int):
    domain, rng = Domain(seed), Random(seed)
    kept, others = ([domain.template(rng, held_out=held) for _ in range(50)] for held in (True, False))

    assert not {(t.lead, t.ask) for t in kept} & {(t.lead, t.ask) for t in others}
    assert not {(t.request, t.position) for t in kept} & {(t.request, t.position) for t in others}


def test_the_seed_decides_what_is_held_out():
    assert Domain(1).names == Domain(1).names
    assert Domain(1).names != Domain(2).names
