//! From files and folders to gtbinds.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::model::{Problem, Problems};
use crate::yaml::read_text;

use super::GtBind;
use super::gtbind::stated_tenant;
use super::owners::{Owners, Unattributed, UnusableGtbind};

const EXTENSION: &str = "gtbind";

/// What gtbinds were at some moment: two are equal if nothing in them has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(blake3::Hash);

/// The gtbinds of some files and folders.
#[derive(Clone, Debug)]
pub struct Gtbinds {
    /// Those that can be used.
    pub usable: Vec<GtBind>,
    /// Those that cannot.
    pub unusable: Vec<UnusableGtbind>,
    /// Whose each of them is.
    pub owners: Owners,
    /// What is wrong with what was named: a file or folder that is not there, or a folder without gtbinds. Nobody knows
    /// which tenants that concerns.
    pub problems: Problems,
}

/// Reads gtbinds: a file is read whatever its name, a folder gives its `*.gtbind` in the order of their names, hidden ones
/// left out: macOS and editors make such files (`._a.gtbind`, `.#a.gtbind`). A file that is reached twice is read once.
/// `before` says whose each file was at the last load.
pub fn load(paths: &[PathBuf], before: &Owners) -> Gtbinds {
    let mut problems = Problems::default();
    if paths.is_empty() {
        problems.push(
            Problem::error("no bindings were given, so there is nothing to run").remedy(
                "name a gtbind or a folder: `--bindings <file|dir>` or `--bindings-dir <dir>`",
            ),
        );
    }
    let (mut usable, mut unusable) = (Vec::new(), Vec::new());
    for file in files(paths, &mut problems) {
        match read(&file) {
            Ok(gtbind) => usable.push(gtbind),
            Err(unread) => unusable.push(unread),
        }
    }
    let (unusable, owners) = before.attribute(&usable, unusable);
    Gtbinds {
        usable,
        unusable,
        owners,
        problems,
    }
}

/// The files to read, each once.
fn files(paths: &[PathBuf], problems: &mut Problems) -> Vec<PathBuf> {
    let (mut files, mut seen) = (Vec::new(), HashSet::new());
    for path in paths {
        if fs::metadata(path).is_err()
            && let Err(problem) = read_text(path)
        {
            problems.push(problem);
            continue;
        }
        for file in files_of(path, problems) {
            // Two spellings of a path are one file.
            if seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) {
                files.push(file);
            }
        }
    }
    files
}

/// What the gtbinds are now. It goes by their contents, for times and sizes tell too little on mounted volumes.
pub fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        for file in files_of(path, &mut Problems::default()) {
            let name = file.as_os_str().as_encoded_bytes();
            hasher.update(&name.len().to_le_bytes()).update(name);
            match fs::read(&file) {
                Ok(bytes) => {
                    hasher.update(&bytes.len().to_le_bytes()).update(&bytes);
                }
                // Unlike any length of a file.
                Err(error) => {
                    hasher.update(&usize::MAX.to_le_bytes());
                    hasher.update(error.kind().to_string().as_bytes());
                }
            }
        }
    }
    Fingerprint(hasher.finalize())
}

fn files_of(path: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    if !path.is_dir() {
        // A file, or nothing: reading it will tell.
        return vec![path.to_owned()];
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(
                Problem::error(format!("the folder cannot be read: {error}"))
                    .in_file(path)
                    .remedy("give the worker the right to list it"),
            );
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => files.push(entry.path()),
            Err(error) => problems
                .push(Problem::error(format!("the folder cannot be read: {error}")).in_file(path)),
        }
    }
    files.sort();
    problems.extend(files.iter().filter_map(|file| near_miss(file)));
    files.retain(|file| is_gtbind(file));
    if files.is_empty() {
        problems.push(
            Problem::error("the folder holds no `*.gtbind` file")
                .in_file(path)
                .remedy("`greentic-worker pack build <dir> --bind <tenant>` writes one"),
        );
    }
    files
}

fn is_gtbind(file: &Path) -> bool {
    !is_hidden(file) && file.extension().is_some_and(|e| e == EXTENSION)
}

