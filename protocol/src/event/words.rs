//! Words events are made of. Each list is closed for whoever writes events, and open for whoever reads them.

use crate::words::words;

words! {
    /// A phase of a run, in the order they happen.
    Phase {
        /// Keys, sources and credentials that the spec names are read and checked.
        Spec = "spec",
        /// Of a machine that booted the medium: interfaces get addresses, and the VCN is joined.
        Network = "network",
        /// The image is found, its signature verified, and it is compared with what the run demands.
        Image = "image",
        /// The target passes the interlocks and is opened for this run alone.
        Target = "target",
        /// Fetch, verify, write, prove, commit.
        Stream = "stream",
        /// Everything is closed, the summary made.
        HandOver = "hand-over",
    }
}

words! {
    /// A step within a phase, in the order they happen. A run passes over those it does not need.
    Step {
        /// Of the network's phase: devices are set online, links come up, addresses and routes are set.
        Interfaces = "interfaces",
        /// Of the network's phase: IKE, and what the kernel made of it.
        Ipsec = "ipsec",
        /// Of the target's phase: adapters are set online, ports and LUNs waited for.
        Attach = "attach",
        /// Of the target's phase: the multipath map and its live paths are waited for.
        Paths = "paths",
        /// Of the target's phase: the interlocks.
        Check = "check",
        /// Of the target's phase: the target is reserved for this run, and earlier ones are fenced.
        Reserve = "reserve",
        /// Of the target's phase: LUKS containers are made or opened, and compared with what they must be.
        Unlock = "unlock",
        /// What the target holds already is compared with the image.
        Compare = "compare",
        /// The first and last extents are zeroed, so that the old content cannot boot.
        Invalidate = "invalidate",
        /// Chunks are fetched, verified and written.
        Write = "write",
        /// What lies beyond the image is cleared.
        ClearTail = "clear-tail",
        /// The device writes back its cache.
        Flush = "flush",
        /// What the media hold is compared with the image.
        ReadBack = "read-back",
        /// The withheld extents are written and proven: from here on the target boots.
        Commit = "commit",
        /// Of the hand-over: what was written is looked at as firmware would.
        CheckBoot = "check-boot",
        /// Of the hand-over: mappings are closed, the reservation released, adapters set as they were.
        Close = "close",
        /// Of the hand-over: a path is chosen and named to the firmware.
        PrepareIpl = "prepare-ipl",
    }
}

words! {
    /// What a path to the target is.
    PathState {
        /// It carries reads and writes.
        Up = "up",
        /// It has failed, and is tried again.
        Down = "down",
        /// It is there no longer.
        Gone = "gone",
    }
}

words! {
    /// A stage of the data path, as an answer to "what limits?".
    Stage {
        /// The network: no source can be reached.
        Network = "network",
        /// The sources: connected, but the bytes do not come fast enough.
        Source = "source",
        /// Hashing and decompression.
        Decode = "decode",
        /// The target device.
        Write = "write",
    }
}

words! {
    /// Whose problem a failure is. Each has an exit code of its own.
    ErrorKind {
        /// The command line or the spec makes no sense.
        Usage = "usage",
        /// The image is refused.
        Image = "image",
        /// The target is refused.
        Target = "target",
        /// A source or the network failed; wrong bytes included.
        Source = "source",
        /// The device answered with an error.
        Device = "device",
        /// The media do not hold what was written.
        Proof = "proof",
        /// Somebody asked to stop.
        Cancelled = "cancelled",
    }
}

words! {
    /// What a failed attempt left on the target.
    TargetState {
        /// What it held before.
        Untouched = "untouched",
        /// Part of the image, without what makes it boot.
        NotBootable = "not-bootable",
        /// It ended while the boot extents were, or may have been, in the middle of being taken away or put in place.
        Uncertain = "uncertain",
        /// It holds the image, proven. What failed came after.
        Proven = "proven",
    }
}

words! {
    /// How a target's tail was treated.
    TailTreatment {
        /// Zeroed by the device, which the kernel vouches for.
        ZeroedByDevice = "zeroed-by-device",
        /// Zeros were written.
        ZeroedByWriting = "zeroed-by-writing",
        /// It was all zeros already.
        WasZero = "was-zero",
        /// Left as it was, because that was asked for.
        Kept = "kept",
        /// Discarded, because that was asked for.
        Discarded = "discarded",
        /// Left alone: inside LUKS, under a key that is this run's alone, it is noise.
        NoiseUnderFreshKey = "noise-under-fresh-key",
    }
}
