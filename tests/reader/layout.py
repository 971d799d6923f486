"""Where blobs are, and the way from index.json to the envelope: section 2. Nothing of it is trusted."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Optional

from strict_json import U32, Object, objects, parse_strict
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


def content(value: Object) -> Object:
    """An OCI content descriptor. Which digest a blob has that is not ours is no concern of ours."""
    value.get_as(str, "digest")
    value.uint("size")
    value.may_be(str, "mediaType")
    value.may_be(Object, "annotations")
    return value


def choose(index: Object, name: Optional[str], architecture: Optional[str]) -> Reference:
    """The entry of index.json that leads to the wanted image (sections 2.3 and 2.4)."""
    index.uint("schemaVersion", U32)
    index.may_be(str, "mediaType")
    entries = [content(entry) for entry in objects(index.get_as(list, "manifests"))]
    names = [entry.get("annotations", {}).get(REFERENCE_NAME) for entry in entries]
    fitting = [entry for entry, found in zip(entries, names) if len(entries) == 1 or fits(found, name, architecture)]
    check(len(fitting) == 1, f"{len(fitting)} of {len(entries)} images fit what is wanted")
    return Reference.of(fitting[0])


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
    manifest.uint("schemaVersion", U32)
    manifest.may_be(str, "mediaType")
    manifest.may_be(str, "artifactType")
    content(manifest.get_as(Object, "config"))
    layers = [content(layer) for layer in objects(manifest.get_as(list, "layers"))]
    envelopes = [layer for layer in layers if layer.get("mediaType") == ENVELOPE_TYPE]
    check(len(envelopes) == 1, f"the manifest has {len(envelopes)} envelopes")
    return Reference.of(envelopes[0])
