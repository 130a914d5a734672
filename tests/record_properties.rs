//! What must hold of every record set and every image config, over generated ones.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashMap;

use inlay::{
    cache::image::config::{CACHE_KEY, DEFAULT_LIMIT, cache_of, embed, strip},
    cache::record::{
        Digest, InlineCache, InlineResult, Limits, Link, RecordSet, SelectError, select,
    },
};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};

// === graphs ===

/// A cache as a daemon may export it. Sources have lower numbers than what they are sources of,
/// and parents than what lies on them, until [`Graph::permuted`] mixes them.
#[derive(Debug, Clone)]
struct Graph {
    /// Blob and parent.
    layers: Vec<(usize, Option<usize>)>,
    records: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    digest: String,
    inputs: Vec<Vec<(String, usize)>>,
    tops: Vec<usize>,
    chains: Vec<Vec<usize>>,
}

fn digest(n: usize) -> String {
    format!("sha256:{n:064x}")
}

impl Graph {
    fn json(&self) -> Vec<u8> {
        let layer = |(blob, parent): &(usize, Option<usize>)| {
            let parent = parent.map_or(-1, |p| i64::try_from(p).unwrap());
            json!({"blob": digest(*blob), "parent": parent})
        };
        let record = |node: &Node| {
            let link = |(selector, link): &(String, usize)| match selector.as_str() {
                "" => json!({"link": link}),
                selector => json!({"selector": selector, "link": link}),
            };
            let input = |links: &Vec<_>| links.iter().map(link).collect::<Value>();
            let date = "2024-02-03T04:05:06.789Z";
            json!({
                "digest": node.digest,
                "inputs": node.inputs.iter().map(input).collect::<Value>(),
                "layers": node.tops.iter().map(|n| json!({"layer": n, "createdAt": date})).collect::<Value>(),
                "chains": node.chains.iter().map(|n| json!({"layers": n, "createdAt": date})).collect::<Value>(),
            })
        };
        let layers: Value = self.layers.iter().map(layer).collect();
        let records: Value = self.records.iter().map(record).collect();
        serde_json::to_vec(&json!({"layers": layers, "records": records})).unwrap()
    }

    fn set(&self) -> RecordSet {
        RecordSet::parse(&self.json(), &Limits::default()).unwrap()
    }

    /// The same graph with records, layers, links and results in another order.
    fn permuted(&self, shuffle: &mut impl FnMut(usize) -> Vec<usize>) -> Self {
        let layer_order = shuffle(self.layers.len());
        let record_order = shuffle(self.records.len());
        let layer_at = inverse(&layer_order);
        let record_at = inverse(&record_order);
        let mut pick = |list: &[usize]| -> Vec<usize> {
            shuffle(list.len()).into_iter().map(|n| list[n]).collect()
        };
        let mut records = vec![];
        for &number in &record_order {
            let node = &self.records[number];
            let tops: Vec<_> = node.tops.iter().map(|&n| layer_at[n]).collect();
            let all_chains: Vec<_> = (0..node.chains.len()).collect();
            records.push(Node {
                digest: node.digest.clone(),
                inputs: node
                    .inputs
                    .iter()
                    .map(|links| {
                        let all: Vec<_> = (0..links.len()).collect();
                        let link = |n: usize| (links[n].0.clone(), record_at[links[n].1]);
                        pick(&all).into_iter().map(link).collect()
                    })
                    .collect(),
                tops: pick(&tops),
                chains: pick(&all_chains)
                    .into_iter()
                    .map(|n| node.chains[n].iter().map(|&l| layer_at[l]).collect())
                    .collect(),
            });
        }
        let layer = |&number: &usize| {
            let (blob, parent) = self.layers[number];
            (blob, parent.map(|p| layer_at[p]))
        };
        Self {
            layers: layer_order.iter().map(layer).collect(),
            records,
        }
    }
}

fn inverse(order: &[usize]) -> Vec<usize> {
    let mut at = vec![0; order.len()];
    for (new, &old) in order.iter().enumerate() {
        at[old] = new;
    }
    at
}

