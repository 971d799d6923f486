#!/usr/bin/env python3
"""A second reader of the image format, written from docs/format.md alone.

It exists to prove that the specification is complete, and to be compared with imgstream on images that are wrong in
every way we can think of. It shares no code with imgstream: Python's standard library, and the commands `openssl` (for
Ed25519) and `zstd` (for decoding). "Section" and "no." below are those of docs/format.md ("no." is a row of section 9).

    imgread.py verify DIR --trust KEY.pub...        every rule, those for verifiers included
    imgread.py unpack DIR RAW --trust KEY.pub...    every rule for readers
    imgread.py verify-many                          per line of standard input, a JSON array of arguments: one verify

Exit codes are imgstream's: 0 fine, 2 usage, 3 image refused, 5 bytes missing or not what their digest promises.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import datetime
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Iterator, Optional, Sequence

KIB, MIB = 1 << 10, 1 << 20
U32, U64 = (1 << 32) - 1, (1 << 64) - 1

PAYLOAD_TYPE = "application/vnd.z-provisioner.image.v1+json"
ENVELOPE_TYPE = "application/vnd.z-provisioner.envelope.v1+json"
REFERENCE_NAME = "org.opencontainers.image.ref.name"

# Section 10.
MAX_OCI, MAX_ENVELOPE, MAX_DESCRIPTOR, MAX_KEY_FILE = 64 * MIB, 8 * MIB, 6 * MIB, 64 * KIB
MAX_MEMBERS, MAX_SIGNATURES, MAX_NESTING = 64, 64, 127
MAX_RAW, MIN_CHUNK, MAX_CHUNK, MAX_WINDOW = (1 << 63) - 4096, 64 * KIB, 8 * MIB, 8 * MIB
MAX_CHUNKS, MAX_SPANS = 65_536, 16_384


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


# JSON (section 1) ------------------------------------------------------------------------------------------------


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


# Digests and blobs (sections 1 and 2) ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """A blob as a document names it: 64 hex digits and its length."""

    digest: str
    size: int

    @staticmethod
    def of(value: Object) -> Reference:
        """From an object with `digest` and `size`."""
        digest = value.get_as(str, "digest")
        check(re.fullmatch("sha256:[0-9a-f]{64}", digest) is not None, f"{digest!r} is no SHA-256 digest")
        return Reference(digest[7:], value.uint("size"))


def sha256(data: bytes) -> str:
    """The digest in hex digits."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Layout:
    """The directory of an OCI image layout."""

    directory: Path

    def open(self, blob: Reference) -> BinaryIO:
        """Opens a blob whose length is what its reference says."""
        file = (self.directory / "blobs" / "sha256" / blob.digest).open("rb")
        size = os.fstat(file.fileno()).st_size
        if size != blob.size:
            file.close()
            raise Corrupt(f"blob {blob.digest} has {size} bytes instead of {blob.size}")
        return file

    def read(self, blob: Reference, most: int, what: str) -> bytes:
        """A whole blob whose SHA-256 is what its reference says; its size is bounded before anything is read."""
        check(blob.size <= most, f"the {what} has {blob.size} bytes, more than {most}")
        with self.open(blob) as file:
            data = file.read(blob.size)
        if sha256(data) != blob.digest:
            raise Corrupt(f"the {what} {blob.digest} has another SHA-256")
        return data

    def envelope(self, name: Optional[str], architecture: Optional[str]) -> bytes:
        """Steps 1 to 3 of section 7: from index.json over the manifest to the envelope. Nothing here is trusted."""
        with (self.directory / "index.json").open("rb") as file:
            document = file.read(MAX_OCI + 1)
        check(len(document) <= MAX_OCI, "index.json is too large")
        manifest = self.read(choose(parse_strict(document), name, architecture), MAX_OCI, "manifest")
        return self.read(envelope_layer(parse_strict(manifest)), MAX_ENVELOPE, "envelope")


def objects(values: list[Any]) -> list[Object]:
    """Demands that an array holds only objects."""
    check(all(isinstance(value, Object) for value in values), "an array holds something that is no object")
    return values


def choose(index: Object, name: Optional[str], architecture: Optional[str]) -> Reference:
    """The entry of index.json that leads to the wanted image (sections 2.3 and 2.4)."""
    index.get_as(int, "schemaVersion")
    entries = []
    for entry in objects(index.get_as(list, "manifests")):
        annotations = entry.get_as(Object, "annotations") if "annotations" in entry else {}
        entries.append((annotations.get(REFERENCE_NAME), Reference.of(entry)))
    if len(entries) == 1:
        return entries[0][1]
    fitting = [blob for reference, blob in entries if fits(reference, name, architecture)]
    check(len(fitting) == 1, f"{len(fitting)} of {len(entries)} images fit what is wanted")
    return fitting[0]


