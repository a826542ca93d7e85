"""Images of a recording that are left out: how many, and why."""

from collections import Counter
import logging

MOST_NAMED = 5  # reasons that are told

_log = logging.getLogger(__name__)


class Skipped:
    """Counts what is left out by its reason; the first of each reason goes to the log."""

    def __init__(self, place: str) -> None:
        """Begin with none; place: the file or topic, for messages."""
        self._place = place
        self._reasons: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many images were left out."""
        return sum(self._reasons.values())

    def add(self, reason: str) -> None:
        """Count one more."""
        if reason not in self._reasons and len(self._reasons) < MOST_NAMED:
            _log.warning('%s: %s; skipped', self._place, reason)
        self._reasons[reason] += 1

    def clear(self) -> None:
        """Begin anew: a recording may be played more than once."""
        self._reasons.clear()

    def describe(self) -> str:
        """Return how many were left out and why; nothing if there were none."""
        if not self._reasons:
            return ''
        told = [f'{count} ({reason})' for reason, count in self._reasons.most_common(MOST_NAMED)]
        rest = len(self) - sum(count for _, count in self._reasons.most_common(MOST_NAMED))
        return (f'skipped {len(self)} images of {self._place}: ' + '; '.join(told)
                + (f'; and {rest} more' if rest else ''))
