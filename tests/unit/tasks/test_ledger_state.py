"""What the ledger says by itself: who is champion, whom a rollback goes to, how it agrees with the alias."""

import json
from dataclasses import asdict

import pytest

from tasks.errors import OutsideError
from tasks.ledger_state import DONE, Entry, Kept, Ledger, kept_in, key_of, keys_of


def entry(version: str | None, how: str = "promoted") -> Entry:
    return Entry(version, "2026-05-04 10:00:00+00:00", how, "better", "Ann")


def ledger(*entries: Entry, alias: str | None = None, done: bool = True) -> Ledger:
    """Entries of which all but the last are done, the last where `done` says so."""
    kept = [
        Kept(number, key_of(number, "00000000"), entry, done or number < len(entries))
        for number, entry in enumerate(entries, start=1)
    ]
    return Ledger(tuple(kept), alias)


@pytest.mark.parametrize(
    ("found", "champions"),
    [
        (ledger(), []),
        (ledger(alias="4"), ["4"]),  # from before there was a ledger
        (ledger(entry("1"), entry("2"), entry("3")), ["1", "2", "3"]),
        (ledger(entry("1"), entry("2"), entry("3"), entry("2", "rolled back")), ["1", "2"]),
        (ledger(entry("1"), entry("2"), entry("2", "rolled back")), ["1", "2"]),
        (ledger(entry("1"), entry("2"), entry("1", "promoted by hand")), ["1", "2", "1"]),
        (ledger(entry("1"), entry("2"), entry("1", "moved outside")), ["1"]),
        (ledger(entry("1"), entry("5", "moved outside")), ["1", "5"]),
        (ledger(entry("1"), entry("2"), entry(None, "lost")), ["1", "2"]),
        (ledger(entry("1"), entry(None, "lost"), entry("1", "promoted by hand")), ["1"]),
    ],
)
def test_champions_are_a_stack_that_rollbacks_walk_down(found: Ledger, champions: list[str]) -> None:
    assert found.champions == champions
    assert found.champion == (champions[-1] if champions else None)


@pytest.mark.parametrize(
    ("found", "standing", "said"),
    [
        (ledger(), "whole", None),
        (ledger(entry("1"), alias="1"), "whole", None),
        (ledger(alias="1"), "unwritten", None),
        (ledger(entry("1"), entry("2"), alias="1", done=False), "pending", "version 2 is to be champion"),
        (ledger(entry("1"), entry("2"), alias="2", done=False), "whole", None),
        (ledger(entry("1"), alias="3"), "moved", "moved from version 1 to 3"),
        (ledger(entry("1"), alias=None), "lost", "`amopo promote 1 --reason TEXT` gives it back"),
        (ledger(entry("1"), entry(None, "lost")), "whole", "so nobody is served"),
    ],
)
def test_how_it_agrees_with_the_alias(found: Ledger, standing: str, said: str | None) -> None:
    assert found.standing == standing
    assert (found.trouble is None) if said is None else (said in str(found.trouble))


def test_of_entries_that_met_the_one_that_came_about_counts() -> None:
    tags = {
        key_of(1, "ffffffff"): json.dumps(asdict(entry("2"))),
        key_of(1, "00000000"): json.dumps(asdict(entry("3"))),
    }

    assert [kept.entry.version for kept in kept_in(tags | {"other": "tag"})] == ["3"]
    assert [kept.entry.version for kept in kept_in(tags | {key_of(1, "ffffffff") + DONE: "now"})] == ["2"]
    assert sorted(keys_of(1, tags)) == [key_of(1, "00000000"), key_of(1, "ffffffff")]
    assert keys_of(2, tags) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "1"}', "null"])
def test_an_entry_that_was_changed_by_hand_is_named(text: str) -> None:
    with pytest.raises(OutsideError, match=r"the tag ledger\.000001\.00000000 .* is no entry of the ledger"):
        kept_in({key_of(1, "00000000"): text})
