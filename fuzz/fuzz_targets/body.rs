//! The decoder: any body is an activity in order, or the reason why it is none.
#![no_main]

use greentic_worker::model::{DecodeError, EnvId, Headers, InboundMessage, TenantId, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let message = InboundMessage {
        tenant: TenantId::new("t").unwrap(),
        headers: Headers::default(),
        body: body.to_vec().into(),
        sequence: Some(1),
    };
    match decode(&message, &EnvId::new("dev").unwrap()) {
        Ok(activity) => assert!(!activity.key.as_str().is_empty()),
        Err(DecodeError::Body { offset, .. }) => assert!(offset <= body.len()),
        Err(_) => {}
    }
});
