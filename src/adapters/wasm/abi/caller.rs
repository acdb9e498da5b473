//! The caller whom the provider vouches for, as components are told.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A verified caller.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) sub: Option<String>,
    pub(super) team: Option<String>,
    groups: Vec<String>,
    role: Option<String>,
}

/// `extensions.caller` of an activity.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Block {
    user_verified: bool,
    sub: Option<String>,
    groups: Vec<String>,
    team: Option<String>,
    role: Option<String>,
}

impl Caller {
    /// None unless the block says that the caller is verified, and who it is.
    pub(super) fn of(block: Option<&Value>) -> Option<Self> {
        let block = Block::deserialize(block?).ok()?;
        let caller = Self {
            sub: filled(block.sub),
            team: filled(block.team),
            groups: block
                .groups
                .into_iter()
                .filter_map(|group| filled(Some(group)))
                .collect(),
            role: filled(block.role),
        };
        let is_somebody = caller.sub.is_some() || caller.team.is_some();
        (block.user_verified && is_somebody).then_some(caller)
    }

    /// What is known of the caller, by the names under which components look for it.
    pub(super) fn attributes(&self) -> BTreeMap<String, String> {
        let groups =
            (!self.groups.is_empty()).then(|| Value::from(self.groups.clone()).to_string());
        let known = [
            ("caller.sub", self.sub.clone()),
            ("caller.team", self.team.clone()),
            ("caller.groups", groups),
            ("caller.role", self.role.clone()),
            ("caller.user_verified", Some("true".to_owned())),
        ];
        known
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_verified_caller_is_told_of() {
        #[track_caller]
        fn nobody(block: Value) {
            assert_eq!(Caller::of(Some(&block)), None, "{block}");
        }
        assert_eq!(Caller::of(None), None);
        nobody(json!({"sub": "u"}));
        nobody(json!({"sub": "u", "user_verified": false}));
        nobody(json!({"sub": " ", "user_verified": true}));
        nobody(json!({"sub": 1, "user_verified": true}));
        nobody(json!("u"));
        let block = json!({"sub": "u@x", "team": "t", "groups": ["a", " "], "role": "r", "user_verified": true});
        let caller = Caller::of(Some(&block)).unwrap();
        let expected = json!({"caller.sub": "u@x", "caller.team": "t", "caller.groups": r#"["a"]"#, "caller.role": "r", "caller.user_verified": "true"});
        assert_eq!(json!(caller.attributes()), expected);
    }
}