/// Digests come from few, so that equal records occur; now and then one is random.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => (0..6_usize).prop_map(digest),
        1 => Just("random:0f".to_owned()),
    ]
}

fn selector() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("/a".to_owned()),
        Just("ä\"\\\u{1}".to_owned())
    ]
}

prop_compose! {
    fn node()(
        digest in key(),
        inputs in vec(vec((selector(), any::<Index>()), 1..4), 0..3),
        tops in vec(any::<Index>(), 0..3),
        chains in vec(vec(any::<Index>(), 1..4), 0..2),
    ) -> (String, Vec<Vec<(String, Index)>>, Vec<Index>, Vec<Vec<Index>>) {
        (digest, inputs, tops, chains)
    }
}

prop_compose! {
    /// A graph, mostly of one build: the last record has all others that are nobody's source as
    /// its sources, and one result.
    fn graph()(
        layers in vec((0..8_usize, prop::option::weighted(0.8, any::<Index>())), 1..8),
        nodes in vec(node(), 1..12),
        is_one_build in prop::bool::weighted(0.9),
        last in any::<Index>(),
    ) -> Graph {
        let count = layers.len();
        let layers = layers
            .into_iter()
            .enumerate()
            .map(|(n, (blob, parent))| (blob, parent.filter(|_| n > 0).map(|p| p.index(n))))
            .collect();
        let mut records: Vec<Node> = vec![];
        for (digest, inputs, tops, chains) in nodes {
            let known = records.len();
            let link = |(selector, source): (String, Index)| (selector, source.index(known));
            records.push(Node {
                digest,
                inputs: if known == 0 {
                    vec![]
                } else {
                    inputs.into_iter().map(|links| links.into_iter().map(link).collect()).collect()
                },
                tops: tops.into_iter().map(|top| top.index(count)).collect(),
                chains: chains
                    .into_iter()
                    .map(|chain| chain.into_iter().map(|l| l.index(count)).collect())
                    .collect(),
            });
        }
        if is_one_build {
            let is_source = |n: usize| {
                records.iter().any(|r| r.inputs.iter().flatten().any(|link| link.1 == n))
            };
            let ends: Vec<_> = (0..records.len()).filter(|&n| !is_source(n)).collect();
            // A random source beside one that is not is an alternative; alone it would end all.
            let spare = (0..records.len()).find(|&n| records[n].inputs.is_empty());
            records.push(Node {
                digest: digest(7),
                inputs: ends
                    .into_iter()
                    .map(|n| [Some(n), spare].into_iter().flatten().map(|n| (String::new(), n)).collect())
                    .collect(),
                tops: vec![last.index(count)],
                chains: vec![],
            });
        }
        Graph { layers, records }
    }
}

/// Blobs 0 and 4 hold the same, and so do 1 and 5; of 3 nothing is known.
fn diff_id(blob: &Digest) -> Option<Digest> {
    [0, 1, 2, 4, 5, 6, 7]
        .into_iter()
        .find(|&n| blob.as_str() == digest(n))
        .map(|n| digest(50 + n % 4).parse().unwrap())
}

fn outcome(set: &RecordSet) -> Result<(Vec<u8>, usize), &'static str> {
    match select(set) {
        Ok(cache) => Ok((cache.to_json(), cache.layers())),
        Err(SelectError::NoFinal) => Err("no final"),
        Err(SelectError::AmbiguousFinal(_)) => Err("ambiguous"),
        Err(SelectError::RandomFinal(_)) => Err("random"),
        Err(SelectError::TooLarge { .. }) => Err("too large"),
        Err(SelectError::Loop) => Err("a loop in BuildKit"),
    }
}

