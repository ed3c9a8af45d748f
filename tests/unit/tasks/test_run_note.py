from tasks.run_note import run_note

REPORT = """# The candidate against its base policy

Overall judge's score on 400 held-out prompts: 2.84 before, 4.12 after; difference **+1.28**.

![candidate against base, dimension by dimension](dimensions.png)

## Judge's score

| dimension | base |
| --- | ---: |
| tone | 2.8 |

## Answers side by side

A person's answer.
"""


def test_the_headline_comes_first_then_the_tables() -> None:
    note = run_note(REPORT)

    assert note.startswith("Overall judge's score on 400 held-out prompts")
    assert "## Judge's score\n\n| dimension | base |" in note
    assert "dimensions.png" not in note
    assert "A person's answer" not in note
    assert note.endswith("reports/evaluate/report.md\n")


def test_what_is_too_long_loses_whole_sections() -> None:
    note = run_note(REPORT.replace("| tone | 2.8 |", "| tone | 2.8 |\n" * 500))

    assert len(note) < 8000
    assert "## Judge's score" not in note
    assert note.startswith("Overall judge's score")
