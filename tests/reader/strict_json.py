"""JSON as section 1 has it."""

from __future__ import annotations

import json
from typing import Any, Iterator, Optional

from verdict import Refused, check

MAX_NESTING = 127
U32, U64 = (1 << 32) - 1, (1 << 64) - 1


class Object(dict):
    """A JSON object that remembers how many members it was written with, and one that stands twice."""

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        super().__init__(members)
        self.members = len(members)
        self.twice = len(members) != len(self)

    def get_as(self, kind: type, name: str) -> Any:
        """A required member of exactly this type: `bool` is no `int`, and `null` is of no type at all."""
        value = self.get(name)
        check(type(value) is kind, f"{name!r} is missing, or no {kind.__name__}")
        return value

    def uint(self, name: str, most: int = U64) -> int:
        """A required integer from 0 to `most`."""
        value = self.get_as(int, name)
        check(value <= most, f"{name!r} is {value}, more than {most}")
        return value

    def may_be(self, kind: type, name: str) -> None:
        """Demands that a member is of this type where it is present; `null` is present."""
        if name in self:
            self.get_as(kind, name)

    def optional(self, name: str) -> Optional[Object]:
        """An object that may be absent or `null`."""
        return None if self.get(name) is None else self.get_as(Object, name)


def number(text: str) -> float:
    """A number that is no integer: an integer has neither sign nor fraction nor exponent, `-0` is none."""
    value = float(text)
    check(abs(value) != float("inf"), "a number beyond the range of a double")
    return value


def integer(text: str) -> Any:
    """An integer if it is spelled like one."""
    value = number(text)
    return value if text.startswith("-") else int(text)


def constant(text: str) -> None:
    """`NaN` and its like, which Python's parser would take."""
    raise Refused(f"{text} is not JSON")


def parse_json(document: bytes) -> Object:
    """One JSON object. Names that stand twice are for the caller to judge; nesting and surrogates are judged here."""
    try:
        text = document.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=Object, parse_int=integer, parse_float=number, parse_constant=constant
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on a surrogate that is not one of a pair
    except (ValueError, RecursionError) as error:  # decoding errors of all kinds are ValueErrors
        raise Refused(f"not JSON: {error}") from error
    check(isinstance(value, Object), "not a JSON object")
    check(all(depth <= MAX_NESTING for depth, _ in containers(value)), f"nested more than {MAX_NESTING} deep")
    return value


def containers(root: Any) -> Iterator[tuple[int, Any]]:
    """Every object and array of a document, and how deep it is: the outermost is 1 deep."""
    todo = [(1, root)]
    while todo:
        depth, container = todo.pop()
        yield depth, container
        values = container.values() if isinstance(container, dict) else container
        todo.extend((depth + 1, value) for value in values if isinstance(value, (dict, list)))


def parse_strict(document: bytes) -> Object:
    """A strict object: no member name stands twice in any object."""
    root = parse_json(document)
    for _, container in containers(root):
        check(not getattr(container, "twice", False), "a member name stands twice in an object")
    return root


def objects(values: list[Any]) -> list[Object]:
    """Demands that an array holds only objects."""
    check(all(isinstance(value, Object) for value in values), "an array holds something that is no object")
    return values
