//! Prints the inline cache of an image config as it stands there, which is JSON.
//!
//! ```text
//! crane config registry.example/app | cargo run --example read_cache
//! ```

use std::error::Error;
use std::io::{self, Read as _, Write as _};

use inlay::cache::image::config::{self, DEFAULT_LIMIT};

fn main() -> Result<(), Box<dyn Error>> {
    let mut image = Vec::new();
    io::stdin().read_to_end(&mut image)?;
    let cache = config::cache_of(&image, DEFAULT_LIMIT)?.ok_or("no inline cache")?;
    io::stdout().write_all(&cache)?;
    Ok(())
}
