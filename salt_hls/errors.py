"""Errors a user can mend: the command line prints their one line and exits with status 1."""


class UserError(Exception):
    """Name, rule, value got and fix, in one line."""
