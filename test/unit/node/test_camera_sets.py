"""Images of several cameras that belong together."""

import numpy as np
import pytest

from xsvggt_ros.node.inputs.camera_sets import CameraSets, QUEUE

MILLI = 10 ** 6


class Rig:
    """Cameras whose images are their stamps in milliseconds, arriving at a time of our own."""

    def __init__(self, cameras=2, slop=0.02, patience=2.0):
        self.sets = CameraSets([f'/cam{i}' for i in range(cameras)], slop, patience, now=0.0)
        self.sent = self.taken = 0

    def send(self, camera, stamp, now=None):
        """Return the stamps of the set that an image completes, in milliseconds."""
        self.sent += 1
        now = stamp * 1e-3 if now is None else now
        found = self.sets.add(camera, round(stamp * MILLI), stamp, now)
        if found is None:
            return None
        self.taken += len(found)
        assert [one.camera for one in found] == sorted({one.camera for one in found})
        return [one.content for one in found]

    @property
    def waiting(self):
        return self.sent - self.taken - self.sets.dropped


def test_a_set_is_complete_when_its_last_image_comes_whichever_that_is():
    rig = Rig(3)
    assert rig.send(2, 101) is None and rig.send(0, 100) is None
    assert rig.send(1, 99) == [100, 99, 101]
    assert rig.send(0, 150) is None and rig.send(1, 150) is None
    assert rig.send(2, 150) == [150, 150, 150]
    assert rig.waiting == rig.sets.dropped == 0


def test_images_too_far_apart_find_each_other_never_and_are_counted():
    rig = Rig()
    for index in range(40):
        assert rig.send(0, index * 50) is None
        assert rig.send(1, index * 50 + 25) is None
    assert rig.sets.dropped == 80 - 2 * QUEUE and rig.waiting == 2 * QUEUE


def test_an_image_without_a_partner_is_dropped_by_the_next_set():
    rig = Rig()
    rig.send(0, 0)
    rig.send(0, 50)
    assert rig.send(1, 51) == [50, 51]
    assert rig.sets.dropped == 1 and rig.waiting == 0


def test_of_several_that_fit_the_nearest_is_taken():
    rig = Rig(slop=0.1)
    for stamp in (0, 30, 60, 90):
        rig.send(1, stamp)
    assert rig.send(0, 65) == [65, 60]
    assert rig.sets.dropped == 2 and rig.waiting == 1


@pytest.mark.parametrize('seed', range(10))
def test_with_delay_jitter_and_loss_sets_go_forward_and_every_image_is_counted(seed):
    rng = np.random.default_rng(seed)
    events = []
    for camera in range(3):
        for index in range(200):
            if rng.random() < 0.9:
                stamp = index * 50 + rng.uniform(-8, 8)
                events.append((stamp + rng.uniform(0, 120), camera, stamp))
    rig, stamps = Rig(3), []
    for arrival, camera, stamp in sorted(events):
        found = rig.send(camera, stamp, arrival * 1e-3)
        if found:
            assert len(found) == 3 and max(found) - min(found) < 20
            stamps.append(found[0])
    assert len(stamps) > 0.9 ** 3 * 200 * 0.7
    assert (np.diff(stamps) > 0).all()
    assert 0 <= rig.waiting <= 3 * QUEUE


def test_a_silent_camera_is_named_left_out_and_taken_back():
    rig = Rig()
    for stamp in range(0, 1000, 50):
        rig.send(1, stamp)
        assert rig.send(0, stamp) == [stamp, stamp]
    for stamp in range(1000, 2950, 50):   # the second camera is gone
        assert rig.send(0, stamp) is None
        assert rig.sets.missing(stamp * 1e-3) == []
    for stamp in range(3000, 4000, 50):
        assert rig.send(0, stamp) == [stamp]
    ((camera, fault),) = rig.sets.missing(4.0)
    assert camera == 1 and '/cam1' in fault and 'no image for 3 s' in fault
    assert rig.send(0, 4000) == [4000]   # the first one after that comes too late for its set
    assert rig.send(1, 4001) is None
    assert rig.sets.missing(4.0) == []
    rig.send(0, 4050)
    assert rig.send(1, 4051) == [4050, 4051]


def test_a_camera_that_has_never_come_is_left_out_too():
    rig = Rig()
    assert [rig.send(0, stamp) for stamp in range(100_000, 102_000, 100)] == [None] * 20
    assert rig.send(0, 102_100) == [102_100]
    assert '/cam1 has sent no image' in rig.sets.missing(102.1)[0][1]


def test_a_camera_out_of_step_is_left_out_for_good_without_stalls():
    rig = Rig()
    complete = []
    for stamp in range(0, 20_000, 100):
        complete.append(rig.send(0, stamp) == [stamp])
        assert rig.send(1, stamp + 40) is None
    assert complete.index(True) <= 21 and all(complete[complete.index(True):])
    ((camera, fault),) = rig.sets.missing(20.0)
    assert camera == 1 and '/cam1' in fault and '0.04 s' in fault and 'input.sync_slop' in fault


def test_without_the_reference_nothing_goes_on_and_that_is_said():
    rig = Rig()
    for stamp in range(0, 4000, 50):
        assert rig.send(1, stamp) is None
    ((camera, fault),) = rig.sets.missing(4.0)
    assert camera == 0 and '/cam0 has sent no image' in fault
    assert rig.sets.missing(10.0) == []   # now nobody sends any more


def test_after_a_pause_of_all_cameras_sets_are_complete_at_once():
    rig = Rig()
    rig.send(0, 0)
    rig.send(1, 0)
    assert rig.send(0, 60_000) is None
    assert rig.send(1, 60_000) == [60_000, 60_000]


def test_stamps_that_go_back_begin_anew():
    rig = Rig()
    rig.send(0, 10_000, now=1.0)
    rig.send(1, 10_000, now=1.0)
    rig.send(0, 10_050, now=1.05)
    assert rig.send(0, 0, now=1.1) is None     # the recording begins again
    assert rig.send(1, 10_050, now=1.1) is None
    assert rig.send(1, 0, now=1.15) is None
    rig.send(1, 50, now=1.2)
    assert rig.send(0, 50, now=1.2) == [50, 50]
    assert rig.waiting == 0
