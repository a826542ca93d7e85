"""What was meant by the name of a parameter that there is not."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggestion(name: str, known: Iterable[str]) -> str:
    """
    Return words to add to a complaint about a name; empty if nothing known is like it.

    The last part of a name is compared with those of its section. If none is spelled like it, all
    of the section are named: what was meant may have another word.
    """
    names = list(known)
    section, _, last = name.rpartition('.')
    beside = {other.rpartition('.')[2]: other for other in names
              if section and other.rpartition('.')[0] == section}
    close = [beside[word] for word in get_close_matches(last, beside, n=1)]
    if beside and not close:
        return f"; '{section}' has {', '.join(beside)}"
    close = close or get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ''
