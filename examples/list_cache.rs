//! Lists the inline cache of an image config: its records, what they have for a result, and which
//! records each of their inputs may come from.
//!
//! ```text
//! crane config registry.example/app | cargo run --example list_cache
//! ```

use std::error::Error;
use std::io::{self, Read as _};

use inlay::cache::image::config::{self, DEFAULT_LIMIT};
use inlay::cache::record::{Limits, RecordSet};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let Some(cache) = config::cache_of(&bytes, DEFAULT_LIMIT)? else {
        println!("no inline cache");
        return Ok(());
    };
    let Config { rootfs } = serde_json::from_slice(&bytes)?;
    let layers: Vec<_> = rootfs
        .diff_ids
        .iter()
        .map(|id| id.parse())
        .collect::<Result<_, _>>()?;
    let set = RecordSet::parse_inline(&cache, &layers, &Limits::default())?;
    println!(
        "{} records over {} layers, {} bytes",
        set.records().len(),
        layers.len(),
        cache.len()
    );
    for (number, record) in set.records().iter().enumerate() {
        let inputs = record.inputs.iter().map(|links| {
            let links: Vec<_> = links.iter().map(|link| link.record.to_string()).collect();
            links.join(" or ")
        });
        let inputs: Vec<_> = inputs.collect();
        let result = match record.results.first() {
            Some(layers) => format!("{} layers", layers.len()),
            None => String::new(),
        };
        println!(
            "{number:>4}  {:.19}  {result:<10}  {}",
            record.digest.to_string(),
            inputs.join(", ")
        );
    }
    Ok(())
}
