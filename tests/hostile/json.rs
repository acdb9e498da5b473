//! Random JSON.

use proptest::prelude::*;
use serde_json::{Map, Value};

/// Names and texts that mean something to the worker, and such as might break out of where they stand.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".*",
        "[a-c.:/_-]{0,6}",
        Just("{{env.SECRET}}{{in.text}}".to_owned()),
        Just("/in/text".to_owned()),
        Just("a\r\nNats-Msg-Id: b".to_owned()),
        Just("\0".to_owned()),
        Just("x".repeat(5_000)),
    ]
}

/// Any JSON of a few levels, its objects with names from this strategy.
pub fn value(
    name: impl Strategy<Value = String> + Clone + 'static,
) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let fields = prop::collection::vec((name.clone(), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            fields.prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}
