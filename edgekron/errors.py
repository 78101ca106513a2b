"""Errors that are the user's to mend."""


class UserError(ValueError):
    """Bad input. The message is one sentence that names the file or layer and says what to do."""
