//! What the log may not show wherever it shows what was said or stored.

/// What the log shows in place of a secret.
const MASK: &str = "***";
/// Shorter values are no secrets: `true`, `prod`, a port. To mask them would leave nothing to read.
const SHORTEST: usize = 6;
/// JSON in JSON in JSON: so often a value may be escaped.
const LEVELS: usize = 3;

/// Values that the log may not show, as they stand in JSON.
#[derive(Clone, Debug, Default)]
pub struct Redaction(Vec<String>);

impl Redaction {
    /// Masks these values.
    pub fn of<'v>(values: impl Iterator<Item = &'v str>) -> Self {
        let mut forms = Vec::new();
        for value in values.filter(|value| value.len() >= SHORTEST) {
            let mut form = value.to_owned();
            for _ in 0..LEVELS {
                let quoted = serde_json::Value::from(form.as_str()).to_string();
                let escaped = quoted.trim_matches('"').to_owned();
                let is_same = escaped == form;
                forms.push(form);
                if is_same {
                    break;
                }
                form = escaped;
            }
        }
        // One may be a part of another.
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        Self(forms)
    }

    /// The text with the values masked.
    pub fn apply(&self, text: String) -> String {
        let secrets = self.0.iter();
        secrets.fold(text, |text, secret| match text.contains(secret) {
            true => text.replace(secret, MASK),
            false => text,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_masked_however_deep_it_is_quoted() {
        let secret = "p\"ss\\word";
        let redaction = Redaction::of([secret, "p\"ss\\word-and-more", "true"].into_iter());
        let once = json!({ "a": secret, "b": "true" }).to_string();
        let twice = json!({ "inner": once }).to_string();
        for text in [secret.to_owned(), once, twice] {
            let shown = redaction.apply(text);
            assert!(shown.contains(MASK) && !shown.contains("ss"), "{shown}");
        }
        let longer = redaction.apply("p\"ss\\word-and-more".to_owned());
        assert_eq!(longer, MASK);
        assert_eq!(redaction.apply("true".to_owned()), "true");
    }
}
