"""The one family of errors that reach a user."""


class RaySparseError(Exception):
    """What went wrong, in one message: what was found, what is allowed, what to change.

    Carries nothing but its text, so that it survives the way from a worker to the driver.
    """


class ConfigError(RaySparseError):
    """A job, or an argument of a command, that cannot be run as written."""


class DataError(RaySparseError):
    """A raw file or a data set that cannot be read, or not as what it claims to be."""


class PlanError(RaySparseError):
    """A sharding plan that does not fit or cannot be made."""


class CheckpointError(RaySparseError):
    """A checkpoint that is missing, damaged, or made by another job."""


class NonFiniteLossError(RaySparseError):
    """A loss that is not a number, with the day and the batch that gave it."""


class RunTakenError(RaySparseError):
    """A run folder that another driver writes to by now."""


class RunEndedError(RaySparseError):
    """A run whose driver does not want it to go on to its last day."""


class WorkerError(RaySparseError):
    """Workers that died more often than the job allows, or that cannot load what they work with."""
