"""How a command names itself in what it tells people to type."""

import sys

from xsvggt_ros.console.environment import own_command


def test_the_command_is_called_by_its_path_where_it_is_not_on_path(tmp_path, monkeypatch):
    folder = tmp_path / 'checkout' / '.venv' / 'bin'
    folder.mkdir(parents=True)
    for name in ('python', 'xsvggt'):
        (folder / name).write_text('#!/bin/sh\n')
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(folder / 'python'))
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.chdir(tmp_path / 'checkout')
    assert own_command() == '.venv/bin/xsvggt'
    monkeypatch.chdir(folder.parent)
    assert own_command() == 'bin/xsvggt'
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    assert own_command() == str(folder / 'xsvggt')
    monkeypatch.setenv('PATH', str(folder))
    assert own_command() == 'xsvggt'
    (folder / 'xsvggt').unlink()
    assert own_command() == 'xsvggt'
