"""The one error that is the user's to mend. Its message is a single line: what was given, what was
expected, what to do."""


class UserError(Exception):
    """Shown on the command line as one line without a traceback, exit status 2."""
