//! What a card's node adds to its input: which card it shows, the card itself, its translations, the user's language.
//! A component that renders cards then needs no file of the pack.

use serde_json::{Map, Value, json};

use super::assets::{Assets, TRANSLATIONS};
use super::budget::{Budget, Excess};
use super::payload;
use crate::model::PAYLOAD_LOG;

/// Part of the name of every component that cards are routed to by what the user pressed.
const CARD_COMPONENT: &str = "adaptive-card";

/// Whether a node of this component shows the card that a button names.
pub(crate) fn takes_routes(component: &str) -> bool {
    component.contains(CARD_COMPONENT)
}

/// Whether an input asks for a card.
pub(super) fn is_card(input: &Value) -> bool {
    input.get("card_source").is_some() || input.get("card_spec").is_some()
}

/// Returns whether the mapping of a component's node asks for a card, or its configuration names one.
pub(super) fn is_named_in(mapping: &Value) -> bool {
    let names_default = |config: &Value| {
        ["default_card_asset", "default_card_inline"]
            .iter()
            .any(|name| config.get(name).is_some_and(|card| !card.is_null()))
    };
    let inputs = [Some(mapping), mapping.get("input")];
    inputs
        .into_iter()
        .flatten()
        .any(|input| is_card(input) || input.get("config").is_some_and(names_default))
}

/// Returns whether an emitted payload is an adaptive card, as far as its template tells.
pub(super) fn is_shown_by(payload: &Value) -> bool {
    let kind = payload.get("type").and_then(Value::as_str);
    matches!(kind, Some("AdaptiveCard" | "adaptive_card"))
        || payload.get("renderedCard").is_some()
        || ["extensions", "metadata"].iter().any(|holder| {
            payload
                .get(holder)
                .is_some_and(|held| held.get("adaptive_card").is_some())
        })
}

/// Makes a node show the card that the user's button names, unless its mapping names one itself.
pub(super) fn route(mapping: &mut Value, entry: &Value) {
    if is_card(mapping) {
        return;
    }
    let Some(card) = payload::routed_card(entry) else {
        return;
    };
    let spec = json!({"asset_path": format!("assets/cards/{card}.json")});
    show(mapping, "asset", spec);
}

/// Completes an input that asks for a card, or whose configuration does.
pub(super) fn complete(
    input: &mut Value,
    config: &Value,
    entry: &Value,
    (assets, budget): (&Assets, &mut Budget),
) -> Result<(), Excess> {
    lift_default(input, config);
    inline(input, assets, budget)?;
    // Packs of cards keep a second copy there.
    if let Some(again) = input.pointer_mut("/call/payload") {
        inline(again, assets, budget)?;
    }
    if let (true, Some(locale)) = (is_card(input), payload::locale(entry))
        && let Value::Object(fields) = input
        && !fields.contains_key("locale")
    {
        fields.insert("locale".to_owned(), locale.into());
    }
    Ok(())
}

fn show(input: &mut Value, source: &str, spec: Value) {
    if !input.is_object() {
        *input = Value::Object(Map::new());
    }
    if let Value::Object(fields) = input {
        fields.insert("card_source".to_owned(), source.into());
        fields.insert("card_spec".to_owned(), spec);
    }
}

/// Shows the card that the configuration names, if the input names none.
fn lift_default(input: &mut Value, config: &Value) {
    if is_card(input) {
        return;
    }
    let config = config
        .as_object()
        .or_else(|| input.get("config")?.as_object());
    let Some(config) = config else { return };
    let text = |name: &str| {
        let text = config.get(name).and_then(Value::as_str).map(str::trim);
        text.filter(|text| !text.is_empty())
    };
    let asset = text("default_card_asset");
    let card = config
        .get("default_card_inline")
        .filter(|card| card.is_object() || card.is_array());
    let source = text("default_source").map(str::to_lowercase);
    let source = match (source, asset, card) {
        (None, None, None) => return,
        (Some(source), _, _) => source,
        (None, _, Some(_)) => "inline".to_owned(),
        (None, Some(_), None) => "asset".to_owned(),
    };
    let spec = match (source.as_str(), asset, card) {
        ("asset", Some(path), _) => json!({"asset_path": path}),
        ("inline", _, Some(card)) => json!({"inline_json": card}),
        _ => json!({}),
    };
    show(input, &source, spec);
}

