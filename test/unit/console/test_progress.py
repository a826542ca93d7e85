"""How quickly something goes on, as it is shown."""

import time

from xsvggt_ros.console.progress import ProgressRate


def test_what_an_earlier_run_has_done_is_no_pace(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    rate = ProgressRate(50, 30)
    now[0] += 2.0
    assert rate.text(40) == '5.0 frames/s, 0:02 left'
    whole = ProgressRate(50)
    now[0] += 2.0
    assert whole.text(40) == '20.0 frames/s, 0:00 left'
