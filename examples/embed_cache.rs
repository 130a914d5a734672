//! Puts an exported cache into an image config. The export is the cache config that BuildKit writes:
//! of `--export-cache type=local`, the blob that the manifest has as its config.
//!
//! ```text
//! crane config registry.example/app | cargo run --example embed_cache -- cache.json
//! ```

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Read as _, Write as _};

use inlay::cache::image::config::{self, DEFAULT_LIMIT};
use inlay::cache::record::{Limits, RecordSet, select};

fn main() -> Result<(), Box<dyn Error>> {
    let export = env::args_os()
        .nth(1)
        .ok_or("the cache config is not named")?;
    let set = RecordSet::parse(&fs::read(export)?, &Limits::default())?;
    let cache = select(&set)?;
    let mut image = Vec::new();
    io::stdin().read_to_end(&mut image)?;
    io::stdout().write_all(&config::embed(&image, &cache.encode(), DEFAULT_LIMIT)?)?;
    Ok(())
}
