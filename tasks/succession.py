"""Another champion by a person's word: promoted whatever its verdict was, or rolled back to."""

from __future__ import annotations

from amopo_core.errors import UserError
from tasks import ledger
from tasks.approval import end_waiting
from tasks.checkpoint import require_loadable
from tasks.ledger_state import LONGEST, How, Ledger
from tasks.registry import Version, by_number


def promote(version: Version, *, why: str, by: str) -> str | None:
    """Make the version champion.

    Returns:
        What was found amiss with the alias before; None where all was well.

    Raises:
        UserError: it is champion already, or could not be served.
        OutsideError: somebody else changed the champion at the same moment.
    """
    require_reason(why)
    state, trouble = ledger.reconcile()
    _succeed(version, state, "promoted by hand", why, by)
    return trouble


def roll_back(to: Version | None, *, why: str, by: str) -> tuple[Version, str | None]:
    """Make the champion before, or `to`, champion again.

    Returns:
        Who is champion now, and what was found amiss with the alias before.

    Raises:
        UserError: there is no champion before, `to` was none, it is champion already, or could not be served.
        OutsideError: somebody else changed the champion at the same moment.
    """
    require_reason(why)
    state, trouble = ledger.reconcile()
    target = to or _before(state)
    if target.number not in {entry.version for entry in state.entries}:
        raise UserError(
            f"version {target.number} never was champion; `amopo promote {target.number} --reason TEXT` makes it one"
        )
    _succeed(target, state, "rolled back", why, by)
    return target, trouble


def require_reason(why: str) -> None:
    """Refuse a reason that says nothing, or more than the ledger keeps."""
    if not why.strip():
        raise UserError('--reason is empty; say why in a few words, such as --reason "answers became too long"')
    if len(why) > LONGEST:
        raise UserError(f"--reason has {len(why)} characters, and the ledger keeps {LONGEST}; shorten it")


def _succeed(version: Version, state: Ledger, how: How, why: str, by: str) -> None:
    if state.alias == version.number:
        if end_waiting(version, why=why, by=by):
            return  # what a command began that was killed behind the alias
        raise UserError(f"version {version.number} is champion already; `amopo history` says since when")
    require_loadable(version)
    ledger.move(version.number, after=state, how=how, why=why, by=by)
    end_waiting(version, why=why, by=by)


def _before(state: Ledger) -> Version:
    """The newest champion before the present one that there still is."""
    for number in reversed(state.champions[:-1]):
        if found := by_number(number):
            return found
    raise UserError(
        "there is no champion before the present one to go back to; `amopo promote VERSION --reason TEXT` takes any"
        " version (see `amopo history`)"
    )
