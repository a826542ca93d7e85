"""A short form of `python -m fuzz`, with the same inputs each time: see `fuzz`."""

from fuzz.mutation import mutate
from fuzz.run import all_targets, memory_limit
import pytest

hypothesis = pytest.importorskip('hypothesis')

EXECUTIONS = 400
TARGETS = {name: target for name, target in all_targets().items() if name not in (
    'tum_lists', 'folder_names', 'safetensors_file', 'safetensors_header',
    'checkpoint_config', 'checkpoint_keys', 'checkpoint_pickled')}


@pytest.mark.parametrize('name', TARGETS)
def test_damaged_input_is_refused(name):
    target = TARGETS[name]
    seeds = target.seeds()
    accepted = [seed for seed in seeds if target.run(seed)]
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
