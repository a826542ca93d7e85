"""What a node says in /diagnostics that keeps it from working."""

from collections import OrderedDict

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus


class NodeFaults:
    """The errors that a node reports at the moment."""

    def __init__(self, node_name: str) -> None:
        """Take the name that its statuses begin with."""
        self._node_name = node_name
        self._faults: OrderedDict[str, str] = OrderedDict()

    @property
    def first(self) -> str | None:
        """Return what is wrong, the oldest if there are several, None if nothing is."""
        return next(iter(self._faults.values()), None)

    def take(self, message: DiagnosticArray) -> None:
        """Keep what the node says of itself."""
        for status in message.status:
            if not status.name.startswith(f'{self._node_name}:'):
                continue
            if status.level == DiagnosticStatus.ERROR:
                self._faults[status.name] = status.message
            else:
                self._faults.pop(status.name, None)
