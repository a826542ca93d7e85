"""A network is a folder: what else of the package knows it by name is what the page says."""

from pathlib import Path
import re

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'xsvggt_ros'
MODELS = PACKAGE / 'model'


def networks():
    return [file.parent for file in MODELS.glob('*/network.py')]


def files_that_know(network):
    """Return the package's files outside of its folder that have the name in any spelling."""
    return {
        str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob('*')
        if file.suffix in ('.py', '.cpp', '.yaml') and not file.is_relative_to(network)
        and network.name in re.sub('[-_ ]', '', file.read_text().lower())}


def files_on_the_page():
    page = (ROOT / 'docs' / 'models.md').read_text()
    steps = page.partition('## To add one')[2].partition('\n\nNothing else')[0]
    return set(re.findall(r'`([a-z_/]+\.py)`', steps)) - {'test/tiny_stream.py'}


def test_there_is_a_network_in_a_folder():
    assert [network.name for network in networks()] == ['lingbot']


def test_nothing_else_knows_a_network_by_name():
    page = files_on_the_page()
    for network in networks():
        found = files_that_know(network)
        assert found <= page
        assert {'model/kinds.py', 'model/public_weights.py'} <= found
        assert not {file for file in found if file.startswith(('node/', 'engine/'))}
    assert {file for file in page if not (PACKAGE / file).is_file()} == set()


def test_each_test_of_the_node_runs_with_every_network_or_says_why_not():
    from node_networks import REASONS

    files = {file.name: file.read_text() for file in (ROOT / 'test' / 'node').glob('test_*.py')}
    takes = {name for name, text in files.items()
             if re.search(r'^ *def \w+\([^)]*\b(network|checkpoint|start)\b', text, re.M)}
    starts = {name for name, text in files.items() if 'NodeProcess(' in text}
    assert len(takes) > 8 and len(starts) > 8 and not takes & set(REASONS)
    assert starts - takes <= set(REASONS), 'say why in test/node_networks.py'
    assert set(REASONS) <= set(files)
    both = sum(text.count('@pytest.mark.both_networks') for text in files.values())
    assert both > 10   # with every network in each run of the tests


def test_the_search_finds_every_spelling(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), 'PACKAGE', tmp_path)
    for index, name in enumerate(('LingBot-Map', 'lingbot_map', 'LINGBOT_MAP', 'LingBotMap', 'x')):
        (tmp_path / f'{index}.py').write_text(f'"""{name}."""')
    (tmp_path / 'lingbot').mkdir()
    (tmp_path / 'lingbot' / 'network.py').write_text('"""LingBot-Map."""')
    assert files_that_know(tmp_path / 'lingbot') == {'0.py', '1.py', '2.py', '3.py'}


def test_public_weights_are_for_networks_that_there_are():
    from xsvggt_ros.model.kinds import KINDS
    from xsvggt_ros.model.public_weights import ALL

    assert {weights.network for weights in ALL.values()} == {kind.name for kind in KINDS}
