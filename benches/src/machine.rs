//! The facts of the machine that every figure depends on.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::units::{KIB, gib};

/// Processor, memory, kernel, load, and the device and file system under `folder`.
pub fn facts(folder: &Path) -> Vec<(String, String)> {
    let fact = |name: &str, value: String| (name.to_string(), value);
    vec![
        fact("processor", format!("{}, {} cores seen", processor(), cores())),
        fact("memory", memory()),
        fact("system", format!("{}, Linux {}", distribution(), read("/proc/sys/kernel/osrelease"))),
        fact("file system", findmnt(folder)),
        fact("load before", read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
    ]
}

/// How many cores we may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|_| "unknown".into()).trim().to_string()
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_string())
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    // s390x has no model name; its machine number stands in the line of the first processor.
    field(&info, "model name")
        .or_else(|| Some(format!("{}, {}", field(&info, "vendor_id")?, field(&info, "processor 0")?)))
        .unwrap_or_else(|| std::env::consts::ARCH.into())
}

fn memory() -> String {
    meminfo("MemTotal").map_or_else(|| "unknown".into(), gib)
}

/// Bytes of memory that a process could have now.
pub fn memory_available() -> u64 {
    meminfo("MemAvailable").unwrap_or(0)
}

fn meminfo(name: &str) -> Option<u64> {
    let kib = field(&read("/proc/meminfo"), name)?.split(' ').next()?.parse::<u64>().ok()?;
    Some(kib * KIB)
}

fn distribution() -> String {
    field(&read("/etc/os-release"), "PRETTY_NAME").unwrap_or_else(|| "unknown distribution".into())
}

fn findmnt(folder: &Path) -> String {
    let output = Command::new("findmnt").args(["-no", "FSTYPE,SOURCE,OPTIONS", "-T"]).arg(folder).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() { "unknown".into() } else { words.join(" ") }
}
