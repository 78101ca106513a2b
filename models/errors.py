"""Errors of data sets that are the user's to mend."""


class DataError(ValueError):
    """A data set that cannot be read; the message names the file and the remedy."""
