use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

fn prepare(dir: &Path, names: &[&str]) -> (usize, usize) {
    let config = Config {
        cache_dir: CacheDir::At(dir.to_owned()),
        ..config()
    };
    let built: Vec<_> = names.iter().map(|name| (*name, component(name))).collect();
    let codes = built.iter().map(|(name, bytes)| Code {
        digest: ComponentDigest::of(bytes),
        name,
        bytes,
    });
    let stats = worker(&config).prepare(codes).unwrap();
    (stats.compiled, stats.loaded)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(dir).unwrap();
    listed.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_second_start_compiles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/by/the/worker");
    assert_eq!(prepare(&dir, &["echo", "run", "echo"]), (2, 0));
    assert_eq!(prepare(&dir, &["echo", "run", "state"]), (1, 2));
    assert_eq!(prepare(&dir, &["echo", "run", "state"]), (0, 3));
    let mode = fs::metadata(&dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(files(&dir).len(), 3, "something is left over");
}

#[tokio::test]
async fn what_was_compiled_before_runs_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        cache_dir: CacheDir::At(dir.path().join("cache")),
        ..config()
    };
    for _ in 0..2 {
        let mut bench = Bench::with("echo", &config);
        assert_eq!(bench.run("run", json!([1])).await.unwrap(), json!([1]));
    }
}

#[test]
fn other_settings_of_the_engine_have_code_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("cache");
    assert_eq!(prepare(&dir, &["echo"]), (1, 0));
    let name = files(&dir)[0].clone();
    let other = name.with_file_name(
        name.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .replace('-', "-0"),
    );
    fs::rename(&name, other).unwrap();
    assert_eq!(prepare(&dir, &["echo"]), (1, 0));
}

#[test]
fn damaged_code_is_compiled_anew_and_never_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("cache");
    assert_eq!(prepare(&dir, &["echo"]), (1, 0));
    let file = files(&dir)[0].clone();
    let whole = fs::read(&file).unwrap();
    for at in [0, 40, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&file, damaged).unwrap();
        assert_eq!(prepare(&dir, &["echo"]), (1, 0), "byte {at}");
        assert_eq!(fs::read(&file).unwrap(), whole, "byte {at}: not mended");
    }
    fs::write(&file, &whole[..10]).unwrap();
    assert_eq!(prepare(&dir, &["echo"]), (1, 0));
}

#[test]
fn what_others_may_write_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("cache");
    assert_eq!(prepare(&dir, &["echo"]), (1, 0));
    let file = files(&dir)[0].clone();
    let open =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(&file, 0o622);
    assert_eq!(prepare(&dir, &["echo"]), (1, 0));
    open(&dir, 0o777);
    assert_eq!(prepare(&dir, &["echo"]), (1, 0));
    open(&dir, 0o700);
    assert_eq!(prepare(&dir, &["echo"]), (0, 1));
}

#[test]
fn where_nothing_can_be_kept_components_are_compiled_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(prepare(&file.join("cache"), &["echo"]), (1, 0));
    assert_eq!(prepare(&file.join("cache"), &["echo"]), (1, 0));
}

#[test]
fn what_is_ready_is_not_made_ready_again() {
    let worker = worker(&config());
    let bytes = component("echo");
    let code = Code {
        digest: ComponentDigest::of(&bytes),
        name: "echo",
        bytes: &bytes,
    };
    assert_eq!(worker.prepare([code]).unwrap().compiled, 1);
    let again = worker.prepare([code, code]).unwrap();
    assert_eq!((again.compiled, again.loaded, again.ready), (0, 0, 1));
}
