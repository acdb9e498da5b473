//! The memory that this process may use, as Linux tells it: of its control groups, or of the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// The least of what any control group of this process allows and what the machine has, in bytes; none where nobody tells.
pub fn memory_bytes() -> Option<u64> {
    memory_below(Path::new("/"))
}

fn memory_below(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(|line| group_limit(root, line));
    limits.chain(machine(root)).min()
}

/// The least limit of a control group and all above it. A container may see its own as the root.
fn group_limit(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (mount, file) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return None;
    };
    let mount = root.join(mount);
    let group: PathBuf = mount.join(path.trim_start_matches('/'));
    let groups = group
        .ancestors()
        .take_while(|group| group.starts_with(&mount));
    let limit = |group: &Path| {
        fs::read_to_string(group.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    groups.filter_map(limit).min()
}

fn machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = total.trim().strip_suffix(" kB")?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(memory_below(root.path()), expected);
    }

    #[test]
    fn the_least_limit_counts() {
        let machine = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:        1000 kB\n");
        check(&[], None);
        check(&[machine], Some(1_024_000));
        let second = ("proc/self/cgroup", "0::/a/b\n");
        check(
            &[
                machine,
                second,
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("sys/fs/cgroup/a/memory.max", "5000\n"),
            ],
            Some(5000),
        );
        // The path is that of the host, which a container does not see.
        check(
            &[machine, second, ("sys/fs/cgroup/memory.max", "7000\n")],
            Some(7000),
        );
        check(
            &[
                machine,
                ("proc/self/cgroup", "5:cpu:/a\n4:pids,memory:/a\n"),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9000\n"),
            ],
            Some(9000),
        );
        let none = (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        check(
            &[machine, ("proc/self/cgroup", "4:memory:/\n"), none],
            Some(1_024_000),
        );
    }
}
