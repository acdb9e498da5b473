//! Edits a gtbind in place: another archive of the same pack, and everything else as a person left it.
//!
//! No YAML library at hand writes a document back with its comments. The two values are texts of one line at the top
//! level of the file, so their lines are replaced and the result is read again: a gtbind written in another way is refused
//! and left as it is.

use std::path::Path;

use crate::model::{PackId, Problem, Problems};

use super::GtBind;
use super::gtbind::scalar;

/// The text of a gtbind with another `pack_id` and `pack_ref`.
///
/// # Errors
/// The text is not a gtbind, or its two values do not stand on lines of their own.
pub fn rebind(
    file: &Path,
    text: &str,
    pack_id: &PackId,
    pack_ref: &str,
) -> Result<String, Problems> {
    let before = GtBind::parse(file, text)?;
    let refused = || {
        Problem::error("`pack_id` and `pack_ref` cannot be replaced in this file")
            .in_file(file)
            .remedy(format!(
                "write each on a line of its own, or set them by hand: `pack_id: {pack_id}`, `pack_ref: {pack_ref}`"
            ))
    };
    let reference = scalar(pack_ref).map_err(|_| refused())?;
    let lines = text.split_inclusive('\n').map(|line| {
        replaced(line, "pack_id", &pack_id.to_string())
            .or_else(|| replaced(line, "pack_ref", &reference))
            .unwrap_or_else(|| line.to_owned())
    });
    let edited: String = lines.collect();
    let after = GtBind::parse(file, &edited).map_err(|_| refused())?;
    let kept = after.tenant == before.tenant
        && values(&after.flows) == values(&before.flows)
        && values(&after.env_passthrough) == values(&before.env_passthrough);
    if kept && after.pack_id.value == *pack_id && written_as(&edited, &reference) {
        Ok(edited)
    } else {
        Err(refused().into())
    }
}

/// The line with another value, its comment and line end kept, if it sets this key at the top level.
fn replaced(line: &str, key: &str, value: &str) -> Option<String> {
    let after = line.strip_prefix(key)?.trim_start_matches([' ', '\t']);
    let old = after.strip_prefix(':')?;
    let rest = old.find(" #").map_or_else(
        || &old[old.trim_end_matches(['\r', '\n']).len()..],
        |comment| &old[comment..],
    );
    Some(format!("{key}: {value}{rest}"))
}

fn written_as(text: &str, reference: &str) -> bool {
    let line = format!("pack_ref: {reference}");
    text.lines().any(|written| written.starts_with(&line))
}

fn values<T>(entries: &[super::Entry<T>]) -> Vec<&T> {
    entries.iter().map(|entry| &entry.value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let new = PackId::of_archive(b"new");
        let fill = |text: &str| text.replace("OLD", OLD).replace("NEW", &new.to_string());
        let found = rebind(Path::new("x.gtbind"), &fill(text), &new, "store://p@2.0.0");
        assert_eq!(found.ok(), expected.map(fill));
    }

    #[test]
    fn only_the_archive_changes() {
        check(
            "# ours\ntenant: t\npack_id: OLD # pinned\npack_ref: 'store://p@1.0.0'\r\nflows: [{id: a}]  # by hand\nenv_passthrough: [A]",
            Some(
                "# ours\ntenant: t\npack_id: NEW # pinned\npack_ref: store://p@2.0.0\r\nflows: [{id: a}]  # by hand\nenv_passthrough: [A]",
            ),
        );
        // The last line may have no end.
        check(
            "tenant: t\nflows: [{id: a}]\npack_ref : old.gtpack\npack_id: OLD",
            Some("tenant: t\nflows: [{id: a}]\npack_ref: store://p@2.0.0\npack_id: NEW"),
        );
    }

    #[test]
    fn a_file_written_in_another_way_is_left_alone() {
        check(
            "{tenant: t, pack_id: OLD, pack_ref: p.gtpack, flows: [{id: a}]}\n",
            None,
        );
        check(
            "tenant: t\npack_id:\n  OLD\npack_ref: p.gtpack\nflows: [{id: a}]\n",
            None,
        );
        check("tenant: t\n", None);
    }
}