/// Puts the card and its translations in the place of their paths. What the pack lacks is left for the component to
/// complain of.
fn inline(input: &mut Value, assets: &Assets, budget: &mut Budget) -> Result<(), Excess> {
    let source = input.get("card_source").and_then(Value::as_str);
    let is_asset = source.is_some_and(|source| source.eq_ignore_ascii_case("asset"));
    let path = input
        .pointer("/card_spec/asset_path")
        .and_then(Value::as_str);
    let Some(path) = path.filter(|_| is_asset) else {
        return Ok(());
    };
    let card = assets.json(path);
    if let Some(card) = card {
        budget.walk(card)?;
    }
    let card = card.cloned();
    if card.is_none() {
        tracing::debug!(target: PAYLOAD_LOG, path, "the pack has no such card");
    }
    let Some(Value::Object(spec)) = input.get_mut("card_spec") else {
        return Ok(());
    };
    let folder = spec.get("i18n_bundle_path").and_then(Value::as_str);
    let folder = folder.map(|path| path.trim().trim_end_matches('/'));
    let folder = folder.filter(|path| !path.is_empty());
    let texts = assets.translations(folder.unwrap_or(TRANSLATIONS), budget)?;
    if !texts.is_empty() {
        spec.insert("i18n_inline".to_owned(), Value::Object(texts));
    }
    if let Some(card) = card {
        spec.insert("inline_json".to_owned(), card);
        spec.remove("asset_path");
        input["card_source"] = "inline".into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn assets() -> Assets {
        let files = [
            ("assets/cards/a.json", r#"{"type":"AdaptiveCard","id":"a"}"#),
            ("assets/cards/b.json", r#"{"type":"AdaptiveCard","id":"b"}"#),
            ("assets/texts/en.json", r#"{"k":"hi"}"#),
        ];
        let file = |(path, text): (&str, &'static str)| (path.to_owned(), Bytes::from(text));
        Assets::new(files.map(file))
    }

    fn card(id: &str) -> Value {
        json!({"type": "AdaptiveCard", "id": id})
    }

    #[track_caller]
    fn check(input: Value, config: Value, entry: Value, expected: Value) {
        let mut completed = input.clone();
        let (assets, mut budget) = (assets(), Budget::default());
        complete(&mut completed, &config, &entry, (&assets, &mut budget)).unwrap();
        assert_eq!(completed, expected, "{input} {config}");
    }

    #[test]
    fn the_default_card_is_shown_where_no_other_is_named() {
        let none = || json!({});
        let inline = json!({"card_source": "inline", "card_spec": {"inline_json": card("a")}});
        let by_path = json!({"default_card_asset": " assets/cards/a.json "});
        check(json!({}), by_path.clone(), none(), inline.clone());
        check(Value::Null, by_path.clone(), none(), inline.clone());
        check(
            json!({}),
            json!({"default_card_inline": card("a")}),
            none(),
            inline.clone(),
        );
        let nested = json!({"component": "c", "config": by_path});
        let mut expected = inline.clone();
        expected["component"] = "c".into();
        expected["config"] = nested["config"].clone();
        check(nested, Value::Null, none(), expected);
        let both = json!({"default_card_inline": card("b"), "default_card_asset": "cards/a.json", "default_source": "Asset"});
        check(json!({}), both, none(), inline);
        let remote = json!({"card_source": "remote", "card_spec": {}});
        check(
            json!({}),
            json!({"default_source": "remote"}),
            none(),
            remote,
        );
        for nothing in [
            json!({"default_card_asset": " "}),
            json!({"x": 1}),
            json!("x"),
            Value::Null,
        ] {
            check(json!({"a": 1}), nothing, none(), json!({"a": 1}));
        }
        let own = json!({"card_source": "inline", "card_spec": {"inline_json": card("b")}});
        check(
            own.clone(),
            json!({"default_card_asset": "cards/a.json"}),
            none(),
            own,
        );
    }

    #[test]
    fn a_card_and_its_translations_take_the_place_of_their_paths() {
        let asset = |path: &str| json!({"card_source": "ASSET", "card_spec": {"asset_path": path, "i18n_bundle_path": "assets/texts/ "}});
        let texts = json!({"en": {"k": "hi"}});
        let there = json!({"card_source": "inline", "card_spec": {"inline_json": card("a"),
            "i18n_bundle_path": "assets/texts/ ", "i18n_inline": texts}});
        let mut twice = asset("cards/a.json");
        twice["call"] = json!({"payload": asset("cards/a.json")});
        let mut expected = there.clone();
        expected["call"] = json!({"payload": there});
        check(twice, Value::Null, json!({}), expected);
        let mut absent = asset("cards/x.json");
        absent["card_spec"]["i18n_inline"] = texts;
        check(asset("cards/x.json"), Value::Null, json!({}), absent);
    }

    #[test]
    fn the_users_language_reaches_every_card_that_names_none() {
        let entry = |locale: &str| json!({"metadata": {"locale": locale}});
        let default = json!({"default_card_inline": card("a")});
        let shown = json!({"card_source": "inline", "card_spec": {"inline_json": card("a")}, "locale": "de"});
        check(json!({}), default, entry("de"), shown.clone());
        check(shown.clone(), Value::Null, entry("fr"), shown.clone());
        let bare = json!({"card_source": "inline", "card_spec": {}});
        check(bare.clone(), Value::Null, entry(" "), bare);
        check(json!({"a": 1}), Value::Null, entry("de"), json!({"a": 1}));
    }

    #[test]
    fn a_button_chooses_the_card() {
        let mut mapping = json!({"config": {}});
        route(&mut mapping, &json!({"metadata": {"toCardId": "b"}}));
        let spec = json!({"asset_path": "assets/cards/b.json"});
        assert_eq!(
            mapping,
            json!({"config": {}, "card_source": "asset", "card_spec": spec})
        );
        let own = json!({"card_source": "asset", "card_spec": {}});
        let mut mapping = own.clone();
        route(&mut mapping, &json!({"metadata": {"toCardId": "b"}}));
        assert_eq!(mapping, own);
    }
}
