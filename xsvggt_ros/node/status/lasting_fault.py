"""A fault that is worth a line in the log once it lasts, and another when it is over."""

import time

from rclpy.impl.rcutils_logger import RcutilsLogger

from xsvggt_ros.node.status.fault_log import FaultLog

LASTS = 5.0  # seconds after which a fault is worth a line in the log


class LastingFault:
    """One kind of fault that comes and goes: told when it lasts, then more and more seldom."""

    def __init__(self, logger: RcutilsLogger, over: str) -> None:
        """Begin without a fault. over: what to say when there is none any more, if anything."""
        self._logger = logger
        self._over = over
        # Not the bound method: rclpy allows one severity for each place that calls a logger.
        self._log = FaultLog(lambda text: logger.warning(text))
        self._lasting: tuple[str, float] | None = None  # fault, since when

    def update(self, key: str | None, text: str) -> None:
        """
        Take what is wrong now. key: the same for the same fault; None: nothing is wrong.

        text: about the fault; without one, if not empty, what to say in place of `over`.
        """
        if key is None:
            if self._log.get('fault') is not None:
                self._log.clear('fault')
                if text or self._over:
                    self._logger.info(text or self._over)
            self._lasting = None
            return
        now = time.monotonic()
        if self._lasting is None or self._lasting[0] != key:
            self._lasting = key, now
        if now - self._lasting[1] >= LASTS or key.startswith('unpublished'):
            self._log.report('fault', text, key=key)
