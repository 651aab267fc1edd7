"""The one exception whose message is meant for the person at the command line."""


class UserError(Exception):
    """A mistake the user can mend: one line that says what is wrong and what to do about it."""
