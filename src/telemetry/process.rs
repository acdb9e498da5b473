//! The metrics that every Prometheus client has of its process, under the names that dashboards expect.
//!
//! By hand from `/proc`, since prometheus-client has no collector of them: the crates that read `/proc` (procfs, sysinfo) bring
//! a hundred structures for the eight numbers here, and those that offer a collector are made for other metric libraries.
//! A system without `/proc` has none of these metrics.

use std::fmt;
use std::fs;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// A metric of the process, read when it is asked for; it is left out where it cannot be read.
#[derive(Debug)]
struct Read {
    value: fn() -> Option<f64>,
    kind: MetricType,
}

/// Registers the metrics of the process in a registry without a prefix.
pub(super) fn register(registry: &mut Registry) {
    if stat().is_none() {
        return;
    }
    let gauge = |value| Read {
        value,
        kind: MetricType::Gauge,
    };
    let cpu = Read {
        value: || stat().map(|stat| stat.cpu_seconds),
        kind: MetricType::Counter,
    };
    let (seconds, bytes) = (|| Unit::Seconds, || Unit::Bytes);
    registry.register_with_unit(
        "process_cpu",
        "Processor time of the process, user and system",
        seconds(),
        cpu,
    );
    registry.register_with_unit(
        "process_resident_memory",
        "Memory of the process that is in RAM",
        bytes(),
        gauge(|| stat().map(|stat| stat.resident_bytes)),
    );
    registry.register_with_unit(
        "process_virtual_memory",
        "Addresses of the process; compiled components reserve many and use few",
        bytes(),
        gauge(|| stat().map(|stat| stat.virtual_bytes)),
    );
    registry.register_with_unit(
        "process_start_time",
        "When the process started, since 1970",
        seconds(),
        gauge(|| Some(booted()? + stat()?.started_seconds)),
    );
    registry.register(
        "process_threads",
        "Threads of the process",
        gauge(|| stat().map(|stat| stat.threads)),
    );
    registry.register(
        "process_open_fds",
        "Files and connections that the process has open",
        gauge(open_files),
    );
    registry.register(
        "process_max_fds",
        "Files and connections that the process may have open",
        gauge(|| open_files_limit(&fs::read_to_string("/proc/self/limits").ok()?)),
    );
}

/// What is used of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// Since the machine was booted.
    started_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

fn stat() -> Option<Stat> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (ticks, page) = (
        rustix::param::clock_ticks_per_second(),
        rustix::param::page_size(),
    );
    parsed(&text, ticks as f64, page as f64)
}

fn parsed(text: &str, ticks: f64, page: f64) -> Option<Stat> {
    // The second field is the program's name, which may hold blanks and parentheses; the third follows it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        threads: field(20)?,
        started_seconds: field(22)? / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page,
    })
}

/// When the machine was booted, in seconds since 1970.
fn booted() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn open_files() -> Option<f64> {
    // One of them is the folder itself, while it is read.
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(open.saturating_sub(1) as f64)
}

/// The soft limit; `unlimited` is none.
fn open_files_limit(limits: &str) -> Option<f64> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

impl EncodeMetric for Read {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(value) = (self.value)() else {
            return Ok(());
        };
        match matches!(self.kind, MetricType::Counter) {
            true => encoder.encode_counter::<NoLabelSet, f64, u64>(&value, None),
            false => encoder.encode_gauge(&value),
        }
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_counted_after_the_name_of_the_program() {
        let text = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 7 0 12300 8192000 250 184467";
        let expected = Stat {
            cpu_seconds: 2.0,
            threads: 7.0,
            started_seconds: 123.0,
            virtual_bytes: 8_192_000.0,
            resident_bytes: 250.0 * 4096.0,
        };
        assert_eq!(parsed(text, 100.0, 4096.0), Some(expected));
        assert_eq!(parsed("42 (a) S 1", 100.0, 4096.0), None);
    }

    #[test]
    fn the_soft_limit_of_open_files_is_shown() {
        let limits =
            "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   524288   files\n";
        assert_eq!(open_files_limit(limits), Some(1024.0));
        let none = "Max open files   unlimited   unlimited   files\n";
        assert_eq!(open_files_limit(none), None);
    }
}
