//! Files that hold secrets, as orchestrators mount them. They are read at each connect, so that a rotated secret is found.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::Secret;

/// The largest file that is taken for a secret, in bytes.
const LARGEST: usize = 1024 * 1024;

/// A file of the settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` {} cannot be used: {source}", file.display())]
pub struct FileError {
    /// The key in the settings.
    pub key: &'static str,
    /// The file.
    pub file: PathBuf,
    /// The reason.
    pub source: io::Error,
}

/// Reads a file of the settings.
pub fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, FileError> {
    let fails = |source| FileError {
        key,
        file: file.to_owned(),
        source,
    };
    let bytes = std::fs::read(file).map_err(fails)?;
    if bytes.is_empty() {
        return Err(fails(invalid("it is empty")));
    }
    if bytes.len() > LARGEST {
        return Err(fails(invalid("it is larger than 1 MiB")));
    }
    Ok(bytes)
}

/// Reads a text from a file of the settings, without the line ends at its end.
pub fn read_text(key: &'static str, file: &Path) -> Result<String, FileError> {
    let fails = |source| FileError {
        key,
        file: file.to_owned(),
        source,
    };
    let text = String::from_utf8(read(key, file)?)
        .map_err(|_| fails(invalid("it is not a text in UTF-8")))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(fails(invalid("it is empty")));
    }
    Ok(text.to_owned())
}

/// A secret from its value in the settings, or from its file.
pub fn secret(
    value: Option<&Secret>,
    key: &'static str,
    file: Option<&Path>,
) -> Result<Option<String>, FileError> {
    match (value, file) {
        (Some(value), _) => Ok(Some(value.expose().to_owned())),
        (None, Some(file)) => read_text(key, file).map(Some),
        (None, None) => Ok(None),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(content: &[u8]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, content).unwrap();
        read_text("redis.password_file", &file).map_err(|error| error.to_string())
    }

    #[test]
    fn the_line_ends_after_a_secret_are_no_part_of_it() {
        for content in ["s3 cret", "s3 cret\n", "s3 cret\r\n", "s3 cret\n\n"] {
            assert_eq!(text_of(content.as_bytes()).unwrap(), "s3 cret");
        }
        assert_eq!(text_of(b" s3 \n").unwrap(), " s3 ");
    }

    #[test]
    fn a_file_without_a_secret_is_told_with_its_key() {
        for content in [&b""[..], b"\n", b"\xff\xfe", &vec![b'a'; LARGEST + 1]] {
            let said = text_of(content).unwrap_err();
            assert!(said.starts_with("`redis.password_file` "), "{said}");
        }
    }
}
