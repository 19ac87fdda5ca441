import pytest

from ..models.family_checkpoints import in_float64


@pytest.fixture(scope="module")
def float64_throughout():
    """Tokens are compared one by one: models in float64 compute in float64 all the way."""
    with in_float64():
        yield
