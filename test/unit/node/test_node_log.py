"""What the console repeats of a node's log."""

import io

from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.demo.node_log import MOST, NodeLog


def line(level, words):
    return f'[{level}] [1795900650.606703362] [xsvggt]: {words}\n'


def test_warnings_and_the_begin_of_a_stream_are_told_once(tmp_path):
    file = tmp_path / 'node.log'
    log = NodeLog(file)
    assert log.news() == []
    with open(file, 'a') as out:
        out.write(line('INFO', 'waiting for images') + line('WARN', 'rooms only'))
        out.write('Traceback\n' + line('ERROR', 'lost 3 images'))
        out.flush()
        assert log.news() == ['node, WARN: rooms only', 'node, ERROR: lost 3 images']
        out.write(line('ERROR', 'lost 12 images') + line('INFO', 'stream begins: images 640x480')
                  + line('INFO', 'calibration: plumb_bob') + '[WARN] [17959')
        out.flush()
        assert log.news() == [
            'node: stream begins: images 640x480', 'node: calibration: plumb_bob']
        out.write('00.1] [xsvggt]: the rest\n')
    assert log.news() == ['node, WARN: the rest']
    assert log.news() == []


def test_a_flood_is_cut_off(tmp_path):
    file = tmp_path / 'node.log'
    file.write_text(''.join(line('WARN', 'x' * number) for number in range(1, 100)))
    news = NodeLog(file).news()
    assert len(news) == MOST + 1 and str(file) in news[-1]


def test_a_note_stands_above_the_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    bar = ProgressBar('playing', 4, stream)
    bar.update(1)
    bar.note('a note')
    bar.update(2)
    bar.close(2)
    shown = [text.rpartition('\r')[2] for text in stream.getvalue().split('\n')]
    assert shown[0] == 'a note' and shown[1].startswith('playing [') and '2/4' in shown[1]
