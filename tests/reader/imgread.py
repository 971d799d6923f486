#!/usr/bin/env python3
"""A second reader of the image format, written from docs/format.md alone.

It exists to prove that the specification is complete, and to be compared with imgstream on images that are wrong in
every way we can think of. It shares no code with imgstream: Python's standard library, and the commands `openssl` (for
Ed25519) and `zstd` (for decoding). One file per layer: strict_json, layout, envelope, descriptor, span, and here the
order of reading. "Section", here and there, is one of docs/format.md.

    imgread.py verify DIR --trust KEY.pub...        every rule, those for verifiers included
    imgread.py unpack DIR RAW --trust KEY.pub...    every rule for readers
    imgread.py verify-many                          per line of standard input, a JSON array of arguments: one verify

Exit codes are imgstream's: 0 fine, 2 usage, 3 image refused, 5 bytes missing or not what their digest promises.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Optional, Sequence

sys.dont_write_bytecode = True  # our directory is the repository's

from descriptor import Descriptor, Span, instant, parse_descriptor
from envelope import read_key, verified_payload
from layout import Layout, sha256
from span import DATA, Chunk, decode, parse_index, read_frame, seek_table
from strict_json import U64
from verdict import Corrupt, Refused, Usage, check


@dataclass(frozen=True)
class Wanted:
    """What the caller demands of an image."""

    keys: set[bytes]
    threshold: int
    name: Optional[str]
    architecture: Optional[str]
    digest: Optional[str]
    min_version: int
    now: tuple[int, str]


def open_image(layout: Layout, wanted: Wanted) -> tuple[Descriptor, str]:
    """Steps 1 to 6: a descriptor that may be trusted, and the image's digest."""
    envelope = layout.envelope(wanted.name, wanted.architecture)
    payload = verified_payload(envelope, wanted.keys, wanted.threshold)
    image, digest = parse_descriptor(payload), f"sha256:{sha256(payload)}"
    check(wanted.name in (None, image.name), f"the image is named {image.name}")
    check(wanted.architecture in (None, image.architecture), f"the image is for {image.architecture}")
    check(wanted.digest in (None, digest), f"the image's digest is {digest}")
    check(image.version >= wanted.min_version, f"the image's version is {image.version}")
    check(image.expires is None or image.expires > wanted.now, "the image has expired")
    return image, digest


def open_span(layout: Layout, span: Span) -> list[Chunk]:
    """Step 7."""
    return parse_index(layout.read(span.index, span.index.size, "index"), span)


def verify(layout: Layout, wanted: Wanted) -> str:
    """All blobs and chunks of an image; the image's digest."""
    image, digest = open_image(layout, wanted)
    for span in {(span.index, span.data, span.raw_length): span for span in image.spans}.values():
        chunks = open_span(layout, span)
        with layout.open(span.data) as file:
            verify_data(file, span, chunks)
    for region in image.encrypted:
        verify_room(layout, image, *region.without_place())
    return digest


def verify_data(file: BinaryIO, span: Span, chunks: list[Chunk]) -> None:
    """A data blob: what a verifier demands of it (section 7). First that it is what was signed, then what is in it."""
    whole = hashlib.sha256()
    while piece := file.read(1 << 20):
        whole.update(piece)
    if whole.hexdigest() != span.data.digest:
        raise Corrupt(f"data blob {span.data.digest} has another SHA-256")
    for chunk in chunks:
        raw = decode(read_frame(file, chunk), chunk.raw_length)
        check(sha256(raw) == chunk.raw_digest, f"the chunk at {chunk.frame_offset} has another raw digest")
    file.seek(chunks[-1].frame_offset + chunks[-1].frame_length)
    check(file.read() == seek_table(chunks), "a seek table that is not the index's")