/// The blobs of the image that is selected: of those that hold the same, one.
fn image(set: &RecordSet) -> Vec<Digest> {
    let layers = set.layers().iter();
    let blobs: HashMap<_, _> = layers
        .map(|layer| (layer.diff_id.as_ref().unwrap_or(&layer.blob), &layer.blob))
        .collect();
    let names = set.image().unwrap();
    names.iter().map(|name| blobs[name].clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn bytes_do_not_depend_on_order(graph in graph(), seeds in vec(any::<u64>(), 16), known in any::<bool>()) {
        let mut seeds = seeds.into_iter().cycle();
        let mut shuffle = |count: usize| {
            let mut order: Vec<_> = (0..count).collect();
            for n in (1..count).rev() {
                let seed = seeds.next().unwrap().rotate_left(u32::try_from(n).unwrap());
                order.swap(n, usize::try_from(seed % (n as u64 + 1)).unwrap());
            }
            order
        };
        let mut one = graph.set();
        let mut other = graph.permuted(&mut shuffle).set();
        if known {
            one.set_diff_ids(diff_id);
            other.set_diff_ids(diff_id);
        }
        prop_assert_eq!(outcome(&one), outcome(&other));
    }

    #[test]
    fn what_was_selected_selects_itself(graph in graph(), known in any::<bool>()) {
        let mut set = graph.set();
        if known {
            set.set_diff_ids(diff_id);
        }
        if let Ok(cache) = select(&set) {
            let again = InlineCache::decode(&cache.encode(), &image(&set), &Limits::default()).unwrap();
            prop_assert_eq!(select(&again).unwrap().to_json(), cache.to_json());
        }
    }

    #[test]
    fn what_is_written_is_read_back(graph in graph()) {
        let set = graph.set();
        if let Ok(cache) = select(&set) {
            let read = InlineCache::decode(&cache.encode(), &image(&set), &Limits::default()).unwrap();
            prop_assert_eq!(read.records().len(), cache.records().len());
            for (read, written) in read.records().iter().zip(cache.records()) {
                prop_assert_eq!(&read.digest, &written.digest);
                prop_assert_eq!(&read.inputs, &written.inputs);
                let read: Vec<Vec<_>> = read.results.iter().map(|chain| chain.to_vec()).collect();
                let written: Vec<Vec<_>> = written.result.iter().map(|result| match result {
                    InlineResult::Layer(top) => (0..=*top).collect(),
                    InlineResult::Chain(layers) => layers.to_vec(),
                }).collect();
                prop_assert_eq!(read, written);
            }
        }
    }

    #[test]
    fn a_selection_is_canonical_and_names_only_what_it_has(graph in graph()) {
        if let Ok(cache) = select(&graph.set()) {
            let records = cache.records();
            prop_assert!(records.is_sorted_by_key(|r| &r.digest));
            for record in records {
                prop_assert!(!record.digest.is_random());
                match &record.result {
                    Some(InlineResult::Layer(top)) => prop_assert!(*top < cache.layers()),
                    Some(InlineResult::Chain(chain)) => {
                        prop_assert!(!chain.is_empty());
                        prop_assert!(chain.iter().all(|&layer| layer < cache.layers()));
                    }
                    None => {}
                }
                for links in &record.inputs {
                    prop_assert!(!links.is_empty());
                    prop_assert!(links.iter().all(|link| link.record < records.len()));
                    let place = |link: &Link| (link.selector.clone(), link.record);
                    prop_assert!(links.windows(2).all(|two| place(&two[0]) < place(&two[1])));
                }
            }
            // The end of the build is there, with the whole image as its result.
            let whole = Some(InlineResult::Layer(cache.layers() - 1));
            prop_assert!(records.iter().any(|r| r.result == whole && !r.inputs.is_empty()));
        }
    }

    #[test]
    fn losing_links_leaves_a_checked_set(graph in graph(), kept in vec(prop::bool::weighted(0.8), 64)) {
        let mut set = graph.set();
        let before = set.finals().len();
        let mut kept = kept.into_iter().cycle();
        set.retain_links(|_, _, _| kept.next().unwrap());
        let count = set.records().len();
        prop_assert!(set.finals().len() <= before);
        let mut place = vec![0; count];
        for (n, &record) in set.sources_first().iter().enumerate() {
            place[record] = n;
        }
        prop_assert_eq!(set.sources_first().len(), count);
        for (number, record) in set.records().iter().enumerate() {
            prop_assert!(record.inputs.iter().all(|links| !links.is_empty()));
            prop_assert!(record.sources().all(|source| place[source] < place[number]));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        check_total(&bytes);
    }

    #[test]
    fn a_damaged_cache_is_read_or_refused(
        graph in graph(),
        damage in vec((any::<Index>(), 0..3_u8, any::<u8>()), 1..4),
    ) {
        let mut json = graph.json();
        for (at, kind, byte) in damage {
            let at = at.index(json.len());
            match kind {
                0 => json[at] = byte,
                1 => json.insert(at, b"0123456789-,[]{}\""[usize::from(byte) % 17]),
                _ => drop(json.remove(at)),
            }
        }
        check_total(&json);
    }

    #[test]
    fn small_limits_are_held(graph in graph(), records in 0..8_usize, links in 0..12_usize, layers in 0..6_usize, depth in 0..4_usize) {
        let limits = Limits { records, links, layers, depth, ..Limits::default() };
        if let Ok(set) = RecordSet::parse(&graph.json(), &limits) {
            prop_assert!(set.records().len() <= records);
            prop_assert!(set.layers().len() <= layers);
            let read = set.records().iter().map(|r| r.sources().count() + r.results.len()).sum::<usize>();
            prop_assert!(read <= links);
            if let Ok(cache) = select(&set) {
                // What was written under the limits is read under them.
                let again = RecordSet::parse_inline(&cache.to_json(), &image(&set), &limits);
                prop_assert!(again.is_ok(), "{again:?}");
            }
        }
    }
}

/// Reads `bytes` in every way there is; all that is asked is to return.
fn check_total(bytes: &[u8]) {
    let limits = Limits::default();
    let image: Vec<Digest> = (0..3).map(|n| digest(n).parse().unwrap()).collect();
    let text = String::from_utf8_lossy(bytes);
    for set in [
        RecordSet::parse(bytes, &limits).ok(),
        RecordSet::parse_inline(bytes, &image, &limits).ok(),
        InlineCache::decode(&text, &image, &limits).ok(),
    ] {
        let _ = set.map(|set| select(&set));
    }
    let _ = cache_of(bytes, DEFAULT_LIMIT);
    let _ = strip(bytes, DEFAULT_LIMIT);
    let _ = embed(bytes, "", DEFAULT_LIMIT);
}

#[test]
fn the_generator_gives_builds_that_can_be_selected() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let selected = (0..200)
        .filter(|_| select(&graph().new_tree(&mut runner).unwrap().current().set()).is_ok())
        .count();
    assert!(selected > 100, "{selected} of 200");
}

#[test]
fn a_very_deep_cache_is_selected_without_recursion() {
    let depth = 50_000;
    let limits = Limits {
        bytes: 64 << 20,
        depth,
        ..Limits::default()
    };
    let node = |n: usize| Node {
        digest: digest(n),
        inputs: if n == 0 {
            vec![]
        } else {
            vec![vec![(String::new(), n - 1)]]
        },
        tops: vec![0],
        chains: vec![],
    };
    let graph = Graph {
        layers: vec![(0, None)],
        records: (0..depth).map(node).collect(),
    };
    let cache = select(&RecordSet::parse(&graph.json(), &limits).unwrap()).unwrap();
    assert_eq!(cache.records().len(), depth);
    let image = [digest(0).parse().unwrap()];
    let again = InlineCache::decode(&cache.encode(), &image, &limits).unwrap();
    assert_eq!(select(&again).unwrap(), cache);
}

// === image configs ===

fn space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// A string of JSON, quotes included.
fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        r#""([a-z{}\[\]:, é]|\\["\\/bfnrt]|\\u00[0-7][0-9a-f]|\\ud83d\\ude00){0,8}""#,
        Just(format!("\"{CACHE_KEY}\"")),
    ]
}

