//! Puts the cache of a build into its image config: from what a daemon exported as
//! `--export-cache type=local,image-manifest=true,dest=DIR`, and from the LLB definition of the build.
//!
//! ```text
//! crane config registry.example/app | cargo run --example embed_cache -- DIR definition.pb
//! ```

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use inlay::cache::embed::embed;
use inlay::cache::export;
use inlay::cache::image::config::{self, DEFAULT_LIMIT};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let dir = args.next().ok_or("the exported cache is not named")?;
    let definition = args.next().ok_or("the definition is not named")?;

    let index: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("index.json"))?)?;
    let manifest = index["manifests"][0].to_string();
    let blob = |digest: &str| fs::read(dir.join("blobs").join(digest.replace(':', "/"))).ok();
    let exported = export::read(&manifest, blob)?;
    let embedded = embed(&exported, &fs::read(definition)?, None)?;
    for note in embedded.notes {
        eprintln!("{note}");
    }

    let mut image = Vec::new();
    io::stdin().read_to_end(&mut image)?;
    let cached = config::embed(&image, &embedded.cache.encode(), DEFAULT_LIMIT)?;
    io::stdout().write_all(&cached)?;
    Ok(())
}
