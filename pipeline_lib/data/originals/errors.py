"""What a file that no edit can be written into raises."""


class NotEditableError(Exception):
    """A file into which no edit can be written without changing what is not edited; says why."""
