"""
Write what is derived from the parameter table and from msg/*.msg.

config/stream.yaml, the table of docs/parameters.md, and the tables of docs/interface.md. Run
`python -m xsvggt_ros.node.parameter_docs` in the checkout after a change of either.
"""

from pathlib import Path
import re
from textwrap import wrap

import yaml

from xsvggt_ros.node.parameters import Parameter, TABLE

PARAMETERS, GROUPS = 'parameters', 'parameter groups'  # names of marks
MESSAGES = ('CacheStatus', 'StreamStatus')
WIDTH = 96
_FIELD = re.compile(r'(?P<type>\S+)\s+(?P<name>\w+)\s*(=\s*(?P<value>\S+))?$')


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


def parameter_table() -> str:
    """Return the table of docs/parameters.md."""
    parts = []
    for advanced in (False, True):
        rows = _rows([p for p in TABLE if p.advanced == advanced])
        parts.append('\n'.join(['| parameter | default | allowed | what it does |',
                                '|---|---|---|---|', *rows]))
    return (f'{parts[0]}\n\n## Advanced parameters\n\nFor tuning and debugging; the '
            f'defaults suit nearly everyone.\n\n{parts[1]}\n')


def _rows(parameters: list[Parameter]) -> list[str]:
    rows = []
    for p in parameters:
        default = str(p.default).lower() if isinstance(p.default, bool) else p.default
        default = '(empty)' if default == '' else f'`{default}`'
        rows.append(f'| {_name(p)} | {default} | {p.constraints()} | {p.description} |')
    return rows


def group_table() -> str:
    """Return the names of all parameters by group: short names and advanced ones come last."""
    groups: dict[str, list[str]] = {}
    for p in sorted(TABLE, key=lambda p: (p.advanced, '.' not in p.name)):
        group = 'advanced' if p.advanced else p.name.partition('.')[0] if '.' in p.name else ''
        groups.setdefault(group, []).append(_name(p))
    rows = ['| group | parameters |', '|---|---|']
    rows += [f'| {group or "(none)"} | {", ".join(names)} |' for group, names in groups.items()]
    return '\n'.join(rows) + '\n'


def message_tables(text: str) -> str:
    """
    Return what a .msg file says, as Markdown: description, constants, fields with their comments.

    The comment of a field is the one right above it; one with an empty line below it describes the
    whole message. Raises ValueError for a line that is neither field, constant nor comment.
    """
    comment: list[str] = []
    descriptions: list[str] = []
    constants, fields = [], []
    for line in text.splitlines():
        if line.startswith('#'):
            comment.append(line.lstrip('# '))
            continue
        above, comment = comment, []
        if not line:
            descriptions += ['\n'.join(above)] * bool(above)
            continue
        found = _FIELD.match(line)
        if found is None:
            raise ValueError(f"neither field, constant nor comment: '{line}'")
        row = [f'`{found["name"]}`', found['type'], ' '.join(above).replace('|', r'\|')]
        if found['value'] is None:
            fields.append(row)
        else:
            constants.append([row[0], found['value'], row[2]])
    parts = descriptions
    for head, rows in ((['constant', 'value', 'meaning'], constants),
                       (['field', 'type', 'meaning'], fields)):
        if rows:
            parts.append('\n'.join(f'| {" | ".join(row)} |' for row in (head, ['---'] * 3, *rows)))
    return '\n\n'.join(parts) + '\n'


def insert(text: str, mark: str, content: str) -> str:
    """Return `text` with what lies between the two marks of this name replaced."""
    begin, end = f'<!-- {mark}: begin -->', f'<!-- {mark}: end -->'
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f'{before}{begin}\n{content}{end}{after}'


def insert_table(page: str) -> str:
    """Return docs/parameters.md with the table between its two marks replaced."""
    return insert(page, PARAMETERS, parameter_table())


def insert_interface(page: str, root: Path) -> str:
    """Return docs/interface.md with its tables replaced; root: the checkout with the messages."""
    page = insert(page, GROUPS, group_table())
    for name in MESSAGES:
        text = (root / 'msg' / f'{name}.msg').read_text()
        page = insert(page, f'{name}.msg', message_tables(text))
    return page


def _name(parameter: Parameter) -> str:
    return f'`{parameter.name}`' + ' **(D)**' * parameter.dynamic


def _comment(parameter: Parameter) -> str:
    limits = f' Allowed: {parameter.constraints()}.' if parameter.constraints() else ''
    marks = ' [dynamic]' * parameter.dynamic + ' [advanced]' * parameter.advanced
    return parameter.description + limits + marks


def main() -> None:
    """Rewrite the files of the checkout that this module lies in."""
    root = Path(__file__).resolve().parents[2]
    (root / 'config' / 'stream.yaml').write_text(yaml_text())
    table, page = (root / 'docs' / f'{name}.md' for name in ('parameters', 'interface'))
    table.write_text(insert_table(table.read_text()))
    page.write_text(insert_interface(page.read_text(), root))


if __name__ == '__main__':
    main()
