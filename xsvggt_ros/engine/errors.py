"""What an engine refuses."""


class FrameError(ValueError):
    """A frame that this stream cannot take; the stream is as it was before."""


class BudgetError(FrameError):
    """A memory budget that does not even hold the frames that are always kept."""
