"""Packages and programs that a launch finds: folders and shell scripts of a test."""

import os


def with_package(prefix, monkeypatch, name):
    """Have a package found, in a folder of its own."""
    packages = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    packages.mkdir(parents=True, exist_ok=True)
    (packages / name).touch()
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(prefix))


def with_program(folder, monkeypatch, name, text='exit 0'):
    """Have a program found, a shell script."""
    (folder / 'bin').mkdir(exist_ok=True)
    script(folder / 'bin' / name, text)
    monkeypatch.setenv('PATH', f'{folder / "bin"}{os.pathsep}{os.environ["PATH"]}')


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)
