//! The files that a pack brings along, as its cards need them: JSON, parsed once and only if a card asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::budget::{Budget, Excess};

/// Where translations are, unless a card says otherwise.
pub(super) const TRANSLATIONS: &str = "assets/i18n";
/// The language that is there even if the list of languages forgets it.
const FALLBACK_LANGUAGE: &str = "en";

/// The files below `assets/` of a pack.
#[derive(Clone, Default)]
pub struct Assets {
    files: BTreeMap<String, File>,
    usual_translations: OnceLock<Map<String, Value>>,
}

#[derive(Clone)]
struct File {
    bytes: Bytes,
    json: OnceLock<Option<Value>>,
}

/// Shows the paths only.
impl fmt::Debug for Assets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}

impl Assets {
    /// These files, by their path in the archive.
    pub fn new(files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        let file = |(path, bytes): (String, Bytes)| {
            let json = OnceLock::new();
            (plain(&path).to_owned(), File { bytes, json })
        };
        Self {
            files: files.into_iter().map(file).collect(),
            usual_translations: OnceLock::new(),
        }
    }

    /// A file's JSON. `None` if there is no such file, or it is no JSON.
    pub(super) fn json(&self, path: &str) -> Option<&Value> {
        let file = self.files.get(plain(path))?;
        let parsed = file.json.get_or_init(|| {
            serde_json::from_slice(&file.bytes)
                .inspect_err(
                    |error| tracing::warn!(path, %error, "an asset of the pack is no JSON"),
                )
                .ok()
        });
        parsed.as_ref()
    }

    /// The texts of each language that a folder of translations has, or of the only one that a file has.
    pub(super) fn translations(
        &self,
        path: &str,
        budget: &mut Budget,
    ) -> Result<Map<String, Value>, Excess> {
        if path == TRANSLATIONS {
            let usual = &self.usual_translations;
            let usual = usual.get_or_init(|| self.read_translations(path));
            budget.walk_fields(usual)?;
            return Ok(usual.clone());
        }
        let read = self.read_translations(path);
        budget.walk_fields(&read)?;
        Ok(read)
    }

    fn read_translations(&self, path: &str) -> Map<String, Value> {
        let texts = |path: &str| self.json(path).filter(|texts| texts.is_object()).cloned();
        if path.ends_with(".json") {
            let only = texts(path).map(|texts| (FALLBACK_LANGUAGE.to_owned(), texts));
            return only.into_iter().collect();
        }
        let list = self.json(&format!("{path}/_manifest.json"));
        let listed = list.and_then(|list| list.get("locales").unwrap_or(list).as_array());
        let listed = listed.into_iter().flatten().filter_map(Value::as_str);
        let languages: BTreeSet<&str> = listed.chain([FALLBACK_LANGUAGE]).collect();
        languages
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), texts(&format!("{path}/{name}.json"))?)))
            .collect()
    }
}

/// A path below `assets/`, with or without that in front.
fn plain(path: &str) -> &str {
    path.trim_start_matches("assets/")
        .trim_start_matches("/assets/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn assets(files: &[(&str, &str)]) -> Assets {
        let file = |(path, text): &(&str, &str)| {
            ((*path).to_owned(), Bytes::copy_from_slice(text.as_bytes()))
        };
        Assets::new(files.iter().map(file))
    }

    #[test]
    fn a_file_is_found_with_and_without_its_folder() {
        let assets = assets(&[("assets/cards/a.json", "{\"a\":1}"), ("cards/b.json", "{")]);
        for path in [
            "assets/cards/a.json",
            "cards/a.json",
            "/assets/cards/a.json",
        ] {
            assert_eq!(assets.json(path), Some(&json!({"a": 1})), "{path}");
        }
        assert_eq!(assets.json("cards/b.json"), None);
        assert_eq!(assets.json("cards/c.json"), None);
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], path: &str, expected: Value) {
        let assets = assets(files);
        for _ in 0..2 {
            let texts = assets.translations(path, &mut Budget::default()).unwrap();
            assert_eq!(Value::Object(texts), expected, "{path}");
        }
    }

    #[test]
    fn translations_are_those_that_are_listed_and_english() {
        let en = ("assets/i18n/en.json", "{\"k\":\"hi\"}");
        let de = ("assets/i18n/de.json", "{\"k\":\"hallo\"}");
        let both = json!({"en": {"k": "hi"}, "de": {"k": "hallo"}});
        let list = (
            "assets/i18n/_manifest.json",
            "{\"locales\":[\"de\",\"fr\"]}",
        );
        check(&[en, de, list], TRANSLATIONS, both.clone());
        let bare = ("assets/i18n/_manifest.json", "[\"de\",\"en\"]");
        check(&[en, de, bare], TRANSLATIONS, both);
        check(&[en, de], "i18n", json!({"en": {"k": "hi"}}));
        check(&[de], "i18n/de.json", json!({"en": {"k": "hallo"}}));
        check(&[], TRANSLATIONS, json!({}));
        check(&[("assets/i18n/en.json", "[]")], TRANSLATIONS, json!({}));
    }
}
