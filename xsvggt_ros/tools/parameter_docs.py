"""
Write what is derived from the parameter table: config/stream.yaml and the README's table.

Run `python -m xsvggt_ros.tools.parameter_docs` in the checkout after a change of the table.
"""

from pathlib import Path
from textwrap import wrap

import yaml

from xsvggt_ros.node.parameters import Parameter, TABLE

BEGIN, END = '<!-- parameters: begin -->', '<!-- parameters: end -->'
WIDTH = 96


def yaml_text() -> str:
    """Return config/stream.yaml: every parameter at its default, with its description."""
    lines = [
        '# Every parameter of the node at its default; delete what you do not change.',
        '# Made from the table in xsvggt_ros/node/parameters.py.',
        '/**:', '  ros__parameters:']
    group = ''
    for parameter in TABLE:
        *groups, name = parameter.name.split('.')
        if groups and groups[0] != group:
            lines.append(f'    {groups[0]}:')
        group = groups[0] if groups else ''
        indent = ' ' * (6 if groups else 4)
        lines += [f'{indent}# {line}' for line in wrap(_comment(parameter), WIDTH - len(indent))]
        value = yaml.safe_dump(parameter.default, default_flow_style=True).splitlines()[0]
        lines.append(f'{indent}{name}: {value}')
    return '\n'.join(lines) + '\n'


def markdown_table() -> str:
    """Return the README's table of parameters."""
    rows = ['| parameter | default | allowed | what it does |', '|---|---|---|---|']
    for p in TABLE:
        dynamic = ' **(D)**' if p.dynamic else ''
        default = f'`{p.default}`'.replace('True', 'true') if p.default != '' else '(must be set)'
        rows.append(f'| `{p.name}`{dynamic} | {default} | {p.constraints()} | {p.description} |')
    return '\n'.join(rows) + '\n'


def insert_table(readme: str) -> str:
    """Return the README's text with the table between its two marks replaced."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f'{before}{BEGIN}\n{markdown_table()}{END}{after}'


def _comment(parameter: Parameter) -> str:
    limits = f' Allowed: {parameter.constraints()}.' if parameter.constraints() else ''
    when = ' [dynamic]' if parameter.dynamic else ''
    return parameter.description + limits + when


def main() -> None:
    """Rewrite both files of the checkout that this module lies in."""
    root = Path(__file__).resolve().parents[2]
    (root / 'config' / 'stream.yaml').write_text(yaml_text())
    readme = root / 'README.md'
    readme.write_text(insert_table(readme.read_text()))


if __name__ == '__main__':
    main()
