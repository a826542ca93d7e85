"""A short form of `python -m fuzz`, with the same inputs each time: see `fuzz`."""

from fuzz.mutation import mutate
from fuzz.run import all_targets, memory_limit
import pytest

hypothesis = pytest.importorskip('hypothesis')

EXECUTIONS = 400
TARGETS = all_targets()
# A whole network is not among their inputs: it would be too large to be damaged where it matters.
OF_NO_NETWORK = ('safetensors_file', 'safetensors_header', 'checkpoint_pickled')


@pytest.mark.slow
@pytest.mark.parametrize('name', TARGETS)
def test_damaged_input_is_refused(name):
    target = TARGETS[name]
    seeds = target.seeds()
    accepted = [seed for seed in seeds if target.run(seed)]
    if name not in OF_NO_NETWORK:
        assert accepted, 'the damage would not be what the reader refuses'

    # Hypothesis decides what is changed, so that it finds the smallest change that fails.
    @hypothesis.settings(max_examples=EXECUTIONS, derandomize=True, database=None, deadline=None,
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(hypothesis.strategies.sampled_from(seeds),
                      hypothesis.strategies.randoms(use_true_random=False))
    def check(seed, rng):
        target.run(mutate(seed, rng, target.tokens, seeds))

    with memory_limit(target.memory):
        check()
