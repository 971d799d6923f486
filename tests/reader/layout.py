"""Where blobs are, and the way from index.json to the envelope: section 2. Nothing of it is trusted."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Optional

from strict_json import Object, objects, parse_strict
from verdict import Corrupt, check

ENVELOPE_TYPE = "application/vnd.z-provisioner.envelope.v1+json"
REFERENCE_NAME = "org.opencontainers.image.ref.name"
MAX_OCI, MAX_ENVELOPE = 64 << 20, 8 << 20


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
