import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from amopo_core.chat import ChatEncoder
from amopo_core.data.tables import Pair, write_pairs
from amopo_core.engine.batches import sequences_of
from amopo_core.engine.tree import packed_tokens
from amopo_core.errors import UserError
from amopo_core.params_file import read_params
from amopo_core.policy import load_tokenizer
from amopo_core.training import encoded
from amopo_core.training.encoded import (
    CHUNK,
    EncodedPairs,
    Encoding,
    dropped_path,
    encode_split,
    read_encoding,
    summary_path,
)
from amopo_core.training.encoding import DroppedPair, PairEncoder

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
DIMENSIONS = list(PARAMS.dimensions)
MAX_LENGTH = 200


def some_pairs(count):
    """Conversations of one turn and of several, shortened ones, some that cannot be trained on."""
    rng = Random(0)
    for number in range(count):
        words = ["".join(rng.choices("abc <|end|>é\n", k=rng.choice([0, 1, 9, 30, 40, 50, 60, 150]))) for _ in range(4)]
        prompt = [{"role": "user", "content": words[0] + "?"}]
        if number % 3 == 0:
            system, answer = {"role": "system", "content": "be brief"}, {"role": "assistant", "content": words[3]}
            prompt = [system, *prompt, answer, {"role": "user", "content": words[3]}]
        scores = [dict.fromkeys(DIMENSIONS, rng.choice([1.0, 2.5, 4.0])) for _ in range(2)]
        weight = rng.choice([1.0, 0.5])
        yield Pair(f"{number:016x}", "f" * 16, prompt, words[1], words[2], *scores, weight=weight)


@pytest.fixture(scope="module")
def pairs():
    """More than a chunk of those that can be trained on."""
    return list(some_pairs(3 * CHUNK))


