"""What can be wrong: with an image, with its bytes, with the command line. Exit codes 3, 5 and 2."""

from __future__ import annotations


class Refused(Exception):
    """The image breaks a rule: no other source has a better one."""


class Corrupt(Exception):
    """Bytes are missing, or are not those their digest promises: another source may have the right ones."""


class Usage(Exception):
    """The command line makes no sense."""


def check(rule_holds: bool, otherwise: str) -> None:
    """Refuses the image unless a rule holds."""
    if not rule_holds:
        raise Refused(otherwise)
