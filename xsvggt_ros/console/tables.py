"""Tables for a terminal and as Markdown."""

from collections.abc import Sequence

TEXT_WIDTH = 120
LEFT = 2  # columns of words, the others are numbers


def text_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return headings and lines of cells, words to the left and numbers to the right."""
    table = [columns, *lines]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    return '\n'.join('  '.join(
        cell.ljust(width) if i < LEFT else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in table)


def markdown_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return headings and lines of cells as Markdown."""
    rule = ['---' if i < LEFT else '---:' for i in range(len(columns))]
    return '\n'.join(f"| {' | '.join(line)} |" for line in (columns, rule, *lines))
