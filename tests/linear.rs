//! What a cache costs grows with its links, and not faster, whatever its shape.
//!
//! Counted is what is allocated: how often, how many bytes in all, and how many at once. It is the
//! same in every run and on every machine, which no time is. A step that is taken again and again
//! without allocating is not seen here; each walk of the record set marks where it has been, and
//! `cargo bench --bench records` shows the time for a record at several sizes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use allocation_counter::{AllocationInfo, measure};
use inlay::cache::record::{Limits, RecordSet, SelectError, select};

/// How many times larger the larger of two caches is.
const TIMES: u64 = 8;

/// A shape of caches, of any size.
struct Shape {
    name: &'static str,
    make: fn(usize) -> Cache,
}

#[derive(Default)]
struct Cache {
    /// Blob and parent.
    layers: Vec<(usize, Option<usize>)>,
    records: Vec<String>,
}

fn digest(n: usize) -> String {
    format!("sha256:{n:064x}")
}

impl Cache {
    fn of_layers(count: usize) -> Self {
        Self {
            layers: (0..count).map(|n| (n, n.checked_sub(1))).collect(),
            records: vec![],
        }
    }

    /// Adds a record with this key, inputs of selector and source, and results by their tops.
    fn add(&mut self, key: usize, inputs: &[Vec<(String, usize)>], tops: &[usize]) -> usize {
        let link = |(selector, source): &(String, usize)| {
            format!(r#"{{"selector":"{selector}","link":{source}}}"#)
        };
        let input = |links: &Vec<_>| format!("[{}]", join(links.iter().map(link)));
        let top = |layer: &usize| format!(r#"{{"layer":{layer}}}"#);
        self.records.push(format!(
            r#"{{"digest":"{}","inputs":[{}],"layers":[{}]}}"#,
            digest(key),
            join(inputs.iter().map(input)),
            join(tops.iter().map(top))
        ));
        self.records.len() - 1
    }

    fn text(&self) -> Vec<u8> {
        let layer = |(blob, parent): &(usize, Option<usize>)| {
            let parent = parent.map_or("-1".to_owned(), |parent| parent.to_string());
            format!(r#"{{"blob":"{}","parent":{parent}}}"#, digest(*blob))
        };
        let layers = join(self.layers.iter().map(layer));
        let records = join(self.records.iter().cloned());
        format!(r#"{{"layers":[{layers}],"records":[{records}]}}"#).into_bytes()
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// An image, and records whose result is its layers in reverse.
fn reversed(layers: usize, records: usize) -> Cache {
    let mut cache = Cache::of_layers(layers);
    for blob in (0..layers).rev() {
        let below = (blob + 1 < layers).then(|| cache.layers.len() - 1);
        cache.layers.push((blob, below));
    }
    let mut last = cache.add(0, &[], &[]);
    for key in 1..records {
        last = cache.add(key, &[one(last)], &[2 * layers - 1]);
    }
    cache.add(records, &[one(last)], &[layers - 1]);
    cache
}

fn one(source: usize) -> Vec<(String, usize)> {
    vec![(String::new(), source)]
}

const SHAPES: [Shape; 11] = [
    Shape {
        name: "a deep chain",
        make: |n| {
            let mut cache = Cache::of_layers(1);
            let mut last = cache.add(0, &[], &[]);
            for key in 1..n {
                last = cache.add(key, &[one(last)], &[0]);
            }
            cache
        },
    },
    Shape {
        name: "one step with many inputs",
        make: |n| {
            let mut cache = Cache::of_layers(1);
            let inputs: Vec<_> = (0..n).map(|key| one(cache.add(key, &[], &[]))).collect();
            cache.add(n, &inputs, &[0]);
            cache
        },
    },
    Shape {
        name: "one input with many sources",
        make: |n| {
            let mut cache = Cache::of_layers(1);
            let link = |key| (String::new(), cache.add(key, &[], &[]));
            let links = (0..n).map(link).collect();
            cache.add(n, &[links], &[0]);
            cache
        },
    },
    Shape {
        name: "one source with many users and selectors",
        make: |n| {
            let mut cache = Cache::of_layers(1);
            let root = cache.add(0, &[], &[]);
            let mut ends = Vec::new();
            for key in 1..n {
                let end = cache.add(key, &[vec![(format!("/{key}"), root)]], &[]);
                ends.push(one(end));
            }
            cache.add(n, &ends, &[0]);
            cache
        },
    },
    Shape {
        name: "diamonds",
        make: |n| {
            let mut cache = Cache::of_layers(1);
            let mut pair = [0, 1].map(|key| cache.add(key, &[], &[]));
            for level in 1..n / 2 {
                let [a, b] = pair.map(|source| (String::new(), source));
                let both = [vec![a.clone(), b.clone()], vec![b, a]];
                pair = [0, 1].map(|key| cache.add(2 * level + key, &both, &[]));
            }
            let ends = pair.map(one);
            cache.add(n, &ends, &[0]);
            cache
        },
    },
    Shape {
        name: "alternatives",
        make: |n| {
            let mut cache = Cache::of_layers(1);
            let mut level = vec![cache.add(0, &[], &[])];
            for key in 1..n / 4 {
                let sources: Vec<_> = level.iter().map(|&s| (String::new(), s)).collect();
                // One operation four times, each with other ancestors.
                let step = |k: usize| {
                    let links = sources.iter().cycle().skip(k).take(2).cloned().collect();
                    cache.add(key, &[links], &[0])
                };
                level = (0..4).map(step).collect();
            }
            let ends = level.into_iter().map(|s| (String::new(), s)).collect();
            cache.add(n, &[ends], &[0]);
            cache
        },
    },
    Shape {
        name: "equal records",
        make: |n| {
            let mut cache = Cache::of_layers(1);
            let roots: Vec<_> = (0..n / 2).map(|_| cache.add(0, &[], &[])).collect();
            let steps: Vec<_> = roots
                .into_iter()
                .map(|root| cache.add(1, &[one(root)], &[0]))
                .collect();
            let links = steps.into_iter().map(|s| (String::new(), s)).collect();
            cache.add(2, &[links], &[0]);
            cache
        },
    },
    Shape {
        name: "one record with many results",
        make: |n| {
            let mut cache = Cache::of_layers(200);
            let tops: Vec<_> = (0..n).map(|result| result % 200).collect();
            let root = cache.add(0, &[], &tops);
            cache.add(1, &[one(root)], &[199]);
            cache
        },
    },
    Shape {
        name: "each layer of a long chain a result",
        make: |n| {
            let mut cache = Cache::of_layers(n);
            let mut last = cache.add(0, &[], &[]);
            for layer in 0..n {
                last = cache.add(layer + 1, &[one(last)], &[layer]);
            }
            cache
        },
    },
    Shape {
        name: "a long chain beside the image for many records",
        make: |n| {
            let mut cache = Cache::of_layers(20);
            let other = |layer| (layer, (layer > 20).then(|| layer - 1));
            cache.layers.extend((20..20 + n).map(other));
            let mut last = cache.add(0, &[], &[]);
            for key in 1..n {
                last = cache.add(key, &[one(last)], &[20 + n - 1]);
            }
            cache.add(n, &[one(last)], &[19]);
            cache
        },
    },
    Shape {
        name: "the image's layers in reverse for many records",
        make: |n| reversed(20, n),
    },
];

/// Room for the larger ones.
fn limits() -> Limits {
    Limits {
        bytes: 64 << 20,
        ..Limits::default()
    }
}

fn cost(text: &[u8]) -> AllocationInfo {
    measure(|| {
        let mut set = RecordSet::parse(text, &limits()).unwrap();
        set.settle();
        set.retain_links(|_, _, _| true);
        let encoded = select(&set).unwrap().encode();
        assert!(!encoded.is_empty());
    })
}

#[test]
fn what_is_allocated_grows_with_the_links() {
    for Shape { name, make } in SHAPES {
        let size = 1_000;
        let small = make(size).text();
        let large = make(size * usize::try_from(TIMES).unwrap()).text();
        let costs = (cost(&small), cost(&large));
        let grown = |of: fn(&AllocationInfo) -> u64| of(&costs.1) as f64 / of(&costs.0) as f64;
        let [count, total, peak] = [
            grown(|cost| cost.count_total),
            grown(|cost| cost.bytes_total),
            grown(|cost| cost.bytes_max),
        ];
        let text = large.len() as f64 / small.len() as f64;
        println!(
            "{name:<48} text {text:>4.1}x, count {count:>4.1}x, bytes {total:>4.1}x, peak {peak:>4.1}x"
        );
        // Vectors double, so that a peak may be up to twice what is in them, at either size.
        assert!(count <= 1.3 * text, "{name}: allocations {count}");
        assert!(total <= 1.6 * text, "{name}: bytes {total}");
        assert!(peak <= 1.6 * text, "{name}: bytes at once {peak}");
    }
}

/// What is written may be longer than what was read, by the format: layers that are not the
/// image's lowest are written one by one. It is bounded.
#[test]
fn what_would_be_written_longer_than_it_was_read_is_bounded() {
    let cache = reversed(1_000, 1_100);
    let set = RecordSet::parse(&cache.text(), &limits()).unwrap();
    assert_eq!(
        select(&set).unwrap_err(),
        SelectError::TooLarge { limit: 1_000_000 }
    );
}
