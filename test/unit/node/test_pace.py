"""How often images are taken, and how a deadline is kept: in simulated time."""

from dataclasses import replace

import numpy as np
import pytest

from xsvggt_ros.engine.cache_stats import CacheStats
from xsvggt_ros.node.deadline import Deadline, SETTLE, WINDOW
from xsvggt_ros.node.rate_limit import RateLimit

FRAME = 100  # tokens
BUDGET = 1000
CACHE = CacheStats(
    frames=9, tokens_per_frame=FRAME, tokens_per_layer=(BUDGET,) * 2, budget=BUDGET, occupancy=1.0,
    evicted_this_frame=FRAME, evicted_total=0, camera_tokens=0, camera_budget=None, bytes_used=0,
    bytes_reserved=0, health=None, limit=BUDGET)


def taken(stamps, rate, arrivals=None):
    limit = RateLimit()
    arrivals = stamps if arrivals is None else arrivals
    return [i for i, (stamp, arrival) in enumerate(zip(stamps, arrivals))
            if limit.is_due(round(1e9 * stamp), arrival, rate)]


@pytest.mark.parametrize(('rate', 'expected'), [(10.0, 3), (15.0, 2), (30.0, 1), (0.0, 1)])
@pytest.mark.parametrize('seed', range(3))
def test_a_camera_at_30_hz_gives_the_rate_though_its_stamps_jitter(rate, expected, seed):
    jitter = np.random.default_rng(seed).uniform(-1e-3, 1e-3, 300)
    chosen = taken(1.7e9 + np.arange(300) / 30 + jitter, rate)
    assert chosen == list(range(0, 300, expected))


def test_a_rate_is_never_exceeded_by_more_than_the_tolerance():
    rng = np.random.default_rng(0)
    stamps = np.cumsum(rng.exponential(0.01, 2000))
    gaps = np.diff(stamps[taken(stamps, 20.0)])
    assert gaps.min() >= 0.9 / 20 and gaps.mean() < 1.3 / 20


def test_stamps_that_go_back_or_stand_still_do_not_end_the_stream():
    assert taken([5.0, 5.01, 1.0, 1.01, 1.2], 10.0) == [0, 2, 4]
    assert taken([0.0] * 30, 10.0, arrivals=np.arange(30) / 30 + 1e-6) == list(range(0, 30, 3))


def test_a_rate_may_change_and_be_forgotten():
    limit = RateLimit()
    assert limit.is_due(0, 0.0, 1.0)
    assert not limit.is_due(500_000_000, 0.5, 1.0)
    assert limit.is_due(500_000_000, 0.5, 2.0)
    assert not limit.is_due(600_000_000, 0.6, 2.0)
    limit.forget()
    assert limit.is_due(600_000_000, 0.6, 2.0)


# The deadline ------------------------------------------------------------------------------------

class SlowNetwork:
    """Takes so many seconds a frame and a token remembered, and obeys limits as the engine."""

    def __init__(self, base, each, budget=BUDGET):
        self.base, self.each, self.budget = base, each, budget
        self.tokens, self.frames = 0, 0
        self.deadline = Deadline()

    @property
    def wanted(self):
        return self.deadline.limit

    @property
    def limit(self):
        if self.wanted is None or self.budget is None:
            return self.budget
        return min(self.budget, max(2 * FRAME, self.wanted))

    def frame(self, deadline_ms):
        limit = self.limit
        seconds = self.base + self.each * self.tokens
        self.tokens += FRAME
        if limit is not None:
            self.tokens = min(self.tokens, limit)
        self.frames += 1
        self.deadline.update(seconds, deadline_ms, replace(
            CACHE, tokens_per_layer=(self.tokens,), budget=self.budget, limit=limit))
        return seconds

    def run(self, frames, deadline_ms):
        return [self.frame(deadline_ms) for _ in range(frames)]


def test_no_deadline_changes_nothing():
    network = SlowNetwork(1.0, 1.0)
    network.run(100, 0.0)
    assert network.wanted is None and network.deadline.fault == ''
    assert not network.deadline.is_too_late(100.0, 0.0)


