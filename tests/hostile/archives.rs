//! Packs that nobody vouches for: whatever the bytes are, opening them ends, and no change of content passes.

use std::fs;
use std::path::Path;

use greentic_worker::model::PackId;
use greentic_worker::pack::{Limits, Listing, open};
use proptest::prelude::*;

fn archive() -> Vec<u8> {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/store");
    fs::read(store.join("hello-pack-1.0.0.gtpack")).unwrap()
}

/// Small enough that a bomb is told from its first megabytes.
fn limits() -> Limits {
    Limits {
        unpacked_bytes: 4 << 20,
        ..Limits::default()
    }
}

/// A change to an archive, wherever it falls.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        6 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, new)| Change::Insert(at, new)),
        1 => (at(), at()).prop_map(|(a, b)| Change::Repeat(a, b)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        match change {
            Change::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Change::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Repeat(a, b) => {
                let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
                let piece = bytes[a.min(b)..a.max(b)].to_vec();
                bytes.splice(a..a, piece);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(super::cases(2_000))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(open(&bytes, None, &limits()).is_err());
    }

    #[test]
    fn no_change_of_content_passes(changes in prop::collection::vec(change(), 1..4)) {
        let good = archive();
        let bytes = changed(good.clone(), &changes);
        let id = PackId::of_archive(&good);
        if bytes != good {
            prop_assert!(open(&bytes, Some(&id), &limits()).is_err(), "another archive under the same id");
        }
        // Dates and padding are no content: what opens holds the same files, or has lost its SBOM and says so.
        if let Ok(pack) = open(&bytes, None, &limits()) {
            match pack.listing {
                Listing::File(_) => prop_assert!(pack.files == open(&good, None, &limits()).unwrap().files),
                Listing::None => prop_assert!(!pack.notes.is_empty()),
            }
        }
    }
}

/// Ten megabytes of nothing in a few kilobytes, under sizes that say otherwise.
#[test]
fn a_bomb_is_stopped_at_the_limit() {
    use std::io::{Cursor, Write};
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    for name in ["a", "b", "c"] {
        writer.start_file(name, options).unwrap();
        writer.write_all(&vec![0; 10 << 20]).unwrap();
    }
    let bomb = writer.finish().unwrap().into_inner();
    assert!(bomb.len() < 100_000);
    let error = open(&bomb, None, &limits()).unwrap_err();
    assert!(!error.remedy().is_empty(), "{error}");
}