@pytest.fixture(scope="module")
def table(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "train.parquet"
    write_pairs(path, pairs, DIMENSIONS)
    return path


@pytest.fixture(scope="module")
def path(table, tiny_policy_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "train.arrow"
    encode_split(PARAMS, table, tiny_policy_folder, MAX_LENGTH, path)
    return path


@pytest.fixture(scope="module")
def results(pairs, tiny_policy_folder):
    encoder = ChatEncoder(load_tokenizer(tiny_policy_folder))
    return list(PairEncoder(encoder, PARAMS.dimensions, PARAMS.views, MAX_LENGTH).encode(pairs))


@pytest.fixture(scope="module")
def kept(results):
    return [result for result in results if not isinstance(result, DroppedPair)]


def test_pairs_come_back_as_they_were_encoded(path, kept):
    found = EncodedPairs(path)

    assert len(found) == len(kept) > CHUNK
    assert [found[place] for place in range(len(found))] == kept


def test_a_pair_brings_the_tokens_of_its_rows(path, kept):
    found, read = EncodedPairs(path), [sequences_of(pair, plain=False) for pair in kept]

    assert found.packed_tokens.tolist() == [packed_tokens(sequences) for sequences in read]
    assert found.separate_tokens.tolist() == [len(sequences) * max(map(len, sequences)) for sequences in read]


def test_the_plain_prompt_counts_where_the_supervised_term_reads_it(pairs, tiny_policy_folder, tmp_path):
    objective = PARAMS.objective.model_copy(update={"supervised_weight": 0.5})
    views = PARAMS.views.model_copy(update={"generic": False, "pair_order": "per_dimension"})
    params = PARAMS.model_copy(update={"objective": objective, "views": views})
    write_pairs(tmp_path / "train.parquet", pairs[:60], DIMENSIONS)

    encode_split(params, tmp_path / "train.parquet", tiny_policy_folder, MAX_LENGTH, tmp_path / "train.arrow")
    found = EncodedPairs(tmp_path / "train.arrow")

    rows = [found[place] for place in range(len(found))]
    assert {prompt is None for row in rows for prompt in row.prompts} == {False}
    assert found.packed_tokens.tolist() == [packed_tokens(sequences_of(row, plain=True)) for row in rows]


def test_views_that_are_not_active_stay_so(pairs, tiny_policy_folder, tmp_path):
    views = PARAMS.views.model_copy(update={"pair_order": "per_dimension"})
    halved = [replace(pair, chosen_scores=pair.chosen_scores | {DIMENSIONS[0]: None}) for pair in pairs[:60]]
    write_pairs(tmp_path / "train.parquet", halved, DIMENSIONS)
    params = PARAMS.model_copy(update={"views": views})

    encode_split(params, tmp_path / "train.parquet", tiny_policy_folder, MAX_LENGTH, tmp_path / "train.arrow")
    found = EncodedPairs(tmp_path / "train.arrow")

    rows = [found[place] for place in range(len(found))]
    assert {row.prompts[1] for row in rows} == {None}
    assert {row.swapped[2] for row in rows} == {False, True}
    encoder = PairEncoder(ChatEncoder(load_tokenizer(tiny_policy_folder)), params.dimensions, views, MAX_LENGTH)
    assert rows == [result for result in encoder.encode(halved) if not isinstance(result, DroppedPair)]


def test_instructions_stand_where_the_parameters_say(pairs, tiny_policy_folder, tmp_path):
    params = PARAMS.model_copy(update={"views": PARAMS.views.model_copy(update={"instruction_at": "end"})})
    write_pairs(tmp_path / "train.parquet", pairs[:60], DIMENSIONS)
    encoder = ChatEncoder(load_tokenizer(tiny_policy_folder), "end")

    encode_split(params, tmp_path / "train.parquet", tiny_policy_folder, MAX_LENGTH, tmp_path / "train.arrow")
    found = EncodedPairs(tmp_path / "train.arrow")

    results = PairEncoder(encoder, params.dimensions, params.views, MAX_LENGTH).encode(pairs[:60])
    expected = [result for result in results if not isinstance(result, DroppedPair)]
    assert [found[place] for place in range(len(found))] == expected


def test_what_cannot_be_trained_on_is_listed_with_its_reason(path, results):
    listed = [json.loads(line) for line in dropped_path(path).read_text().splitlines()]

    dropped = [result for result in results if isinstance(result, DroppedPair)]
    assert listed == [{"pair_id": result.pair_id, "reason": result.reason} for result in dropped]
    assert {line["reason"] for line in listed} > {"empty_response", "prompt_lost"}


def test_what_came_of_the_pairs_is_counted(path, results, kept):
    reasons = [result.reason for result in results if isinstance(result, DroppedPair)]

    assert read_encoding(path) == Encoding(
        pairs=len(kept),
        truncated=sum(pair.truncated > 0 for pair in kept),
        dropped={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        weight=sum(pair.weight for pair in kept),
        views=len(PARAMS.view_names) * len(kept),
        shortest_too_long=min(result.needs for result in results if isinstance(result, DroppedPair) and result.needs),
    )


def test_two_processes_write_the_same_bytes(path, table, tiny_policy_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(encoded, "WORTH_A_PROCESS", CHUNK)
    monkeypatch.setattr(encoded.os, "sched_getaffinity", lambda _: {0, 1})
    again = tmp_path / path.name

    encode_split(PARAMS, table, tiny_policy_folder, MAX_LENGTH, again)

    for of in (Path, dropped_path, summary_path):
        assert of(again).read_bytes() == of(path).read_bytes()


def test_an_empty_table_is_encoded_too(tiny_policy_folder, tmp_path):
    write_pairs(tmp_path / "train.parquet", [], DIMENSIONS)

    encode_split(PARAMS, tmp_path / "train.parquet", tiny_policy_folder, MAX_LENGTH, tmp_path / "train.arrow")

    assert len(EncodedPairs(tmp_path / "train.arrow")) == 0
    assert read_encoding(tmp_path / "train.arrow") == Encoding()
    assert dropped_path(tmp_path / "train.arrow").read_text() == ""


def test_nothing_is_left_of_the_texts_and_of_the_file_that_was_being_written(path):
    assert {each.name for each in path.parent.iterdir()} == {"train.arrow", "train.dropped.jsonl", "train.json"}


def test_an_encoding_that_breaks_off_counts_as_none_and_is_made_anew(path, table, pairs, tiny_policy_folder, tmp_path):
    strict = shutil.copytree(tiny_policy_folder, tmp_path / "strict")
    template = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    (strict / "chat_template.jinja").write_text(template + "{{ m.content }}{% endfor %}\n")
    broken, again, whole = tmp_path / "broken" / "train.parquet", tmp_path / "again" / path.name, tmp_path / path.name
    tool = Pair("f" * 16, "f" * 16, [{"role": "tool", "content": "x"}], "a", "b", *[pairs[0].chosen_scores] * 2)
    write_pairs(broken, [*pairs, tool], DIMENSIONS)

    with pytest.raises(UserError, match="no tools"):
        encode_split(PARAMS, broken, strict, MAX_LENGTH, again)

    assert again.with_name(again.name + ".new").stat().st_size > 10_000  # a chunk was written
    assert not again.exists()
    assert not summary_path(again).exists()
    assert not dropped_path(again).exists()
    for each in (again, whole):
        encode_split(PARAMS, table, strict, MAX_LENGTH, each)
    assert again.read_bytes() == whole.read_bytes()
    assert {each.name for each in again.parent.iterdir()} == {each.name for each in path.parent.iterdir()}
