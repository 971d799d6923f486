//! Where it ran: processor, memory, kernel, versions, as the kernel tells them.

use std::fs;

use super::findings::Machine;

/// This machine.
pub(super) fn describe() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory = field(&read("/proc/meminfo"), "MemTotal").and_then(|text| {
        let kib: u64 = text.split_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    });
    Machine {
        processor: processor(&read("/proc/cpuinfo")),
        architecture: std::env::consts::ARCH.into(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory: memory.unwrap_or(0),
        kernel: read("/proc/sys/kernel/osrelease").trim().into(),
        versions: vec![
            ("imgstream".into(), env!("CARGO_PKG_VERSION").into()),
            ("zstd".into(), zstd_safe::version_string().into()),
            ("SHA-256".into(), crate::digest::implementation().into()),
        ],
    }
}

/// Resident bytes at the highest since [`forget_peak`], or since the start where the kernel does not forget.
pub(super) fn peak_rss() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = field(&status, "VmHWM").and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(0, |kib| kib << 10)
}

/// Lets [`peak_rss`] begin anew (proc_pid_clear_refs(5)).
pub(super) fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The processor's name. s390x tells no name but a machine type: `processor 0: version = FF, identification = …, machine = 3931`.
fn processor(cpuinfo: &str) -> String {
    let vendor = || field(cpuinfo, "vendor_id");
    let ibm = || {
        let machine = cpuinfo.lines().find_map(|line| line.split_once("machine = "))?.1.trim();
        Some(format!("{} machine type {machine}", vendor().unwrap_or_default()))
    };
    let names = ["model name", "Model", "cpu model", "uarch"];
    ibm().or_else(|| names.iter().find_map(|name| field(cpuinfo, name))).unwrap_or_else(|| "not told".into())
}

fn field(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_of_both_kinds_have_a_name() {
        let intel = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\n";
        assert_eq!(processor(intel), "Xeon");
        let z = "vendor_id       : IBM/S390\n# processors    : 2\nprocessor 0: version = FF,  identification = 0133E8,  machine = 3931\n";
        assert_eq!(processor(z), "IBM/S390 machine type 3931");
        let here = describe();
        let sha256 = here.versions.iter().find(|(name, _)| name == "SHA-256");
        assert!(sha256.is_some_and(|(_, by)| !by.is_empty()), "{here:?}");
        assert!(here.memory > 0 && here.cores > 0 && !here.kernel.is_empty(), "{here:?}");
        assert!(peak_rss() > 0);
    }
}