/// A name that is the cache's, in one form or another.
fn cache_name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(format!("\"{CACHE_KEY}\"")),
        Just(format!("\"{}\"", CACHE_KEY.replace('m', "\\u006d"))),
        Just(format!("\"{}\"", CACHE_KEY.replace('.', "\\u002E"))),
    ]
}

/// A name that is not the cache's.
fn other_name() -> impl Strategy<Value = String> {
    prop_oneof![
        string().prop_filter("the cache's own name", |name| !name.contains(CACHE_KEY)),
        Just(r#""config""#.to_owned()),
        Just(r#""moby.buildkit.cache.v0 ""#.to_owned()),
        Just(r#""Moby.Buildkit.Cache.v0""#.to_owned()),
    ]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        string(),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        Just("true".to_owned()),
        Just("null".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (vec((space(), inner.clone(), space()), 0..4), space()).prop_map(|(values, empty)| {
                let values: Vec<_> = values.into_iter().map(|(a, v, b)| a + &v + &b).collect();
                format!(
                    "[{}]",
                    if values.is_empty() {
                        empty
                    } else {
                        values.join(",")
                    }
                )
            }),
            (
                vec(
                    (prop_oneof![string(), cache_name()], member_of(inner)),
                    0..4
                ),
                space()
            )
                .prop_map(|(members, empty)| object(members, &empty)),
        ]
    })
}

/// All of a member but its name: the spaces around name and value, and the value.
type Rest = (String, String, String, String, String);

fn member_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = Rest> {
    (space(), space(), space(), value, space())
}

fn object(members: Vec<(String, Rest)>, empty: &str) -> String {
    let members: Vec<_> = members
        .into_iter()
        .map(|(name, (a, b, c, value, d))| format!("{a}{name}{b}:{c}{value}{d}"))
        .collect();
    format!(
        "{{{}}}",
        if members.is_empty() {
            empty.to_owned()
        } else {
            members.join(",")
        }
    )
}

fn config_of(name: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (
        vec((name, member_of(value())), 0..5),
        space(),
        space(),
        space(),
    )
        .prop_map(|(members, empty, before, after)| before + &object(members, &empty) + &after)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn stripping_undoes_embedding(config in config_of(other_name()), cache in vec(any::<u8>(), 0..40)) {
        let config = config.as_bytes();
        prop_assert_eq!(cache_of(config, DEFAULT_LIMIT).unwrap(), None);
        prop_assert_eq!(strip(config, DEFAULT_LIMIT).unwrap(), config);
        let embedded = embed(config, &base64(&cache), DEFAULT_LIMIT).unwrap();
        prop_assert_eq!(cache_of(&embedded, DEFAULT_LIMIT).unwrap(), Some(cache));
        prop_assert_eq!(strip(&embedded, DEFAULT_LIMIT).unwrap(), config);
    }

    #[test]
    fn embedding_replaces_every_cache(config in config_of(prop_oneof![other_name(), cache_name()])) {
        let config = config.as_bytes();
        let stripped = strip(config, DEFAULT_LIMIT).unwrap();
        prop_assert_eq!(cache_of(&stripped, DEFAULT_LIMIT).unwrap(), None);
        let embedded = embed(config, "W3t9XQ==", DEFAULT_LIMIT).unwrap();
        prop_assert_eq!(&embedded, &embed(&stripped, "W3t9XQ==", DEFAULT_LIMIT).unwrap());
        prop_assert_eq!(cache_of(&embedded, DEFAULT_LIMIT).unwrap().unwrap(), b"[{}]");
        prop_assert_eq!(strip(&embedded, DEFAULT_LIMIT).unwrap(), &stripped[..]);

        // The other members are the same to any other reader, too.
        let mut members: serde_json::Map<String, Value> = serde_json::from_slice(config).unwrap();
        members.remove(CACHE_KEY);
        let rest: serde_json::Map<String, Value> = serde_json::from_slice(&stripped).unwrap();
        prop_assert_eq!(rest, members);
    }
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}