def verify_room(layout: Layout, image: Descriptor, start: int, end: int) -> None:
    """Demands zeros in a raw range, which a LUKS header takes the place of (section 8.1). Equal spans have equal blobs, but not
    all of them lie there."""
    for span in image.spans:
        if span.raw_offset >= end or span.raw_offset + span.raw_length <= start:
            continue
        raw_offset = span.raw_offset
        with layout.open(span.data) as file:
            for chunk in open_span(layout, span):
                if chunk.kind == DATA and raw_offset < end and raw_offset + chunk.raw_length > start:
                    raw = decode(read_frame(file, chunk), chunk.raw_length)
                    there = raw[max(start - raw_offset, 0) : end - raw_offset]
                    check(not any(there), f"something lies in {start} to {end}, which a LUKS header takes the place of")
                raw_offset += chunk.raw_length


def unpack(layout: Layout, wanted: Wanted, raw: BinaryIO) -> str:
    """Step 8: the raw image, into a new sparse file; the image's digest."""
    image, digest = open_image(layout, wanted)
    raw.truncate(image.raw_size)
    for span in image.spans:
        with layout.open(span.data) as file:
            raw_offset = span.raw_offset
            for chunk in open_span(layout, span):
                if chunk.kind == DATA:
                    raw.seek(raw_offset)
                    raw.write(decode(read_frame(file, chunk), chunk.raw_length))
                raw_offset += chunk.raw_length
    return digest


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line, parsed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("verify-many")
    for name in ("verify", "unpack"):
        command = commands.add_parser(name)
        command.add_argument("directory", type=Path)
        if name == "unpack":
            command.add_argument("raw", type=Path)
        command.add_argument("--trust", type=Path, nargs="+", action="extend", required=True, metavar="KEY.pub")
        command.add_argument("--threshold", type=int, default=1)
        command.add_argument("--name")
        command.add_argument("--arch")
        command.add_argument("--digest")
        command.add_argument("--min-version", type=int, default=0)
        command.add_argument("--now", help="the current time, as in section 4.2; default: the clock's")
    return parser.parse_args(words)


def wants(options: argparse.Namespace) -> Wanted:
    """What the command line demands; what is wrong with it is a matter of usage, not of the image."""
    clock = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        now = instant(options.now or clock)
        keys = {read_key(path) for path in options.trust}
    except (Refused, OSError) as error:
        raise Usage(str(error)) from error
    if options.digest is not None and not re.fullmatch("sha256:[0-9a-f]{64}", options.digest):
        raise Usage(f"{options.digest} is no digest")
    if not 0 <= options.min_version <= U64:
        raise Usage(f"{options.min_version} is no version")
    if not 1 <= options.threshold <= len(keys):
        raise Usage(f"a threshold of {options.threshold} with {len(keys)} trusted keys")
    return Wanted(keys, options.threshold, options.name, options.arch, options.digest, options.min_version, now)


def perform(options: argparse.Namespace) -> str:
    """Verifies or unpacks; the image's digest."""
    wanted, layout = wants(options), Layout(options.directory)
    if options.command == "verify":
        return verify(layout, wanted)
    try:
        raw = options.raw.open("xb")
    except OSError as error:
        raise Usage(f"making {options.raw}: {error}") from error
    try:
        with raw:
            return unpack(layout, wanted, raw)
    except BaseException:
        options.raw.unlink()
        raise


def outcome(words: Sequence[str]) -> tuple[int, str]:
    """Runs one command: its exit code, and the image's digest or what is wrong."""
    try:
        return 0, perform(arguments(words))
    except Usage as error:
        return 2, f"usage: {error}"
    except Refused as error:
        return 3, f"refused: {error}"
    except (Corrupt, OSError) as error:
        return 5, f"corrupt: {error}"
    except SystemExit as error:  # argparse has said why
        return int(error.code or 0), "usage"


def main() -> int:
    """The program."""
    if sys.argv[1:] == ["verify-many"]:
        for line in sys.stdin:
            print(*outcome(["verify", *json.loads(line)]), flush=True)
        return 0
    code, message = outcome(sys.argv[1:])
    print(message, file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
