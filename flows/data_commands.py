"""`amopo data`: what became of feedback, and what people decide about it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import click

from amopo_core.errors import UserError
from flows.output import json_option, print_json
from tasks.turn import own_turn

if TYPE_CHECKING:
    import polars as pl

    from amopo_core.data.decisions import AnyDecision
    from amopo_core.data.why import PairStory, ResponseStory, Statement
    from tasks.erasure import Erasure
    from tasks.provenance import Sighting

_REPORT = Path("reports/normalize.json")
_SHORT = 300
"""Characters of a text that are shown."""
_LISTED = 10
"""Names of one kind that are listed."""
_NEXT = "next: amopo retrain"

reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; kept with the decision.")


@click.group()
def data() -> None:
    """See where feedback went, and decide what is used of it.

    Example: amopo data batches
    """


@data.command()
@json_option
def batches(as_json: bool) -> None:
    """List every batch: its rows, the file it came from, and whether it is in use or held.

    Example: amopo data batches
    """
    from amopo_core.data.decisions import read_decisions
    from amopo_core.data.standing import read_report, standings
    from amopo_core.params_file import read_params
    from tasks import git
    from tasks.dvc_command import FEEDBACK

    git.require_workspace()
    report = read_report(_REPORT)
    found = standings(FEEDBACK, read_params().sources, read_decisions(), report)
    if as_json:
        listed = [
            {"batch": one.batch.title, "rows": one.batch.rows} | {key: asdict(one)[key] for key in _STANDING}
            for one in found
        ]
        print_json({"normalized": report is not None, "batches": listed})
        return
    for one in found:
        forgotten = f", {one.forgotten} forgotten" if one.forgotten else ""
        erased = f", {one.erased} erased" if one.erased else ""
        refused = f", {one.refused} refused" if one.refused else ""
        said = f": {'; '.join(one.reasons)}" if one.state == "held" else ""
        click.echo(
            f"{one.batch.title}  {_rows(one.batch.rows)}{refused}{forgotten}{erased}"
            f"  from {one.file or 'an unnamed file'}  {one.state}{said}"
        )
    if not found:
        click.echo("no feedback yet; add some with: amopo ingest FILE --source NAME")
    elif report is None:
        click.echo(f"the stage normalize has not run yet; {_NEXT}")
    elif any(one.state == "held" for one in found):
        click.echo("look at what is held, then: amopo data release BATCH")


_STANDING = ("file", "state", "reasons", "refused", "forgotten", "erased")


@data.command()
@click.argument("batch")
@reason_option
@json_option
def release(batch: str, reason: str, as_json: bool) -> None:
    """Train on a held BATCH (SOURCE/BATCH) all the same, from the next run on.

    Example: amopo data release support/000002-0a1b2c3d4e5f --reason "a new team rates since May"
    """
    from amopo_core.data.decisions import Release, read_decisions
    from amopo_core.data.standing import read_report, require_held, standings
    from amopo_core.params_file import read_params
    from tasks import git
    from tasks.dvc_command import FEEDBACK

    git.require_workspace()
    found = standings(FEEDBACK, read_params().sources, read_decisions(), read_report(_REPORT))
    require_held(batch, found)
    with own_turn():
        is_new = _decide([Release(decision="release", batch=batch, reason=reason, at=_today())]) > 0
    if as_json:
        print_json({"batch": batch, "new": is_new, "next": "amopo retrain"})
    else:
        click.echo(f"{batch} is {'released' if is_new else 'released already'}\n{_NEXT}")


@data.command()
@click.argument("name", metavar="ID")
@click.option("--full", is_flag=True, help="Whole texts.")
@json_option
def why(name: str, full: bool, as_json: bool) -> None:
    """Walk back from a pair or a response to the rows behind it, and say which versions saw them.

    ID is 16 hexadecimal digits: a pair's (reports/train/dropped.jsonl) or a response's.

    Example: amopo data why 3f9a0c1d2e4b5a69
    """
    from amopo_core.data.why import PairStory, rows_behind
    from amopo_core.data.why import why as story_of
    from tasks import git
    from tasks.provenance import versions_that_saw

    git.require_workspace()
    story = story_of(name)
    seen = versions_that_saw(rows_behind(story))
    if as_json:
        rows = [asdict(said) | {"row": said.row} for said in story.statements]
        print_json(asdict(story) | {"statements": rows, "versions": [asdict(sighting) for sighting in seen]})
        return
    if isinstance(story, PairStory):
        _show_pair(story, full)
    else:
        _show_response(story, full)
    _show_versions(seen)


@data.command()
@click.option("--row", "row_names", multiple=True, metavar="SOURCE/BATCH:LINE", help="One row; repeatable.")
@click.option("--rater", "raters", multiple=True, metavar="NAME", help="All that one rater said; repeatable.")
@click.option("--source", "sources", multiple=True, metavar="NAME", help="All that a source gave; repeatable.")
@reason_option
@click.option("--future", is_flag=True, help="Take a rater who has not rated yet: what comes is forgotten.")
@click.option("--erase", "is_erased", is_flag=True, help="Remove the bytes too, for good.")
@click.option("--yes", "is_confirmed", is_flag=True, help="Erase without asking.")
@json_option
def forget(
    row_names: Sequence[str],
    raters: Sequence[str],
    sources: Sequence[str],
    reason: str,
    future: bool,
    is_erased: bool,
    is_confirmed: bool,
    as_json: bool,
) -> None:
    """Use rows no more, from the next run on, and say which versions saw them.

    What a rater or a source gives later is forgotten too, and so is the same row wherever its source gives it again.
    Without --erase nothing is deleted.

    Example: amopo data forget --row support/000001-0a1b2c3d4e5f:17 --reason "asked to"
    """
    from tasks import git
    from tasks.provenance import versions_that_saw

    git.require_workspace()
    if not (row_names or raters or sources):
        raise UserError("nothing to forget; name it with --row, --rater or --source")
    with own_turn():
        decisions, rows = _named(row_names, raters, sources, reason, future)
        seen = versions_that_saw(rows)
        if is_erased:
            _confirm(rows, is_confirmed)
        added = _decide(decisions)
        erasure = _erase(rows, raters) if is_erased else None
    if as_json:
        answer = {"decisions": added, "rows": rows.height, "versions": [asdict(sighting) for sighting in seen]}
        print_json(answer | {"erased": None if erasure is None else asdict(erasure), "next": "amopo retrain"})
        return
    click.echo(f"forgotten: {_rows(rows.height)}" + ("" if added else "; that was decided before"))
    _show_versions(seen)
    if erasure is not None:
        _show_erasure(erasure)
    if erasure is not None and seen:
        click.echo("the weights of these versions keep what they learnt: retrain, then retire them")
    click.echo(_NEXT)


def _named(
    row_names: Sequence[str], raters: Sequence[str], sources: Sequence[str], reason: str, future: bool
) -> tuple[list[AnyDecision], pl.DataFrame]:
    """The decisions, and the rows that they forget now."""
    import polars as pl

    from amopo_core.data.decisions import ForgetRater, ForgetRow, ForgetSource, rater_digest, read_decisions
    from amopo_core.data.named_rows import digest_of, named_row, rows_of_rater, rows_of_source, rows_table, rows_with
    from amopo_core.params_file import read_params
    from amopo_core.redaction import pseudonym
    from tasks.dvc_command import FEEDBACK

    declared, known, at = read_params().sources, read_decisions().raters, _today()
    decisions: list[AnyDecision] = []
    tables = [rows_table([])]
    digests: dict[str, set[bytes]] = {}
    for row in [named_row(FEEDBACK, name) for name in row_names]:
        batch, digest = f"{row.source}/{row.batch}", digest_of(FEEDBACK, row)
        digests.setdefault(row.source, set()).add(digest)
        decisions.append(
            ForgetRow(decision="forget-row", batch=batch, line=row.line, digest=digest.hex(), reason=reason, at=at)
        )
    tables += [rows_with(FEEDBACK, source, of_source) for source, of_source in digests.items()]
    for rater in raters:
        names = (rater, pseudonym(rater))  # a redactor may have put the second in the place of the first
        found = rows_of_rater(FEEDBACK, declared, names)
        if not found.height and not future and rater_digest(rater) not in known:
            raise UserError(
                f"nobody called {rater!r} has rated anything in the declared sources ({', '.join(declared)}); to forget"
                " what may come from them, add --future"
            )
        tables.append(found)
        decisions += [
            ForgetRater(decision="forget-rater", rater=rater_digest(name), reason=reason, at=at) for name in names
        ]
    for source in sources:
        tables.append(rows_of_source(FEEDBACK, source))
        decisions.append(ForgetSource(decision="forget-source", source=source, reason=reason, at=at))
    return decisions, pl.concat(tables).unique().sort("source", "batch", "line")


def _decide(decisions: Sequence[AnyDecision]) -> int:
    from amopo_core.data.decisions import add_decisions

    return add_decisions(decisions)


def _confirm(rows: pl.DataFrame, is_confirmed: bool) -> None:
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        raise UserError("erasing cannot be undone; add --yes where nobody can be asked")
    said = f"Erase {_rows(rows.height)} for good, from batches, DVC's cache and remotes, and MLflow's samples?"
    click.confirm(said, abort=True, err=True)


def _erase(rows: pl.DataFrame, raters: Sequence[str]) -> Erasure:
    from amopo_core.params_file import read_params
    from amopo_core.redaction import pseudonym
    from tasks.erasure import erase

    return erase(rows, read_params(), [*raters, *map(pseudonym, raters)])


def _show_pair(story: PairStory, full: bool) -> None:
    click.echo(f"pair {story.pair_id}: split {story.split}, weight {story.weight:g}")
    for turn in story.prompt:
        click.echo(f"  {turn['role']}: {_text(turn['content'], full)}")
    click.echo(f"  chosen   {story.chosen_id}: {_text(story.chosen, full)}")
    click.echo(f"  rejected {story.rejected_id}: {_text(story.rejected, full)}")
    for name, of in story.dimensions.items():
        click.echo(f"  {name}: chosen {_number(of.chosen)}, rejected {_number(of.rejected)}, gap {_number(of.gap)}")
    _show_statements(story.statements, {story.chosen_id: "chosen", story.rejected_id: "rejected"})


def _show_response(story: ResponseStory, full: bool) -> None:
    click.echo(f"response {story.response_id}: {_text(story.response, full)}")
    _show_statements(story.statements, {story.response_id: "this response"})
    pairs = [f"{pair} ({split})" for pair, split in story.pairs.items()]
    click.echo("in the pairs: " + (", ".join(pairs) or "none"))


def _show_statements(statements: Sequence[Statement], names: Mapping[str, str]) -> None:
    click.echo("said by:")
    for said in statements:
        about = " over ".join(names.get(response, response) for response in said.about)
        scores = ", ".join(f"{name} {_number(score)}" for name, score in said.scores.items() if score is not None)
        where = f", line {said.line} of {said.file}" if said.file else ""
        click.echo(f"  {said.row}{where}, {said.rater or 'an unnamed rater'}: {about}: {scores or 'overall only'}")


def _show_versions(seen: Sequence[Sighting]) -> None:
    for sighting in seen:
        aliases = f" ({', '.join(sighting.aliases)})" if sighting.aliases else ""
        if sighting.splits is None:
            click.echo(f"version {sighting.version}{aliases}: not known, its run keeps no manifest")
            continue
        counts = ", ".join(f"{count} in {split}" for split, count in sighting.splits.items() if count)
        click.echo(f"version {sighting.version}{aliases} saw of these rows: {counts}")
    if not seen:
        click.echo("no registered version saw these rows")


def _show_erasure(erasure: Erasure) -> None:
    for store, names in erasure.objects.items():
        click.echo(f"removed from {store}: {len(names)} {'object' if len(names) == 1 else 'objects'}")
    _show_list("rewritten in MLflow", erasure.artifacts)
    _show_list("removed here, made anew by the next run", erasure.outputs)
    versions, commits = erasure.records.versions, erasure.records.commits
    _show_list("can no longer be reproduced: versions", versions)
    _show_list("can no longer be reproduced: commits", [f"{commit[:12]} {said}" for commit, said in commits.items()])


def _show_list(title: str, names: Sequence[str]) -> None:
    if names:
        click.echo(f"{title}:")
    for name in names[:_LISTED]:
        click.echo(f"  {name}")
    if len(names) > _LISTED:
        click.echo(f"  and {len(names) - _LISTED} more (--json lists all)")


def _text(text: str, full: bool) -> str:
    return text if full else shorten(text, _SHORT, placeholder=" …")


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _today() -> str:
    return datetime.now(tz=UTC).date().isoformat()
