"""Tests that ask for it run twice: whichever library multiplies on this processor, the other does too."""

import pytest

from amopo_core.engine import products


@pytest.fixture(scope="module", params=["MKL", "oneDNN"])
def library(request):
    """Which one makes products of 32 bits on this CPU."""
    if request.param == "oneDNN" and not products._IS_HERE:
        pytest.skip("torch has no oneDNN beside MKL here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_ONEDNN_IS_FASTER", request.param == "oneDNN")
        yield request.param
