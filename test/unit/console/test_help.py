"""Help of each command: an example that its parser takes, exit codes; and how it starts."""

import re
import shlex
import subprocess
import sys

import pytest

from xsvggt_ros.cli.main import build_parser, COMMANDS, main


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


@pytest.mark.parametrize('words, usage', [
    (['eval', '--nonsense'], 'xsvggt eval'),
    (['bench', 'node', '--nonsense'], 'xsvggt bench node'),
    (['world', 'render', '--out', 'x', '--nonsense'], 'xsvggt world render'),
    (['soak', '--short', '--nonsense'], 'xsvggt soak'), (['--nonsense', 'eval'], 'xsvggt')])
def test_what_a_command_does_not_know_is_answered_with_its_usage(words, usage, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.startswith(f'usage: {usage} [-h]')
    assert f'{usage}: error: unrecognized arguments: --nonsense\n' in told


@pytest.mark.parametrize('command', ['reconstruct', 'batch', 'demo', 'camera'])
def test_a_topic_of_a_bag_is_chosen_by_one_name_in_all_commands(command):
    bag = ['--input', 'a.mcap'] if command in ('demo', 'camera') else ['a.mcap']
    parser = build_parser(command)
    chosen = parser.parse_args([command, *bag, '--input-topic', '/a'])
    assert chosen.input_topic == '/a'
    other = parser.parse_args([command, *bag, '--topic', '/b'])
    # A camera publishes on topics, too: that is another option.
    assert (other.input_topic == '/b') == (command != 'camera')
    assert getattr(other, 'topic', None) == ('/b' if command == 'camera' else None)


def test_until_signals_are_handled_nothing_slow_is_imported():
    program = ('import sys\n'
               'from xsvggt_ros.cli.main import build_parser, COMMANDS\n'
               'for command in COMMANDS:\n'
               '    build_parser(command)\n'
               'print(*sys.modules)\n')
    modules = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                             check=True).stdout.split()
    assert not {'torch', 'cv2', 'rclpy', 'matplotlib'} & set(modules)


@pytest.mark.parametrize('command, code', [('reconstruct', 130), ('demo', 0), ('camera', 0)])
def test_ctrl_c_before_signals_are_handled_is_quiet(command, code, monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr('xsvggt_ros.cli.main.import_module', interrupted)
    assert main([command]) == code and capsys.readouterr() == ('', '')
