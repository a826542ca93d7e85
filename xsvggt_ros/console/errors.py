"""The error that a command line shows as one message, without a traceback."""


class ToolError(RuntimeError):
    """Something the person at the keyboard can put right: what was wrong, where, what to do."""


class ChoiceError(ToolError):
    """A name on the command line that is none of those to choose from."""
