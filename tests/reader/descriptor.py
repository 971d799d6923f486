"""What an image is: section 4."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Optional

from layout import Reference
from strict_json import U32, Object, objects, parse_strict
from verdict import Refused, check

MAX_DESCRIPTOR, MAX_RAW = 6 << 20, (1 << 63) - 4096
MIN_CHUNK, MAX_CHUNK, MAX_CHUNKS, MAX_SPANS = 64 << 10, 8 << 20, 65_536, 16_384

MEMBERS = frozenset(
    "format critical name image_version architecture created expires raw_size chunk_size sector_size digest "
    "compression regions boot spans".split()
)
IMAGE_NAME = "[a-z0-9][a-z0-9._-]{0,127}"
TIME = re.compile(
    "([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r"(?:\.([0-9]+))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)


def instant(text: str) -> tuple[int, str]:
    """A time (section 4.2) as seconds and the digits of their fraction, nine at most; instants compare like these pairs."""
    match = TIME.fullmatch(text)
    check(match is not None, f"{text!r} is no time")
    assert match is not None
    *parts, fraction, sign, offset_hours, offset_minutes = match.groups()
    year, month, day, hours, minutes, seconds = map(int, parts)
    offset = (int(offset_hours or 0), int(offset_minutes or 0))
    fits_clock = hours < 24 and minutes < 60 and seconds < 60 and offset[0] < 24 and offset[1] < 60
    try:
        days = datetime.date(year, month, day).toordinal()
    except ValueError as error:
        raise Refused(f"{text!r} is no date") from error
    check(fits_clock, f"{text!r} is no time of day")
    east = -1 if sign == "-" else 1
    minutes += (days * 24 + hours) * 60 - east * (offset[0] * 60 + offset[1])
    return minutes * 60 + seconds, (fraction or "")[:9].rstrip("0")


@dataclass(frozen=True)
class Span:
    """A piece of the raw image with one index blob and one data blob."""

    raw_offset: int
    raw_length: int
    chunk_size: int
    index: Reference
    data: Reference

    def chunk_lengths(self) -> list[int]:
        """The raw length of every chunk."""
        starts = range(0, self.raw_length, self.chunk_size)
        return [min(self.chunk_size, self.raw_length - start) for start in starts]


@dataclass(frozen=True)
class Region:
    """An encrypted region: a range of the raw image, and how many bytes its LUKS header takes."""

    offset: int
    length: int
    header_bytes: int

    def without_place(self) -> tuple[int, int]:
        """The raw range at its end that no target has a place for (section 8.1)."""
        end = self.offset + self.length
        return end - self.header_bytes, end


@dataclass(frozen=True)
class Descriptor:
    """What is needed of a descriptor once its rules have been checked."""

    name: str
    version: int
    architecture: str
    expires: Optional[tuple[int, str]]
    raw_size: int
    encrypted: list[Region]
    spans: list[Span]


def parse_descriptor(payload: bytes) -> Descriptor:
    """Parses a verified payload and checks every rule of section 4."""
    check(len(payload) <= MAX_DESCRIPTOR, f"the descriptor has {len(payload)} bytes")
    root = parse_strict(payload)
    check(root.uint("format", U32) == 1, "a format other than 1")
    critical = root.get_as(list, "critical")
    check(all(type(name) is str and name in MEMBERS for name in critical), "a critical extension we do not know")
    name, architecture = root.get_as(str, "name"), root.get_as(str, "architecture")
    check(re.fullmatch(IMAGE_NAME, name) is not None, f"name {name!r}")
    check(re.fullmatch("[a-z0-9_]{1,32}", architecture) is not None, f"architecture {architecture!r}")
    created = instant(root.get_as(str, "created"))
    expires = None if root.get("expires") is None else instant(root.get_as(str, "expires"))
    check(expires is None or expires > created, "it expires before it was created")
    check(root.get_as(str, "digest") == "sha256", "another digest than sha256")
    check(root.get_as(str, "compression") == "zstd", "another compression than zstd")
    raw_size, chunk_size, sector = root.uint("raw_size"), root.uint("chunk_size", U32), root.uint("sector_size", U32)
    check(sector in (512, 4096), f"sector size {sector}")
    check(1 <= raw_size <= MAX_RAW and raw_size % sector == 0, f"raw size {raw_size}")
    check(MIN_CHUNK <= chunk_size <= MAX_CHUNK and chunk_size & (chunk_size - 1) == 0, f"chunk size {chunk_size}")
    encrypted = parse_regions(objects(root.get_as(list, "regions")), raw_size, sector)
    check_boot(root.optional("boot"), raw_size)
    spans = parse_spans(objects(root.get_as(list, "spans")), raw_size, chunk_size)
    return Descriptor(name, root.uint("image_version"), architecture, expires, raw_size, encrypted, spans)


def check_cover(ranges: list[tuple[int, int]], raw_size: int, what: str) -> None:
    """Demands that (offset, length) ranges cover the raw image in order, without gaps."""
    end = 0
    for offset, length in ranges:
        check(offset == end and length >= 1, f"{what} at {offset} begins elsewhere than at {end}, or is empty")
        end += length
    check(end == raw_size and bool(ranges), f"{what}s end at {end} instead of {raw_size}")


def parse_regions(regions: list[Object], raw_size: int, sector: int) -> list[Region]:
    """Section 4.3; those that are encrypted."""
    check_cover([(region.uint("offset"), region.uint("length")) for region in regions], raw_size, "region")
    names = [region.get_as(str, "name") for region in regions]
    check(len(set(names)) == len(names), "two regions have one name")
    check(all(re.fullmatch(IMAGE_NAME, name) for name in names), "the name of a region")
    encrypted = []
    for region in regions:
        check(region["length"] % sector == 0, "a region is not whole sectors")
        luks = region.optional("luks")
        check(region.get_as(bool, "encrypt") == (luks is not None), "encrypt without luks, or the reverse")
        if luks is not None:
            uuid, header = luks.get_as(str, "uuid"), luks.uint("header_bytes")
            check(re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid) is not None, f"UUID {uuid!r}")
            check(header % 4096 == 0 and 1 << 20 <= header < region["length"], f"a LUKS header of {header} bytes")
            encrypted.append(Region(region["offset"], region["length"], header))
    return encrypted


def check_boot(boot: Optional[Object], raw_size: int) -> None:
    """Section 4.4."""
    if boot is None:
        return
    check(boot.get_as(str, "method") != "", "an empty boot method")
    for what in ("record", "map"):
        offset, length = boot.uint(f"{what}_offset"), boot.uint(f"{what}_length")
        check(length >= 1 and offset + length <= raw_size, f"the boot {what} is empty or outside the image")


def parse_spans(values: list[Object], raw_size: int, chunk_size: int) -> list[Span]:
    """Section 4.5."""
    check(1 <= len(values) <= MAX_SPANS, f"{len(values)} spans")
    spans = []
    for value in values:
        index, data = Reference.of(value.get_as(Object, "index")), Reference.of(value.get_as(Object, "data"))
        spans.append(Span(value.uint("raw_offset"), value.uint("raw_length"), chunk_size, index, data))
    check_cover([(span.raw_offset, span.raw_length) for span in spans], raw_size, "span")
    check(all(span.raw_length % chunk_size == 0 for span in spans[:-1]), "a span is not whole chunks")
    for span in spans:
        chunks = -(-span.raw_length // chunk_size)
        check(chunks <= MAX_CHUNKS, f"a span of {chunks} chunks")
        check(span.index.size == 32 + 80 * chunks, f"an index of {span.index.size} bytes for {chunks} chunks")
        check(1 <= span.data.size < 1 << 63, f"a data blob of {span.data.size} bytes")
    return spans
