//! The limit: what no way of writing this image here can take less than.
//!
//! It is the largest of three: the CPU seconds of all parts, each measured alone, spread over the cores as well as two
//! independent decoders spread over them; the device alone; the source alone. Reading back adds one read of the device
//! and one SHA-256 of the raw image, overlapped with the rest.

use serde::Serialize;

/// What each part costs alone: seconds where they say so, CPU seconds otherwise.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Costs {
    /// Decoding all frames.
    pub decode: f64,
    /// SHA-256 of the compressed bytes.
    pub hash: f64,
    /// Receiving the compressed bytes.
    pub receive: f64,
    /// What the server spends meanwhile, where it shares the cores.
    pub server: f64,
    /// Writing to the device.
    pub write: f64,
    /// Reading the device.
    pub read: f64,
    /// SHA-256 of the raw image.
    pub hash_raw: f64,
    /// How many times as much all cores' decoders do as one.
    pub speedup: f64,
    /// Seconds that the device needs to take the data.
    pub device_write: f64,
    /// Seconds that the device needs to give the image back.
    pub device_read: f64,
    /// Seconds that the source needs.
    pub source: f64,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// Seconds.
    pub seconds: f64,
    /// What sets it.
    pub by: &'static str,
    /// The sum of the CPU seconds.
    pub cpu_seconds: f64,
}

impl Costs {
    /// The limit of a verified write.
    pub fn limit(&self) -> Limit {
        self.over(self.decode + self.hash + self.receive + self.write + self.server, self.device_write)
    }

    /// The limit of a verified write that is read back.
    pub fn limit_read_back(&self) -> Limit {
        let cpu = self.limit().cpu_seconds + self.read + self.hash_raw;
        self.over(cpu, self.device_write + self.device_read)
    }

    fn over(&self, cpu: f64, device: f64) -> Limit {
        let speedup = if self.speedup > 0.0 { self.speedup } else { 1.0 };
        let candidates = [("the cores", cpu / speedup), ("the device", device), ("the source", self.source)];
        let (by, seconds) = candidates.into_iter().fold(candidates[0], |a, b| if b.1 > a.1 { b } else { a });
        Limit { seconds, by, cpu_seconds: cpu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs {
        decode: 6.0,
        hash: 1.0,
        receive: 0.5,
        server: 0.5,
        write: 1.0,
        read: 0.5,
        hash_raw: 4.0,
        speedup: 1.8,
        device_write: 3.0,
        device_read: 2.0,
        source: 1.0,
    };

    #[test]
    fn the_largest_of_cores_device_and_source_is_the_limit() {
        assert_eq!(COSTS.limit(), Limit { seconds: 9.0 / 1.8, by: "the cores", cpu_seconds: 9.0 });
        assert_eq!(Costs { device_write: 7.0, ..COSTS }.limit().by, "the device");
        let slow = Costs { source: 8.0, ..COSTS }.limit();
        assert_eq!((slow.seconds, slow.by, slow.cpu_seconds), (8.0, "the source", 9.0));
    }

    #[test]
    fn reading_back_adds_a_read_and_a_hash() {
        assert_eq!(COSTS.limit_read_back(), Limit { seconds: 13.5 / 1.8, by: "the cores", cpu_seconds: 13.5 });
        let slow = Costs { device_read: 5.0, ..COSTS }.limit_read_back();
        assert_eq!((slow.seconds, slow.by), (8.0, "the device"));
    }

    #[test]
    fn no_speed_up_is_none() {
        assert_eq!(Costs { speedup: 0.0, ..COSTS }.limit().seconds, 9.0);
    }
}
