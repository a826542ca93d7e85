"""docs/interface.md says what the sources say."""

import ast
from pathlib import Path

import pytest

from xsvggt_ros.node import parameter_docs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs' / 'interface.md'


def rows(text):
    """Return the cells of all lines of Markdown tables."""
    return [[cell.strip() for cell in line.strip('|').split(' | ')]
            for line in text.splitlines() if line.startswith('| ')]


def published():
    """Return topic, type, depth and whether it is latched of every publisher in the source."""
    path = ROOT / 'xsvggt_ros' / 'node' / 'outputs' / 'publishers.py'
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and getattr(call.func, 'attr', '') == '_create':
            kind, topic, depth, *durability = call.args
            yield topic.value, kind.id, depth.value, bool(durability)


def test_the_tables_are_those_of_the_sources():
    page = PAGE.read_text()
    assert parameter_docs.insert_interface(page, ROOT) == page, \
        'run python -m xsvggt_ros.node.parameter_docs'


@pytest.mark.parametrize('topic, kind, depth, latched', list(published()))
def test_published_topics_are_on_the_page(topic, kind, depth, latched):
    table = PAGE.read_text().split('| published |')[1].split('## Services')[0]
    row, = [row for row in rows(table) if row[0] == f'`{topic}`']
    assert f'/{kind}' in row[1]
    assert f'keep last {depth}' in row[3]
    assert ('transient local' in row[3]) == latched


def test_every_published_topic_was_found():
    assert len(list(published())) == 15


def test_fields_constants_and_description_are_told_apart():
    text = ('# What it is.\n#\n# More of it.\n\n# Off.\nuint8 OFF=0\n\n'
            '# Either a | b,\n# in metres.\nfloat64[] size\n')
    assert parameter_docs.message_tables(text) == (
        'What it is.\n\nMore of it.\n\n'
        '| constant | value | meaning |\n| --- | --- | --- |\n| `OFF` | 0 | Off. |\n\n'
        '| field | type | meaning |\n| --- | --- | --- |\n'
        '| `size` | float64[] | Either a \\| b, in metres. |\n')
    with pytest.raises(ValueError, match='float64'):
        parameter_docs.message_tables('float64\n')


def test_every_field_of_the_messages_has_its_row():
    messages = pytest.importorskip('xsvggt_ros.msg', reason='messages need ROS 2')
    page = PAGE.read_text()
    for name in parameter_docs.MESSAGES:
        table = page.split(f'<!-- {name}.msg: begin -->')[1].split('<!--')[0]
        fields = table.split('| field |')[1]
        told = [row[0].strip('`') for row in rows(fields) if row[0].startswith('`')]
        assert told == list(getattr(messages, name).get_fields_and_field_types())
