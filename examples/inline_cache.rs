//! Lists the inline cache of an image config, or takes it out.
//!
//! ```text
//! crane config registry.example/app | cargo run --example inline_cache
//! crane config registry.example/app | cargo run --example inline_cache -- --strip
//! ```

use std::error::Error;
use std::io::{self, Read as _, Write as _};

use inlay::image::config::{self, DEFAULT_LIMIT};
use inlay::record::{Limits, RecordSet};
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
    if std::env::args().any(|arg| arg == "--strip") {
        io::stdout().write_all(&config::strip(&bytes, DEFAULT_LIMIT)?)?;
        return Ok(());
    }
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
