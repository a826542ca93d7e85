"""The thread that publishes, by itself."""

import pytest

from xsvggt_ros.node.outputs.publishing import Publishing


@pytest.fixture(params=[False, True])
def publishing(request):
    publishing = Publishing(request.param)
    yield publishing
    publishing.close()


def test_parts_come_in_order_and_not_after_one_that_failed(publishing):
    done, errors = [], []

    def fail():
        raise ValueError('bad part')

    publishing.submit(lambda: done.append(1), errors.append)
    publishing.then(lambda: done.append(2))
    publishing.join()
    assert done == [1, 2]
    publishing.submit(fail, errors.append)
    publishing.then(lambda: done.append(3))
    publishing.submit(lambda: done.append(4), errors.append)
    publishing.then(fail)
    publishing.join()
    assert done == [1, 2, 4]
    assert [str(error) for error in errors] == ['bad part'] * 2


@pytest.mark.parametrize('error', [SystemExit(3), GeneratorExit(), ValueError('bad')], ids=repr)
def test_no_part_ends_the_thread_and_nor_does_who_is_told(publishing, error):
    done, told = [], []

    def fail():
        raise error

    def listen(raised):
        told.append(raised)
        raise SystemExit(1)

    for number in range(2):
        publishing.submit(fail, listen)
        publishing.then(lambda: done.append('never'))
        publishing.submit(lambda number=number: done.append(number), listen)
        publishing.join()
    assert done == [0, 1] and told == [error, error]
