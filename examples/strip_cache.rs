//! Takes the inline cache out of an image config. What is left is the config of the image without it,
//! byte for byte.
//!
//! ```text
//! crane config registry.example/app | cargo run --example strip_cache
//! ```

use std::error::Error;
use std::io::{self, Read as _, Write as _};

use inlay::cache::image::config::{self, DEFAULT_LIMIT};

fn main() -> Result<(), Box<dyn Error>> {
    let mut image = Vec::new();
    io::stdin().read_to_end(&mut image)?;
    io::stdout().write_all(&config::strip(&image, DEFAULT_LIMIT)?)?;
    Ok(())
}
