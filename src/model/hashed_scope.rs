//! A reply scope with the hashes that waits are found by.

use std::ops::Deref;
use std::sync::OnceLock;

use greentic_types::ReplyScope;

/// Where replies to an activity belong, and the hashes of that. Each is made when it is first needed and then kept: a turn
/// names the same conversation in many keys.
#[derive(Clone, Debug)]
pub struct HashedScope {
    scope: ReplyScope,
    base_hash: OnceLock<String>,
    echo_hash: OnceLock<String>,
}

impl From<ReplyScope> for HashedScope {
    fn from(scope: ReplyScope) -> Self {
        Self {
            scope,
            base_hash: OnceLock::new(),
            echo_hash: OnceLock::new(),
        }
    }
}

/// The scope can be read and not be changed: its hashes would be those of another.
impl Deref for HashedScope {
    type Target = ReplyScope;

    fn deref(&self) -> &ReplyScope {
        &self.scope
    }
}

impl HashedScope {
    /// The scope without the echo: what names the conversation.
    pub fn base(&self) -> ReplyScope {
        self.with(None)
    }

    /// The same conversation under this correlation id.
    pub fn with(&self, correlation: Option<&str>) -> ReplyScope {
        let ReplyScope {
            conversation,
            thread,
            reply_to,
            correlation: _,
        } = &self.scope;
        ReplyScope {
            conversation: conversation.clone(),
            thread: thread.clone(),
            reply_to: reply_to.clone(),
            correlation: correlation.map(str::to_owned),
        }
    }

    /// The hash of the base scope.
    pub fn base_hash(&self) -> &str {
        self.base_hash.get_or_init(|| self.base().scope_hash())
    }

    /// The hash of the scope with the correlation id that is echoed, if one is.
    pub fn echo_hash(&self) -> Option<&str> {
        self.scope.correlation.as_ref()?;
        Some(self.echo_hash.get_or_init(|| self.scope.scope_hash()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_greentic_types_own() {
        let scope = |correlation: Option<&str>| ReplyScope {
            conversation: "c".to_owned(),
            thread: Some("t".to_owned()),
            reply_to: Some("r".to_owned()),
            correlation: correlation.map(str::to_owned),
        };
        let base = scope(None).scope_hash();
        let echoed = HashedScope::from(scope(Some("k")));
        let hash = scope(Some("k")).scope_hash();
        assert_eq!(echoed.base_hash(), base);
        assert_eq!(echoed.echo_hash(), Some(hash.as_str()));
        assert_eq!(echoed.base(), scope(None));
        let silent = HashedScope::from(echoed.base());
        assert_eq!(
            (silent.base_hash(), silent.echo_hash()),
            (base.as_str(), None)
        );
    }
}
