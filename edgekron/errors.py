"""Errors that are the user's to mend: each message is one sentence that says what is wrong and what to do."""


class UserError(ValueError):
    """Bad input. The message names the file or layer."""


class DataError(UserError):
    """A data set that cannot be read, or does not fit. The message names the file and the remedy."""
