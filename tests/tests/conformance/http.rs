//! The kind `http`, against the receiver.

use std::ops::RangeInclusive;

use pgflow_executor::job::{Secret, Target, Work};
use serde_json::{json, Map, Value};

use crate::receiver::Receiver;
use crate::subject::{Loss, Subject};

pub struct Http {
    receiver: Receiver,
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn request(request: Value) -> Work {
    Work { options: object(json!({ "request": request })), ..Work::default() }
}

impl Http {
    fn with_token(&self, port: u16, token: &str) -> Target {
        Target {
            options: object(json!({
                "base_url": format!("http://127.0.0.1:{port}"),
                "allow_private": true,
                "headers": {"Authorization": "Bearer ${token}"},
                "max_response_bytes": 200 * 1024 * 1024,
            })),
            connection_options: [("token".to_owned(), Secret::new(token))].into(),
            ..Target::default()
        }
    }
}

impl Subject for Http {
    const KIND: &'static str = "http";

    fn start() -> Self {
        Http { receiver: Receiver::start() }
    }

    fn port(&self) -> u16 {
        self.receiver.port
    }

    fn kill(&self) {
        self.receiver.kill();
    }

    fn start_again(&self) {
        self.receiver.start_again();
    }

    fn target(&self, port: u16) -> Target {
        self.with_token(port, &self.receiver.token)
    }

    fn stranger(&self, port: u16) -> Target {
        self.with_token(port, "a-wrong-token")
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.receiver.token.clone(), "a-wrong-token".into()]
    }

    fn effect(&self, key: &str) -> Work {
        request(json!({"method": "POST", "path": "/effect", "body": {"key": key}}))
    }

    fn gated_effect(&self, key: &str) -> Work {
        request(json!({"method": "POST", "path": "/gated", "body": {"key": key}}))
    }

    fn close_gate(&self) {
        self.receiver.set_gate(false);
    }

    fn open_gate(&self) {
        self.receiver.set_gate(true);
    }

    fn running(&self) -> usize {
        self.receiver.held()
    }

    fn effects(&self, key: &str) -> Vec<String> {
        self.receiver.effects(key)
    }

    fn rows(&self, count: u32) -> Work {
        request(json!({"method": "GET", "path": "/rows", "query": {"count": count.to_string()}}))
    }

    fn large(&self, bytes: u64) -> Work {
        request(json!({"method": "GET", "path": "/large", "query": {"bytes": bytes.to_string()}}))
    }

    fn failing(&self) -> (Work, &'static str) {
        (request(json!({"method": "POST", "path": "/failing"})), "422")
    }

    fn bad(&self) -> (Work, &'static str) {
        (request(json!({"method": "POST", "path": "/nonsense"})), "404")
    }

    fn refused(&self) -> &'static str {
        "401"
    }

    fn leaking(&self) -> Work {
        request(json!({"method": "POST", "path": "/repeat", "body": {"said": "$token"}}))
    }

    fn answer(&self) -> &'static [u8] {
        b"HTTP/1.1 200"
    }

    fn look(&self) -> Option<&'static [u8]> {
        None
    }

    fn promise(&self, loss: Loss) -> RangeInclusive<usize> {
        match loss {
            Loss::Before => 1..=1,
            _ => 1..=2,
        }
    }
}
