"""What the doctor finds: how bad it is, what it is, and what to do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

LEVELS = ('ok', 'note', 'warning', 'error')   # from good to bad; a note is worth knowing


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    level: str        # one of `LEVELS`
    words: str        # what was found
    advice: str = ''  # what to do, if anything

    def as_json(self) -> dict[str, str]:
        """Return it as JSON has it."""
        return asdict(self)


def worst(findings: Sequence[Finding]) -> str:
    """Return the worst level of all."""
    return max((finding.level for finding in findings), key=LEVELS.index, default='ok')


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """Return findings as lines for a terminal."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f'{finding.level:7}  {finding.name:{width}}  {finding.words}')
        if finding.advice:
            lines.append(f'{"":7}  {"":{width}}  -> {finding.advice}')
    return lines
