import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from amopo_core.engine.logps import pad_sequences, token_logps
from amopo_core.policy import load_policy

ids = st.lists(st.integers(0, 200), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def model(tiny_policy_folder):
    return load_policy(tiny_policy_folder).model


def by_hand(model, prompt, response):
    """One unpadded sequence, all logits, a plain log-softmax."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0]
    logps = logits.log_softmax(-1)
    return torch.stack([logps[len(prompt) + place - 1, token] for place, token in enumerate(response)])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequences=st.lists(st.tuples(ids, ids), min_size=1, max_size=4))
def test_padding_and_company_change_no_log_probability(model, sequences):
    prompts, responses = (list(side) for side in zip(*sequences, strict=True))
    padded = pad_sequences(prompts, responses)
    with torch.no_grad():
        logps = token_logps(model, padded)

    for row, (prompt, response) in enumerate(sequences):
        expected = by_hand(model, prompt, response)
        assert_close(logps[row][padded.response_mask_NR[row]], expected, rtol=1e-4, atol=1e-5)
        assert (logps[row][~padded.response_mask_NR[row]] == 0).all()


def test_a_response_may_hold_the_id_that_pads(model):
    """Padding is told by the mask: id 0 inside a response is a token like another."""
    padded = pad_sequences([[3], [1, 2]], [[0, 0, 7], [5]])

    assert_close(token_logps(model, padded)[0], by_hand(model, [3], [0, 0, 7]), rtol=1e-4, atol=1e-5)
