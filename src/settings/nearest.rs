//! Which key was meant.

use figment::value::{Dict, Value};

/// Every key of the settings, dotted, sections included.
pub(super) fn keys_of(schema: &Dict) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in schema {
        keys.push(key.clone());
        if let Value::Dict(_, inner) = value {
            keys.extend(keys_of(inner).iter().map(|rest| format!("{key}.{rest}")));
        }
    }
    keys
}

/// The key that an unknown one probably means: the same words in other punctuation, the same last word in another
/// section, or the one with the fewest wrong letters.
pub(super) fn key(unknown: &str, known: &[String]) -> Option<String> {
    let words = words(unknown);
    let same = known.iter().find(|key| self::words(key) == words);
    let last = last_word(unknown);
    let moved = || {
        let mut there = known.iter().filter(|key| last_word(key) == last);
        there.next().filter(|_| there.next().is_none())
    };
    let misspelt = || {
        known
            .iter()
            .map(|key| (distance(&self::words(key), &words), key))
            .min()
            .filter(|(wrong, key)| *wrong <= 1 + key.len() / 6)
            .map(|(_, key)| key)
    };
    same.or_else(misspelt).or_else(moved).cloned()
}

fn words(key: &str) -> String {
    key.to_ascii_lowercase()
        .replace("__", "_")
        .replace(['.', '-'], "_")
}

fn last_word(key: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    last.to_ascii_lowercase()
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let swapped = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = swapped.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(unknown: &str, expected: Option<&str>) {
        let known = [
            "nats",
            "nats.url",
            "redis",
            "redis.url",
            "worker",
            "worker.slots",
            "worker.turn_timeout",
            "http.listen",
        ]
        .map(str::to_owned);
        assert_eq!(key(unknown, &known).as_deref(), expected, "{unknown}");
    }

    #[test]
    fn the_nearest_key_is_found_and_no_far_one() {
        check("nats.urll", Some("nats.url"));
        check("NATS_URL", Some("nats.url"));
        check("nats__url", Some("nats.url"));
        check("slots", Some("worker.slots"));
        check("redis.slots", Some("worker.slots"));
        check("worker.turn-timeout", Some("worker.turn_timeout"));
        check("worker.turntimeout", Some("worker.turn_timeout"));
        check("workers", Some("worker"));
        check("colour", None);
        check("telemetry.exporter", None);
    }
}
