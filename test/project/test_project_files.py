"""What people and services read about the project names what is there."""

import ast
from pathlib import Path
import re
import shlex

import pytest

yaml = pytest.importorskip('yaml')
ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / '.github' / 'ISSUE_TEMPLATE'


def read_yaml(*parts: str):
    return yaml.safe_load(ROOT.joinpath(*parts).read_text())


def setup_argument(name: str) -> str:
    text = (ROOT / 'pyproject.toml').read_text()
    return re.search(rf"^{name} = (?:{{ text = )?'(.+?)'", text, re.M)[1]


def test_the_citation_is_of_this_package():
    citation = read_yaml('CITATION.cff')
    for field in ('version', 'license'):
        assert citation[field] == setup_argument(field)
    assert citation['title'] == setup_argument('name')
    cited = {reference['identifiers'][0]['value'].removeprefix('arXiv:'): reference['url']
             for reference in citation['references']}
    assert all(url == f'https://arxiv.org/abs/{number}' for number, url in cited.items())
    assert '2601.01204' in cited and 'arxiv.org/abs/2601.01204' in (ROOT / 'README.md').read_text()


def test_the_workflow_calls_the_script_on_pythons_that_are_supported():
    job, = read_yaml('.github', 'workflows', 'ci.yml')['jobs'].values()
    command, = (step['run'] for step in job['steps'] if 'run' in step)
    assert (ROOT / command).stat().st_mode & 0o100
    oldest = setup_argument('requires-python').removeprefix('>=')
    assert oldest in job['strategy']['matrix']['python'] == ['3.10', '3.12']


def test_commits_are_checked_as_make_lint_does():
    hooks = {hook['id']: hook for repo in read_yaml('.pre-commit-config.yaml')['repos']
             for hook in repo['hooks']}
    assert hooks.keys() == {'ruff', 'end-of-file-fixer', 'check-yaml'}
    pins = (ROOT / 'ci' / 'constraints.txt').read_text().splitlines()
    assert set(hooks['ruff']['additional_dependencies']) <= set(pins)


@pytest.mark.parametrize('name', ['bug_report', 'feature_request'])
def test_templates_are_forms(name):
    form = read_yaml('.github', 'ISSUE_TEMPLATE', f'{name}.yml')
    assert form['name'] and form['description']
    fields = [part for part in form['body'] if part['type'] != 'markdown']
    assert all(field['type'] == 'textarea' and field['attributes']['label'] for field in fields)
    assert len({field['id'] for field in fields}) == len(fields)
    assert any(field.get('validations', {}).get('required') for field in fields)


def test_a_report_of_a_fault_brings_what_explains_it():
    text = (TEMPLATES / 'bug_report.yml').read_text()
    for words in ('id: log', 'ros2 topic echo /diagnostics --once', 'ros2 param dump /xsvggt',
                  'id: hardware'):
        assert words in text


def test_contributors_are_sent_to_what_is_there():
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    named = re.findall(r'`([\w./-]+/[\w./-]*|[\w-]+\.(?:md|cfg|py|xml))`', text)
    assert len(named) > 15
    missing = [name for name in named if name not in ('out/fuzz/',) and 'NAME' not in name
               and not (ROOT / name).exists() and not (ROOT / 'xsvggt_ros' / name).exists()]
    assert not missing
    for line in text.splitlines():
        words = shlex.split(line, comments=True) if line.startswith('    ') else []
        for word in words:
            for path in re.findall(r'test/\w+\.py', word):
                assert (ROOT / path).is_file()
    for module, members in (('kv_cache/policy', ('RetentionPolicy',)),
                            ('kv_cache/retention', ('POLICIES',)),
                            ('node/parameters', ('TABLE',)), ('cli/main', ('COMMANDS',)),
                            ('console/errors', ('ToolError',))):
        tree = ast.parse((ROOT / 'xsvggt_ros' / f'{module}.py').read_text())
        defined = {getattr(node, 'name', None) for node in tree.body} | {
            target.id for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])}
        for member in members:
            assert f'`{member}`' in text and member in defined
