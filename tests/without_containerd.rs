//! An import from containerd by a server that is built without the feature `containerd`.
#![cfg(not(feature = "containerd"))]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "support/reader.rs"]
#[allow(dead_code, reason = "shared; this uses a part of it")]
mod reader;

use inlay::source::Settings;
use reader::Reader;

#[test]
fn an_image_of_containerd_is_refused_with_the_reason() {
    let reader = Reader::new(Settings::default());
    let refused = reader.open("containerd:docker.io/library/app:1");
    let told = refused.unwrap_err().to_string();
    assert_eq!(
        told,
        "containerd:docker.io/library/app:1 is not allowed: this inlay is built without its feature containerd"
    );
}