fn is_hidden(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

/// A warning of a file that was probably meant as a gtbind and is not read.
fn near_miss(file: &Path) -> Option<Problem> {
    let name = file.file_name()?.to_string_lossy().to_lowercase();
    if is_gtbind(file) || is_hidden(file) || name.ends_with('~') {
        return None;
    }
    let named_alike =
        name.contains(".gtbind") || name.ends_with(".gtbinds") || name.ends_with(".gtbin");
    if named_alike && !file.is_dir() {
        let problem = Problem::warning("it is named like a gtbind, but is not read");
        return Some(problem.in_file(file).remedy(
            "end its name in `.gtbind`, in small letters; or move it elsewhere if it is not meant to be read",
        ));
    }
    let holds_gtbinds = || {
        let entries = fs::read_dir(file).ok()?;
        entries
            .flatten()
            .any(|entry| is_gtbind(&entry.path()))
            .then_some(())
    };
    file.is_dir().then(holds_gtbinds).flatten().map(|()| {
        Problem::warning("the folder holds gtbinds, but folders inside of a folder are not read")
            .in_file(file)
            .remedy("name it too (`--bindings-dir`), or move its gtbinds up")
    })
}

fn read(file: &Path) -> Result<GtBind, Unattributed> {
    let unusable = |stated, problems| Unattributed {
        file: file.to_owned(),
        stated,
        problems,
    };
    let text = read_text(file).map_err(|problem| unusable(None, problem.into()))?;
    let parsed = GtBind::parse(file, &text);
    parsed.map_err(|problems| unusable(stated_tenant(file, &text), problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gtbind(flow: &str) -> String {
        format!(
            "tenant: t\npack_id: sha256:{}\npack_ref: p.gtpack\nflows: [{{id: {flow}}}]\n",
            "0".repeat(64)
        )
    }

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let file = dir.join(name);
        fs::write(&file, text).unwrap();
        file
    }

    fn loaded(paths: &[PathBuf]) -> (Vec<GtBind>, Problems) {
        let found = load(paths, &Owners::default());
        let mut problems = found.problems;
        problems.extend(found.unusable.into_iter().flat_map(|file| file.problems));
        (found.usable, problems)
    }

    #[test]
    fn a_folder_gives_its_gtbinds_in_order_and_a_file_reached_twice_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let b = write(dir.path(), "b.gtbind", &gtbind("two"));
        write(dir.path(), "a.gtbind", &gtbind("one"));
        write(dir.path(), "README.md", "not a gtbind");
        let (found, problems) = loaded(&[b, dir.path().join(".")]);
        assert!(problems.is_empty(), "{problems}");
        let flows: Vec<_> = found.iter().map(|g| g.flows[0].value.as_str()).collect();
        assert_eq!(flows, ["two", "one"]);
    }

    #[test]
    fn every_path_that_gives_nothing_is_a_problem_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        let binary = dir.path().join("x.gtbind");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        let (found, problems) = loaded(&[empty, dir.path().join("absent"), binary]);
        assert!(found.is_empty());
        let messages: Vec<_> = problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "the folder holds no `*.gtbind` file",
                "there is no such file",
                "this is not UTF-8 text",
            ]
        );
        assert!(
            problems
                .iter()
                .all(|p| p.remedy.is_some() && p.file.is_some())
        );
        assert!(loaded(&[]).1.has_errors());
    }

    #[test]
    fn hidden_files_are_passed_over_and_near_misses_are_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            "a.gtbind",
            &format!("\u{feff}{}", gtbind("one")),
        );
        for hidden in ["._a.gtbind", ".#a.gtbind", "a.gtbind~", "README.md"] {
            write(dir.path(), hidden, "\u{0}\u{5}\u{16}\u{7}");
        }
        for meant in ["b.gtbind.yaml", "c.GTBIND", "d.gtbinds"] {
            write(dir.path(), meant, &gtbind("two"));
        }
        let inner = dir.path().join("more");
        fs::create_dir(&inner).unwrap();
        write(&inner, "e.gtbind", &gtbind("three"));
        fs::create_dir(dir.path().join("empty")).unwrap();
        let (found, problems) = loaded(&[dir.path().to_owned()]);
        let flows: Vec<_> = found.iter().map(|g| g.flows[0].value.as_str()).collect();
        assert_eq!(flows, ["one"]);
        let warned: Vec<_> = problems
            .iter()
            .map(|p| {
                p.file
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
            })
            .collect();
        assert_eq!(warned, ["b.gtbind.yaml", "c.GTBIND", "d.gtbinds", "more"]);
        assert!(!problems.has_errors(), "{problems}");
    }

    #[test]
    fn a_file_that_cannot_be_used_tells_its_tenant_as_far_as_it_can() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.gtbind", &gtbind("one"));
        for (name, text) in [
            ("b.gtbind", "tenant: b\nflow: []\n"),
            ("c.gtbind", "flows: [{id: main\ntenant: 'c' # ours\n"),
            ("d.gtbind", "tenant: no tenant\n"),
            ("d.e.gtbind", "\t"),
            ("t.more.gtbind", "[]"),
        ] {
            write(dir.path(), name, text);
        }
        let found = load(&[dir.path().to_owned()], &Owners::default());
        assert!(found.problems.is_empty(), "{}", found.problems);
        assert_eq!(found.usable.len(), 1);
        let told: Vec<Vec<_>> = (found.unusable.iter())
            .map(|file| file.tenants.iter().map(|id| id.as_str()).collect())
            .collect();
        assert_eq!(told, [vec!["b"], vec!["c"], vec!["d"], vec![], vec!["t"]]);
    }

    #[test]
    fn a_fingerprint_changes_with_whatever_a_load_would_see() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().to_owned(), dir.path().join("single")];
        let mut seen = vec![fingerprint(&paths)];
        let mut changed = |what: &str| {
            let now = fingerprint(&paths);
            assert_eq!(now, fingerprint(&paths), "{what} twice");
            assert!(!seen.contains(&now), "{what} goes unseen");
            seen.push(now);
        };
        write(dir.path(), "a.gtbind", "one");
        changed("a new file");
        write(dir.path(), "a.gtbind", "two");
        changed("as many other bytes");
        fs::rename(dir.path().join("a.gtbind"), dir.path().join("b.gtbind")).unwrap();
        changed("another name");
        write(dir.path(), "single", "x");
        changed("a file that was named and absent");

        let before = fingerprint(&paths);
        write(dir.path(), "README.md", "not a gtbind");
        assert_eq!(before, fingerprint(&paths));
        fs::remove_file(dir.path().join("b.gtbind")).unwrap();
        assert_ne!(before, fingerprint(&paths));
    }
}
