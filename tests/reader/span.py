"""The two blobs of a span: sections 5 (index) and 6 (data)."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from typing import BinaryIO

from descriptor import Span
from layout import sha256
from verdict import Corrupt, Refused, check

MAX_WINDOW, MAX_BLOCK = 8 << 20, 128 << 10

DATA, ZERO, HOLE = 1, 2, 3
HEADER, ROW = struct.Struct("<8sIIQQ"), struct.Struct("<B3sIQ32s32s")


@dataclass(frozen=True)
class Chunk:
    """A row of an index."""

    kind: int
    frame_length: int
    frame_offset: int
    frame_digest: str
    raw_digest: str
    raw_length: int


def parse_index(blob: bytes, span: Span) -> list[Chunk]:
    """Parses an index whose digest was checked, and checks every rule of section 5."""
    lengths = span.chunk_lengths()
    header = HEADER.unpack_from(blob)  # its length was compared with the span's geometry
    expected = (b"ZPINDEX\x01", span.chunk_size, len(lengths), span.raw_length, span.data.size)
    check(header == expected, f"an index with the header {header} instead of {expected}")
    chunks, end = [], 0
    for row, length in zip(ROW.iter_unpack(blob[HEADER.size :]), lengths):
        kind, reserved, frame_length, frame_offset, frame_digest, raw_digest = row
        check(kind in (DATA, ZERO, HOLE) and reserved == bytes(3), f"a row of kind {kind}, reserved {reserved!r}")
        check(frame_offset == end, f"a frame at {frame_offset} instead of {end}")
        check(1 <= frame_length <= length + length // 128 + 512, f"a frame of {frame_length} bytes")
        check(kind == DATA or raw_digest == hashlib.sha256(bytes(length)).digest(), "zeros with another digest")
        chunks.append(Chunk(kind, frame_length, frame_offset, frame_digest.hex(), raw_digest.hex(), length))
        end += frame_length
    check(end + 17 + 8 * len(chunks) == span.data.size, "frames and seek table do not fill the data blob")
    return chunks


def frame_header(frame: bytes) -> tuple[int, int, int]:
    """Length of the header, of the content, and of the window, by RFC 8878, 3.1.1.1, and rules 1 to 4 of 6.1."""
    descriptor = frame[4]
    check(frame[:4] == b"\x28\xb5\x2f\xfd", "a frame with another magic number")
    check(descriptor & 0b1011 == 0, "a frame with a reserved bit or a dictionary")
    single_segment = bool(descriptor & 0b10_0000)
    start = 5 if single_segment else 6
    size_length = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    check(size_length > 0, "a frame without content size")
    content = int.from_bytes(frame[start : start + size_length], "little") + (256 if size_length == 2 else 0)
    exponent, mantissa = frame[5] >> 3, frame[5] & 7
    window = content if single_segment else (1 << 10 + exponent) + (mantissa << 7 + exponent)
    return start + size_length, content, window


def check_frame(frame: bytes, raw_length: int) -> None:
    """Demands exactly one frame of this content length, by walking over its blocks (RFC 8878, 3.1.1.2)."""
    try:
        at, content, window = frame_header(frame)
        check(content == raw_length, f"a frame that holds {content} bytes instead of {raw_length}")
        check(window <= MAX_WINDOW, f"a frame with a window of {window} bytes")
        last = False
        while not last:
            block = int.from_bytes((frame[at], frame[at + 1], frame[at + 2]), "little")
            last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            check(kind != 3 and size <= min(window, MAX_BLOCK), "a block of reserved type, or too large")
            at += 3 + (1 if kind == 1 else size)  # 1: one byte, repeated
    except IndexError as error:
        raise Refused("a frame that is cut short") from error
    at += 4 if frame[4] & 0b100 else 0  # the checksum, which zstd checks
    check(at == len(frame), f"a frame that ends at {at} of {len(frame)} bytes")


def decode(frame: bytes, raw_length: int) -> bytes:
    """Decodes a frame whose digest was compared. Reads no more than the chunk's length and a byte."""
    check_frame(frame, raw_length)
    with tempfile.TemporaryFile() as file:
        file.write(frame)
        file.seek(0)
        with subprocess.Popen(
            ["zstd", "-dcq"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as zstd:
            assert zstd.stdout is not None
            raw = zstd.stdout.read(raw_length + 1)
    check(zstd.returncode == 0 and len(raw) == raw_length, f"a frame that does not decode to {raw_length} bytes")
    return raw


def read_frame(file: BinaryIO, chunk: Chunk) -> bytes:
    """The bytes of a frame, compared with its digest."""
    file.seek(chunk.frame_offset)
    frame = file.read(chunk.frame_length)
    if sha256(frame) != chunk.frame_digest:
        raise Corrupt(f"the frame at {chunk.frame_offset} has another SHA-256")
    return frame


def seek_table(chunks: list[Chunk]) -> bytes:
    """The seek table that follows from an index (section 6.2)."""
    entries = b"".join(struct.pack("<II", chunk.frame_length, chunk.raw_length) for chunk in chunks)
    end = struct.pack("<IBI", len(chunks), 0, 0x8F92EAB1)
    return struct.pack("<II", 0x184D2A5E, len(entries) + len(end)) + entries + end
