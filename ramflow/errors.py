"""The errors a user can mend; everything else is a bug and keeps its traceback."""


class UserError(Exception):
    """A mistake outside the code: one line that says what, where and what to do (exit code 2)."""

    exit_code = 2


class NoSuchObject(UserError):
    """An object that is not in its S3 bucket."""


class GateRefused(UserError):
    """A gate said no: a verdict that did not pass, under ``--enforce`` or as an input (exit code 3)."""

    exit_code = 3