def test_the_history_shrinks_until_the_deadline_is_kept_and_no_further():
    network = SlowNetwork(0.02, 1e-4)     # 120 ms with the whole budget
    seconds = network.run(400, 100.0)
    assert max(seconds[-100:]) <= 0.1
    assert 0.8 * 640 <= network.limit <= 840
    assert network.deadline.fault == ''


def test_the_history_grows_again_up_to_the_budget():
    network = SlowNetwork(0.02, 1e-4)
    network.run(400, 60.0)
    short = network.limit
    assert short <= 400
    grown = []
    for _ in range(1500):
        network.frame(200.0)
        grown.append(network.limit)
    assert grown == sorted(grown) and short in grown
    assert network.wanted is None and network.limit == BUDGET
    changes = [i for i in range(1, 1500) if grown[i] != grown[i - 1]]
    assert min(np.diff(changes)) >= WINDOW + SETTLE     # each change is felt before the next


def test_it_settles_instead_of_swinging():
    network = SlowNetwork(0.02, 1e-4)
    network.run(600, 100.0)
    limits = set()
    for _ in range(1000):
        network.frame(100.0)
        limits.add(network.limit)
    assert len(limits) == 1


def test_a_single_slow_frame_is_no_reason():
    network = SlowNetwork(0.02, 0.0)
    for i in range(200):
        network.base = 1.0 if i % WINDOW == 0 else 0.02
        network.frame(100.0)
    assert network.wanted is None


def test_a_deadline_that_cannot_be_kept_is_said_with_the_remedy():
    network = SlowNetwork(0.08, 1e-5)
    network.run(400, 50.0)
    assert network.limit == 2 * FRAME
    assert network.deadline.fault == (
        'deadline_ms 50 is missed (p95 82 ms) with the shortest history: lower model.image_size '
        'or raise deadline_ms')
    network.run(1, 200.0)
    assert network.deadline.fault == ''     # another deadline is judged anew
    network.run(1, 0.0)
    assert network.wanted is None


def test_policy_full_takes_no_limit_and_says_so():
    network = SlowNetwork(0.08, 0.0, budget=None)
    network.run(60, 50.0)
    assert network.wanted is None
    assert 'policy full' in network.deadline.fault and 'cache.policy' in network.deadline.fault


def test_the_limit_outlasts_the_stream_but_not_what_was_measured():
    network = SlowNetwork(0.08, 1e-5)
    network.run(400, 50.0)
    network.deadline.forget()
    assert network.deadline.fault == ''
    network.run(1, 50.0)
    assert network.limit == 2 * FRAME


def simulate(period, processing, deadline_ms, images=300):
    """Return how long the processed images took, and which were skipped, with a mailbox of one."""
    deadline = Deadline()
    free, latencies, skipped = 0.0, [], []
    arrivals = np.arange(images) * period
    i = 0
    while i < images:
        newest = max(i, int(np.searchsorted(arrivals, free, side='right')) - 1)
        begin = max(free, arrivals[newest])
        if deadline.is_too_late(begin - arrivals[newest], deadline_ms):
            skipped.append(newest)
        else:
            free = begin + processing
            latencies.append(free - arrivals[newest])
            deadline.update(processing, deadline_ms, CACHE)
        i = newest + 1
    return latencies, skipped


def test_images_that_would_be_late_are_left_for_the_next():
    without, _ = simulate(0.033, 0.05, 0.0)
    latencies, skipped = simulate(0.033, 0.05, 60.0)
    assert max(without) > 0.06 >= max(latencies)
    assert skipped and min(np.diff(skipped)) > 1
    assert len(latencies) > 0.6 * len(without)


def test_a_network_slower_than_the_deadline_is_not_starved():
    latencies, skipped = simulate(0.033, 0.05, 40.0)
    assert skipped == [] and len(latencies) > 100


def test_never_two_images_in_a_row():
    deadline = Deadline()
    deadline.update(0.01, 50.0, CACHE)
    assert [deadline.is_too_late(1.0, 50.0) for _ in range(4)] == [True, False, True, False]
