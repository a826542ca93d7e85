"""Fixtures of the tests of checkpoints."""

import golden_data
import pytest

from xsvggt_ros.model.checkpoint import CheckpointError, load_model


@pytest.fixture(scope='module')
def case():
    """Return the smaller golden case."""
    return golden_data.load_case('tiny_h1')


@pytest.fixture
def error_of():
    """Return a function that gives the text of the CheckpointError that loading raises."""
    def load(path, **options):
        with pytest.raises(CheckpointError) as raised:
            load_model(str(path), **options)
        return str(raised.value)

    return load
