"""The errors a person is meant to read: one line that says where, what was found and how to mend it."""


class PipelineError(Exception):
    """Base of every expected failure; the command line prints its message alone and exits with status 2."""


class ConfigError(PipelineError):
    """A config value that cannot be used; the message names the key."""


class DataError(PipelineError):
    """A file or an image that cannot be read or does not fit; the message names the file."""


class WeightsError(PipelineError):
    """A weight file that is missing, damaged or of another architecture; the message names the file."""


class DivergenceError(PipelineError):
    """A training run that broke down; the message names the last good weights."""
