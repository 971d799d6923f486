"""Keys, signatures, and what they sign: section 3."""

from __future__ import annotations

import base64
import binascii
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from layout import sha256
from strict_json import Object, objects, parse_json
from verdict import Refused, Usage, check

PAYLOAD_TYPE = "application/vnd.z-provisioner.image.v1+json"
MAX_MEMBERS, MAX_SIGNATURES, MAX_KEY_FILE = 64, 64, 64 << 10


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