def fits(reference: Any, name: Optional[str], architecture: Optional[str]) -> bool:
    """Whether a reference name, NAME-VERSION-ARCHITECTURE or anything else, fits."""
    if not isinstance(reference, str):
        return False
    parts = reference.rsplit("-", 2)
    if len(parts) == 3 and re.fullmatch("[0-9]+", parts[1]):
        return name in (None, parts[0]) and architecture in (None, parts[2])
    return name in (None, reference)


def envelope_layer(manifest: Object) -> Reference:
    """The one layer of the manifest that counts."""
    manifest.get_as(int, "schemaVersion")
    manifest.get_as(str, "mediaType")
    Reference.of(manifest.get_as(Object, "config"))
    layers = [(layer.get("mediaType"), Reference.of(layer)) for layer in objects(manifest.get_as(list, "layers"))]
    envelopes = [blob for kind, blob in layers if kind == ENVELOPE_TYPE]
    check(len(envelopes) == 1, f"the manifest has {len(envelopes)} envelopes")
    return envelopes[0]


# Keys (section 3.2) ----------------------------------------------------------------------------------------------

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
SPKI = bytes.fromhex("302a300506032b6570032100")


def point(encoded: bytes) -> Optional[tuple[int, int]]:
    """The point of the curve that 32 bytes encode (RFC 8032, 5.1.3), if they do."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or x * x % P != square or (x == 0 and sign):
        return None
    return (x if x & 1 == sign else P - x), y


def has_small_order(x: int, y: int) -> bool:
    """Whether the order of a point divides 8: doubled three times, it is the neutral element."""
    for _ in range(3):
        product = D * x * x * y * y
        x, y = 2 * x * y * pow(1 + product, -1, P) % P, (x * x + y * y) * pow(1 - product, -1, P) % P
    return (x, y) == (0, 1)


def read_key(path: Path) -> bytes:
    """The SubjectPublicKeyInfo of a trusted key."""
    with path.open("rb") as file:
        pem = file.read(MAX_KEY_FILE + 1)
    section = re.search(rb"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----", pem)
    if len(pem) > MAX_KEY_FILE or pem.count(b"-----BEGIN ") != 1 or section is None:
        raise Usage(f"{path} is not one public key in PEM")
    der = base64_decode(b"".join(section[1].split()).decode("ascii"))
    if len(der) != 44 or not der.startswith(SPKI):
        raise Usage(f"{path} is no Ed25519 key")
    decoded = point(der[len(SPKI) :])
    if decoded is None or has_small_order(*decoded):
        raise Usage(f"{path} is no point of the curve, or one of small order, for which anybody can sign")
    return der


# Envelope (section 3) --------------------------------------------------------------------------------------------


def base64_decode(text: str) -> bytes:
    """RFC 4648 in one of its two alphabets, with padding, nothing else in it, unused bits zero."""
    url_safe = "-" in text or "_" in text
    try:
        data = base64.b64decode(text, altchars=b"-_" if url_safe else None, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(f"not base64: {error}") from error
    again = base64.urlsafe_b64encode(data) if url_safe else base64.b64encode(data)
    check(again == text.encode(), "base64 in another spelling than the one it has")
    return data


@dataclass(frozen=True)
class Signature:
    """One signature, and the id of the key that it says made it."""

    key_id: Optional[str]
    data: bytes


def parse_envelope(document: bytes) -> tuple[bytes, list[Signature]]:
    """Payload and signatures."""

    def judged(value: Object) -> Object:
        check(not value.twice and value.members <= MAX_MEMBERS, "too many members, or one stands twice")
        return value

    envelope = judged(parse_json(document))
    kind = envelope.get_as(str, "payloadType")
    check(kind == PAYLOAD_TYPE, f"payload type {kind!r} is not that of an image")
    signatures = []
    for value in map(judged, objects(envelope.get_as(list, "signatures"))):
        key_id = None if value.get("keyid") is None else value.get_as(str, "keyid")
        signatures.append(Signature(key_id, base64_decode(value.get_as(str, "sig"))))
    check(len(signatures) <= MAX_SIGNATURES, f"{len(signatures)} signatures")
    return base64_decode(envelope.get_as(str, "payload")), signatures


def is_signed(message: bytes, signature: bytes, key: bytes) -> bool:
    """Whether a signature is one of this key over the message."""
    if len(signature) != 64 or int.from_bytes(signature[32:], "little") >= GROUP_ORDER:
        return False
    with tempfile.TemporaryDirectory(prefix="imgread-") as directory:
        files = [Path(directory) / name for name in ("key", "message", "signature")]
        for file, data in zip(files, (key, message, signature)):
            file.write_bytes(data)
        options = ["-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", files[0], "-in", files[1]]
        openssl = subprocess.run(["openssl", "pkeyutl", *options, "-sigfile", files[2]], capture_output=True)
    return openssl.returncode == 0


def verified_payload(document: bytes, keys: set[bytes], threshold: int) -> bytes:
    """The payload of an envelope that enough of the trusted keys have signed (sections 3.1 and 3.3)."""
    payload, signatures = parse_envelope(document)
    message = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    good = 0
    for key in keys:
        hinted_first = sorted(signatures, key=lambda signature: signature.key_id != sha256(key))
        good += any(is_signed(message, signature.data, key) for signature in hinted_first)
    check(good >= threshold, f"{good} of {len(keys)} trusted keys have signed this, {threshold} are needed")
    return payload


# Descriptor (section 4) ------------------------------------------------------------------------------------------

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
    """A time (section 4.2) as seconds and the digits of their fraction; instants compare like these pairs."""
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
    return minutes * 60 + seconds, (fraction or "").rstrip("0")


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
class Descriptor:
    """What is needed of a descriptor once its rules have been checked."""

    name: str
    version: int
    architecture: str
    expires: Optional[tuple[int, str]]
    raw_size: int
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
    check_regions(objects(root.get_as(list, "regions")), raw_size, sector)
    check_boot(root.optional("boot"), raw_size)
    spans = parse_spans(objects(root.get_as(list, "spans")), raw_size, chunk_size)
    return Descriptor(name, root.uint("image_version"), architecture, expires, raw_size, spans)


def check_cover(ranges: list[tuple[int, int]], raw_size: int, what: str) -> None:
    """Demands that (offset, length) ranges cover the raw image in order, without gaps."""
    end = 0
    for offset, length in ranges:
        check(offset == end and length >= 1, f"{what} at {offset} begins elsewhere than at {end}, or is empty")
        end += length
    check(end == raw_size and bool(ranges), f"{what}s end at {end} instead of {raw_size}")


def check_regions(regions: list[Object], raw_size: int, sector: int) -> None:
    """Section 4.3."""
    check_cover([(region.uint("offset"), region.uint("length")) for region in regions], raw_size, "region")
    names = [region.get_as(str, "name") for region in regions]
    check(len(set(names)) == len(names), "two regions have one name")
    check(all(re.fullmatch(IMAGE_NAME, name) for name in names), "the name of a region")
    for region in regions:
        check(region["length"] % sector == 0, "a region is not whole sectors")
        luks = region.optional("luks")
        check(region.get_as(bool, "encrypt") == (luks is not None), "encrypt without luks, or the reverse")
        if luks is not None:
            uuid, header = luks.get_as(str, "uuid"), luks.uint("header_bytes")
            check(re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid) is not None, f"UUID {uuid!r}")
            check(header % 4096 == 0 and MIB <= header < region["length"], f"a LUKS header of {header} bytes")


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


# Index (section 5) -----------------------------------------------------------------------------------------------

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


# Data (section 6) ------------------------------------------------------------------------------------------------


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
            check(kind != 3 and size <= min(window, 128 * KIB), "a block of reserved type, or too large")
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


# Reading an image (section 7) ------------------------------------------------------------------------------------


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
    return digest


def verify_data(file: BinaryIO, span: Span, chunks: list[Chunk]) -> None:
    """A data blob: what a verifier demands of it (section 7). First that it is what was signed, then what is in it."""
    whole = hashlib.sha256()
    while piece := file.read(MIB):
        whole.update(piece)
    if whole.hexdigest() != span.data.digest:
        raise Corrupt(f"data blob {span.data.digest} has another SHA-256")
    for chunk in chunks:
        raw = decode(read_frame(file, chunk), chunk.raw_length)
        check(sha256(raw) == chunk.raw_digest, f"the chunk at {chunk.frame_offset} has another raw digest")
    file.seek(chunks[-1].frame_offset + chunks[-1].frame_length)
    check(file.read() == seek_table(chunks), "a seek table that is not the index's")


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


# Command line ----------------------------------------------------------------------------------------------------


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
