"""Each command's help has an example that its own parser takes, and the exit codes."""

import re
import shlex

import pytest

from xsvggt_ros.cli.main import build_parser, COMMANDS


def help_of(command, capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser(command).parse_args([command, '--help'])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize('command', COMMANDS)
def test_the_example_is_one_and_the_exit_codes_are_told(command, capsys):
    told = help_of(command, capsys)
    example = re.search(r'example: xsvggt (.+)', told)
    words = shlex.split(example[1].split(', ')[0])
    assert words[0] == command
    build_parser(command).parse_args(words)
    codes = ' '.join(told[told.index('exit codes:'):].split())
    for code in ('0 ', '1 ', '2 '):
        assert code in codes
    assert '130' in codes or command in ('demo', 'camera')
