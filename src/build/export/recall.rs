//! What inlay remembers: the content that the steps of an image read, as the daemon once told it.
//!
//! BuildKit forgets: a daemon that found steps in an imported cache, by their definitions, cannot
//! tell their content when it exports the same image again without that import. If inlay saw the
//! export with the import, it can. What is remembered is true of an image, by the digests of its
//! layers, and not of a daemon. There is no need to keep it: without it a cache has fewer keys, and
//! no wrong ones.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::cache::record::{Contents, Digest, RecordSet};

/// How many links and layers are remembered, of all images together; some 100 bytes each.
const MAX_WEIGHT: usize = 100_000;

/// The contents of the images exported last, in memory.
#[derive(Debug, Default)]
pub struct Recall(Mutex<VecDeque<(Layers, Contents)>>);

/// The layers of an image, base first.
type Layers = Vec<Digest>;

// === impl Recall ===

impl Recall {
    /// Adds to an export what is remembered of its image, and remembers what the export tells.
    pub fn complete(&self, set: &mut RecordSet) {
        let Some(image) = set.image() else { return };
        // Each change is one call of the queue, so a panic elsewhere leaves it whole.
        let mut images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = Contents::of(set);
        let is_same = |(known, contents): &(Layers, Contents)| {
            *known == image && contents.is_of_one_build_with(&told)
        };
        if let Some(at) = images.iter().position(is_same)
            && let Some((_, known)) = images.remove(at)
        {
            set.add_contents(&known);
        }
        let contents = Contents::of(set);
        if contents.is_empty() {
            return;
        }
        images.push_back((image, contents));
        let mut all: usize = images.iter().map(weight).sum();
        while all > MAX_WEIGHT
            && let Some(oldest) = images.pop_front()
        {
            all -= weight(&oldest);
        }
    }
}

fn weight((image, contents): &(Layers, Contents)) -> usize {
    image.len() + contents.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::record::Limits;

    fn digest(text: &str) -> String {
        format!("sha256:{}", text.repeat(64))
    }

    /// A copy from a stage; with its content or without.
    fn set(layer: &str, content: bool) -> RecordSet {
        ending(layer, content, "2")
    }

    fn ending(layer: &str, content: bool, end: &str) -> RecordSet {
        let by_content = if content { r#",{"link":2}"# } else { "" };
        let config = format!(
            r#"{{"layers":[{{"blob":"{}","parent":-1}}],
                 "records":[{{"digest":"{}"}},
                   {{"digest":"{}","inputs":[[{{"link":0,"selector":"s"}}{by_content}]],"layers":[{{"layer":0}}]}},
                   {{"digest":"{}"}}]}}"#,
            digest(layer),
            digest("1"),
            digest(end),
            digest("3"),
        );
        RecordSet::parse(config.as_bytes(), &Limits::default()).unwrap()
    }

    #[test]
    fn an_image_gets_back_the_content_that_it_had() {
        let recall = Recall::default();
        recall.complete(&mut set("a", true));
        let mut same = set("a", false);
        recall.complete(&mut same);
        assert_eq!(Contents::of(&same), Contents::of(&set("a", true)));
        let mut other = set("b", false);
        recall.complete(&mut other);
        assert!(Contents::of(&other).is_empty());
    }

    #[test]
    fn another_build_of_the_same_layers_makes_nothing_forgotten() {
        let recall = Recall::default();
        recall.complete(&mut set("a", true));
        recall.complete(&mut ending("a", false, "4"));
        let mut same = set("a", false);
        recall.complete(&mut same);
        assert!(!Contents::of(&same).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let recall = Recall::default();
        recall.complete(&mut set("a", true));
        let mut images = recall.0.lock().unwrap();
        let (image, contents) = images[0].clone();
        images.extend((0..MAX_WEIGHT).map(|_| (image.clone(), contents.clone())));
        drop(images);
        recall.complete(&mut set("b", true));
        // One layer and one link each.
        assert_eq!(recall.0.lock().unwrap().len(), MAX_WEIGHT / 2);
    }
}
