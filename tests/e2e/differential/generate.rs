//! Caches to read: builds of many shapes, whole or spoilt a little.
//!
//! All comes of one seed. A case is small as a rule, and now and then as large as an image may be.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// What is wrong with the text of a case, where the config it was made of does not show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Textual {
    /// Cut short, or with more behind it.
    Broken,
    /// A number that is none of Go's `int`.
    NoInteger,
    /// `-0`, which Go reads as 0.
    MinusZero,
    /// Text that is not UTF-8, or half a surrogate pair, for which Go reads U+FFFD.
    NotUnicode,
    /// A field twice, of which the second counts for Go.
    Twice,
    /// A field's name that is ours but for the case of a letter, which is no matter.
    Case,
    /// A field that only BuildKit reads, and cannot.
    Unread,
}

/// A cache config to be read.
#[derive(Debug, Clone)]
pub struct Case {
    pub text: Vec<u8>,
    pub textual: Option<Textual>,
    /// The same with the names of all fields as we write them: see [`Textual::Case`].
    pub usual: Vec<u8>,
}

// === chance ===

/// SplitMix64: enough chance for this, and the same on every machine.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn digest(&mut self) -> String {
        let quarters: Vec<_> = (0..4).map(|_| format!("{:016x}", self.next())).collect();
        format!("sha256:{}", quarters.concat())
    }

    fn permutation(&mut self, length: usize) -> Vec<usize> {
        let mut numbers: Vec<_> = (0..length).collect();
        self.shuffle(&mut numbers);
        numbers
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last + 1));
        }
    }
}

// === whole configs ===

#[derive(Default)]
struct Graph {
    /// Blob and parent.
    layers: Vec<(usize, Option<usize>)>,
    records: Vec<Node>,
    /// How often two records that need not be have one digest, in percent.
    collisions: usize,
}

#[derive(Clone, Default)]
struct Node {
    digest: String,
    inputs: Vec<Vec<(String, usize)>>,
    tops: Vec<usize>,
    chains: Vec<Vec<usize>>,
}

/// Digests that are nowhere in the way of each other.
fn blob(number: usize) -> String {
    format!("sha256:b{number:063x}")
}

fn key(number: usize) -> String {
    format!("sha256:{number:064x}")
}

impl Case {
    pub fn whole(text: Vec<u8>) -> Self {
        Self {
            usual: text.clone(),
            textual: None,
            text,
        }
    }

    /// The case of a seed. `recorded` are caches that BuildKit once wrote.
    pub fn of(seed: u64, recorded: &[Vec<u8>]) -> Self {
        let chance = &mut Chance::new(seed);
        // Neighbouring seeds should share nothing.
        chance.0 = chance.next();
        let mut config = if chance.percent(5) {
            serde_json::from_slice(chance.pick(recorded).as_slice()).unwrap()
        } else {
            let graph = Graph::any(chance);
            // At no time or all at one, now and then.
            let dated = !chance.percent(10);
            let step = usize::from(!chance.percent(10));
            graph.json(dated.then_some(step))
        };
        if chance.percent(40) {
            for _ in 0..chance.within(1, 3) {
                spoil(chance, &mut config);
            }
        }
        let textual = chance.percent(12).then(|| *chance.pick(&TEXTUAL));
        let plain = serde_json::to_vec(&config).unwrap();
        let (text, usual) = match textual {
            None => (plain.clone(), plain),
            Some(kind) => spoil_text(chance, kind, config),
        };
        Self {
            text,
            textual,
            usual,
        }
    }
}

/// A large build as a daemon exports it with `mode=min`: its cache config, and its image's layers.
///
/// The image is a chain of steps that run commands and copy from other stages, a layer each. The
/// other stages have all records beyond two a layer, and no results. Of a copied file both the
/// definition and the content are linked, of a copied local source the content.
pub fn build(records: usize, layers: usize) -> (Vec<u8>, Vec<String>) {
    let chance = &mut Chance::new(1);
    let mut graph = Graph::default();
    for layer in 0..layers {
        graph.layers.push((layer, layer.checked_sub(1)));
    }
    let base = graph.root(chance);
    let others = records - 2 * layers;
    let mut ends = vec![base];
    for stage in 1..layers {
        let mut last = base;
        let end = 1 + others * stage / (layers - 1);
        while graph.records.len() < end {
            last = match chance.below(3) {
                _ if graph.records.len() + 1 == end => graph.add(chance, vec![vec![link(last)]]),
                0 => graph.add(chance, vec![vec![link(last)]]),
                1 => {
                    let source = vec![link(graph.root(chance))];
                    graph.add(chance, vec![vec![link(last)], source])
                }
                _ => {
                    let from = *chance.pick(&ends);
                    graph.copy(chance, last, from)
                }
            };
        }
        ends.push(last);
    }
    let mut last = graph.add(chance, vec![vec![link(base)]]);
    graph.records[last].tops.push(0);
    for (layer, end) in ends.into_iter().enumerate().skip(1) {
        last = graph.copy(chance, last, end);
        graph.records[last].tops.push(layer);
    }
    for record in &mut graph.records {
        record.digest = chance.digest();
    }
    graph.mix(chance);
    let config = serde_json::to_vec(&graph.json(Some(1))).unwrap();
    (config, (0..layers).map(blob).collect())
}

impl Graph {
    fn any(chance: &mut Chance) -> Self {
        let mut graph = Self::default();
        if chance.percent(40) {
            graph.collisions = chance.within(5, 60);
        }
        // Some 1 in 50 is large.
        let large = chance.percent(2);
        let most = if large { 127 } else { chance.within(1, 12) };
        graph.image(chance, most);
        let size = if large { 200 } else { chance.within(1, 25) };
        match chance.below(6) {
            0 => graph.deep(chance, size),
            1 => graph.wide(chance, size),
            2 => graph.diamonds(chance, size / 2 + 1),
            3 => graph.stages(chance, size),
            4 => graph.alternatives(chance, size),
            _ => graph.tangle(chance, size),
        }
        if chance.percent(85) {
            graph.finish(chance);
        }
        graph.results(chance, most);
        if chance.percent(10) {
            graph.repeat(chance);
        }
        if chance.percent(70) {
            graph.mix(chance);
        }
        graph
    }

    /// An image's layers, perhaps one blob more than once; and layers beside it, of the image's
    /// blobs in another order or of other blobs.
    fn image(&mut self, chance: &mut Chance, length: usize) {
        for n in 0..length {
            let blob = if n > 0 && chance.percent(3) {
                chance.below(n)
            } else {
                n
            };
            self.layers.push((blob, n.checked_sub(1)));
        }
        for n in 0..chance.below(5) {
            let blob = if chance.percent(50) {
                chance.below(length)
            } else {
                1000 + n
            };
            let parent = chance.percent(70).then(|| chance.below(self.layers.len()));
            self.layers.push((blob, parent));
        }
    }

    fn add(&mut self, chance: &mut Chance, inputs: Vec<Vec<(String, usize)>>) -> usize {
        let number = self.records.len();
        let mut digest = key(number);
        if number > 0 && chance.percent(self.collisions) {
            // An operation has as many inputs as it has; `spoil` makes others.
            let other = &self.records[chance.below(number)];
            if other.inputs.len() == inputs.len() {
                digest.clone_from(&other.digest);
            }
        }
        self.records.push(Node {
            digest,
            inputs,
            ..Node::default()
        });
        number
    }

    fn root(&mut self, chance: &mut Chance) -> usize {
        self.add(chance, vec![])
    }

    /// A copy onto `to` of something in `from`, known by definition and by content.
    fn copy(&mut self, chance: &mut Chance, to: usize, from: usize) -> usize {
        let content = link(self.root(chance));
        let source = vec![(chance.digest(), from), content];
        self.add(chance, vec![vec![link(to)], source])
    }

    /// Steps in a row, each with its result's content as another source of the next now and then.
    fn deep(&mut self, chance: &mut Chance, size: usize) {
        let mut last = self.root(chance);
        for _ in 0..size {
            let mut links = vec![link(last)];
            if chance.percent(20) {
                links.push(link(self.root(chance)));
            }
            last = self.add(chance, vec![links]);
        }
    }

    /// One step with many inputs, each with many sources.
    fn wide(&mut self, chance: &mut Chance, size: usize) {
        let roots: Vec<_> = (0..size).map(|_| self.root(chance)).collect();
        let mut inputs = Vec::new();
        for _ in 0..chance.within(1, size) {
            let sources = 0..chance.within(1, 4);
            inputs.push(sources.map(|_| selected(chance, &roots)).collect());
        }
        self.add(chance, inputs);
    }

    /// Pairs of steps, each from both of the pair before: as many paths as there can be.
    fn diamonds(&mut self, chance: &mut Chance, levels: usize) {
        let mut pair = [self.root(chance), self.root(chance)];
        for _ in 0..levels {
            let [a, b] = pair;
            pair = if chance.percent(50) {
                let inputs = || vec![vec![link(a)], vec![link(b)]];
                [self.add(chance, inputs()), self.add(chance, inputs())]
            } else {
                let inputs = || vec![vec![link(a), link(b)]];
                [self.add(chance, inputs()), self.add(chance, inputs())]
            };
        }
    }

    /// Stages of steps with copies from one to the other, known by definition and by content.
    fn stages(&mut self, chance: &mut Chance, size: usize) {
        let mut ends = vec![self.root(chance)];
        while self.records.len() < size + 2 {
            let mut last = if chance.percent(50) {
                self.root(chance)
            } else {
                *chance.pick(&ends)
            };
            for _ in 0..chance.within(1, 4) {
                last = if chance.percent(50) {
                    let mut from = vec![selected(chance, &ends)];
                    if chance.percent(60) {
                        from.push(link(self.root(chance)));
                    }
                    self.add(chance, vec![vec![link(last)], from])
                } else {
                    self.add(chance, vec![vec![link(last)]])
                };
            }
            ends.push(last);
        }
    }

    /// One operation with other ancestors, again and again, as a daemon's past leaves it.
    fn alternatives(&mut self, chance: &mut Chance, size: usize) {
        let mut level = vec![self.root(chance), self.root(chance)];
        while self.records.len() < size + 3 {
            let digest = key(self.records.len());
            let mut next = Vec::new();
            let two = chance.percent(30);
            for _ in 0..chance.within(1, 3) {
                let sources = 0..chance.within(1, 2);
                let mut inputs = vec![sources.map(|_| selected(chance, &level)).collect()];
                if two {
                    inputs.push(vec![selected(chance, &level)]);
                }
                let number = self.add(chance, inputs);
                if chance.percent(60) {
                    self.records[number].digest.clone_from(&digest);
                }
                next.push(number);
            }
            level = next;
        }
    }

    fn tangle(&mut self, chance: &mut Chance, size: usize) {
        for _ in 0..size {
            let known: Vec<_> = (0..self.records.len()).collect();
            let mut inputs = Vec::new();
            if !known.is_empty() {
                for _ in 0..chance.below(4) {
                    let sources = 0..chance.within(1, 3);
                    inputs.push(sources.map(|_| selected(chance, &known)).collect());
                }
            }
            self.add(chance, inputs);
        }
    }

    /// A last step, from whatever is last.
    fn finish(&mut self, chance: &mut Chance) {
        let used: BTreeSet<_> = self
            .records
            .iter()
            .flat_map(|n| n.inputs.iter().flatten())
            .collect();
        let used: BTreeSet<_> = used.into_iter().map(|(_, source)| *source).collect();
        let last: Vec<_> = (0..self.records.len())
            .filter(|n| !used.contains(n))
            .collect();
        let mut inputs: Vec<Vec<_>> = Vec::new();
        for n in last {
            match inputs.last_mut() {
                Some(input) if chance.percent(20) => input.push(link(n)),
                _ => inputs.push(vec![link(n)]),
            }
        }
        let number = self.add(chance, inputs);
        self.records[number].digest = key(number);
    }

    /// The image's layers to the last record, some of them to most that have inputs, and other
    /// results now and then.
    fn results(&mut self, chance: &mut Chance, image: usize) {
        let last = self.records.len() - 1;
        let layers = self.layers.len();
        // As in real caches, most have one result a record.
        let more = if chance.percent(30) { 6 } else { 0 };
        for (number, record) in self.records.iter_mut().enumerate() {
            if number == last {
                record.tops.push(image - 1);
                continue;
            }
            match chance.below(100) {
                // In another order than the image's, or with other layers, or both.
                0..5 => record.tops.push(chance.below(layers)),
                5..10 => {
                    let length = chance.within(1, image.min(4));
                    let chain = (0..length).map(|_| chance.below(layers)).collect();
                    record.chains.push(chain);
                }
                n if n < if record.inputs.is_empty() { 20 } else { 75 } => {
                    record.tops.push(chance.below(image));
                }
                _ => {}
            }
            if chance.percent(more) {
                record.tops.push(chance.below(layers));
            }
            if chance.percent(more) {
                let length = chance.within(1, image.min(4));
                record
                    .chains
                    .push((0..length).map(|_| chance.below(layers)).collect());
            }
            if chance.percent(more / 6) {
                record.chains.push(vec![]);
            }
        }
    }

    /// A record once more, and with it perhaps what follows from it; or with one link less.
    fn repeat(&mut self, chance: &mut Chance) {
        for _ in 0..chance.within(1, 3) {
            let number = chance.below(self.records.len());
            let mut copy = self.records[number].clone();
            if chance.percent(50) {
                copy.tops.clear();
                copy.chains.clear();
            }
            if chance.percent(30)
                && let Some(links) = copy.inputs.first_mut()
                && links.len() > 1
            {
                links.pop();
            }
            self.records.push(copy);
            let again = self.records.len() - 1;
            // Sources stay before those that they are sources of; `mix` may follow.
            for user in number + 1..again {
                for (_, source) in self.records[user].inputs.iter_mut().flatten() {
                    if *source == number && chance.percent(50) && again < user {
                        *source = again;
                    }
                }
            }
        }
    }

    /// Everything under other numbers.
    fn mix(&mut self, chance: &mut Chance) {
        let places = chance.permutation(self.layers.len());
        let mut layers = vec![(0, None); self.layers.len()];
        for (old, (blob, parent)) in self.layers.iter().enumerate() {
            layers[places[old]] = (*blob, parent.map(|p| places[p]));
        }
        self.layers = layers;

        let numbers = chance.permutation(self.records.len());
        let mut records = vec![Node::default(); self.records.len()];
        for (old, record) in self.records.iter().enumerate() {
            let mut record = record.clone();
            for layer in record
                .tops
                .iter_mut()
                .chain(record.chains.iter_mut().flatten())
            {
                *layer = places[*layer];
            }
            for links in &mut record.inputs {
                for (_, source) in links.iter_mut() {
                    *source = numbers[*source];
                }
                chance.shuffle(links);
            }
            records[numbers[old]] = record;
        }
        self.records = records;
    }

    /// The config, with results that are `step` seconds apart, if they have a time.
    fn json(&self, step: Option<usize>) -> Value {
        let layer = |(number, parent): &(usize, Option<usize>)| match parent {
            Some(0) => json!({"blob": blob(*number)}),
            Some(parent) => json!({"blob": blob(*number), "parent": parent}),
            None => json!({"blob": blob(*number), "parent": -1}),
        };
        let mut seconds = 0;
        let mut result = |key: &str, value: Value| {
            let mut result = Map::from_iter([(key.to_owned(), value)]);
            if let Some(step) = step {
                seconds += step;
                let (minutes, seconds) = (seconds / 60, seconds % 60);
                let date = format!("2024-02-03T04:{minutes:02}:{seconds:02}Z");
                result.insert("createdAt".into(), date.into());
            }
            Value::from(result)
        };
        let mut record = |node: &Node| {
            let link = |(selector, source): &(String, usize)| match selector.as_str() {
                "" => json!({"link": source}),
                _ => json!({"selector": selector, "link": source}),
            };
            let mut object = Map::new();
            object.insert("digest".into(), node.digest.as_str().into());
            if !node.inputs.is_empty() {
                let input = |links: &Vec<_>| links.iter().map(link).collect::<Value>();
                object.insert("inputs".into(), node.inputs.iter().map(input).collect());
            }
            if !node.tops.is_empty() {
                let tops = node.tops.iter().map(|&n| result("layer", n.into()));
                object.insert("layers".into(), tops.collect());
            }
            if !node.chains.is_empty() {
                let chains = node
                    .chains
                    .iter()
                    .map(|n| result("layers", n.clone().into()));
                object.insert("chains".into(), chains.collect());
            }
            Value::from(object)
        };
        json!({
            "layers": self.layers.iter().map(layer).collect::<Value>(),
            "records": self.records.iter().map(&mut record).collect::<Value>(),
        })
    }
}

fn link(source: usize) -> (String, usize) {
    (String::new(), source)
}

fn selected(chance: &mut Chance, sources: &[usize]) -> (String, usize) {
    let selector = *chance.pick(&["", "", "", "/a", "sha256:selector", "ſelector \" ü"]);
    (selector.to_owned(), *chance.pick(sources))
}

// === near misses ===

/// Changes one thing, which may make a cache of it that must be refused, or another one.
fn spoil(chance: &mut Chance, config: &mut Value) {
    let layers = count(config, "layers");
    let records = count(config, "records");
    let kind = chance.below(14);
    match kind {
        // A number that is off.
        0..=3 => {
            let (keys, bound): (&[&str], _) = match kind {
                0 => (&["link"], records),
                1 => (&["layer"], layers),
                2 => (&["parent"], layers),
                _ => (&["link", "layer", "parent"], records),
            };
            let number = match chance.below(6) {
                0 => json!(bound),
                1 => json!(-1),
                2 => json!(-2),
                3 => json!(i64::MAX),
                _ => json!(chance.below(bound + 1)),
            };
            change(chance, config, keys, |_| number);
        }
        4 => {
            let digest = match chance.below(8) {
                0 => json!(""),
                1 => json!("sha256:"),
                2 => json!(key(1).to_uppercase()),
                3 => json!("random:0123456789abcdef"),
                4 => json!(format!("sha512:{:0128x}", chance.below(9))),
                5 => json!(format!("sha256:{}", "z".repeat(64))),
                6 => json!("md5:d41d8cd98f00b204e9800998ecf8427e"),
                _ => json!(key(chance.below(records + 1))),
            };
            let keys: &[&str] = if chance.percent(70) {
                &["digest"]
            } else {
                &["blob"]
            };
            change(chance, config, keys, |_| digest);
        }
        5 => {
            // Mostly inputs, of which none may be empty.
            let of = *chance.pick(&["inputs", "inputs", "inputs", "chains", "layers", "records"]);
            let empty = if chance.percent(50) {
                json!([])
            } else {
                json!(null)
            };
            change_inside(chance, config, of, |_| empty);
        }
        6 => change(chance, config, &ALL, |_| Value::Null),
        7 => {
            let other = [
                json!("0"),
                json!(0),
                json!([]),
                json!({}),
                json!(true),
                json!([[]]),
            ];
            let other = chance.pick(&other).clone();
            change(chance, config, &ALL, |_| other);
        }
        8 => remove(chance, config, &ALL),
        // A list's element twice: a link, a result, a record, a layer.
        9 => {
            let of = *chance.pick(&["inputs", "chains", "layers", "records"]);
            let at = chance.next() as usize;
            change(chance, config, &[of], |mut list| {
                if let Some(list) = list.as_array_mut()
                    && !list.is_empty()
                {
                    list.push(list[at % list.len()].clone());
                }
                list
            });
        }
        // A link that may close a loop, of records or of layers.
        10 if records > 0 => {
            let (from, to) = (chance.below(records), chance.below(records));
            if let Some(record) = config["records"][from].as_object_mut() {
                let inputs = record.entry("inputs").or_insert_with(|| json!([]));
                if let Some(inputs) = inputs.as_array_mut() {
                    inputs.push(json!([{"link": to}]));
                }
            }
        }
        11 if layers > 0 => {
            let (from, to) = (chance.below(layers), chance.below(layers));
            if let Some(layer) = config["layers"][from].as_object_mut() {
                layer.insert("parent".into(), to.into());
            }
        }
        // Fields that nobody knows, or that only say more.
        12 => change(chance, config, &["records", "layers"], |mut list| {
            if let Some(object) = list.get_mut(0).and_then(Value::as_object_mut) {
                object.insert("other".into(), json!([{"link": -7}, null, "ü"]));
                object.insert("annotations".into(), json!({"size": 7}));
            }
            list
        }),
        _ => change(chance, config, &["createdAt"], |_| {
            json!("1999-12-31T23:59:59.9+01:00")
        }),
    }
}

const ALL: [&str; 10] = [
    "records", "digest", "inputs", "link", "selector", "layers", "layer", "chains", "blob",
    "parent",
];

fn count(config: &Value, of: &str) -> usize {
    config[of].as_array().map_or(0, Vec::len)
}

/// Pointers to all fields of these names, outermost first.
fn fields(config: &Value, keys: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut to_visit = vec![(String::new(), config)];
    while let Some((at, value)) = to_visit.pop() {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let at = format!("{at}/{key}");
                    if keys.contains(&key.as_str()) {
                        found.push(at.clone());
                    }
                    to_visit.push((at, value));
                }
            }
            Value::Array(list) => {
                let elements = list.iter().enumerate();
                to_visit.extend(elements.map(|(n, value)| (format!("{at}/{n}"), value)));
            }
            _ => {}
        }
    }
    found
}

fn change(chance: &mut Chance, config: &mut Value, keys: &[&str], by: impl FnOnce(Value) -> Value) {
    let fields = fields(config, keys);
    if !fields.is_empty()
        && let Some(value) = config.pointer_mut(chance.pick(&fields).as_str())
    {
        *value = by(value.take());
    }
}

/// Changes an element of a list in place of the list.
fn change_inside(
    chance: &mut Chance,
    config: &mut Value,
    key: &str,
    by: impl FnOnce(Value) -> Value,
) {
    let at = chance.next() as usize;
    change(chance, config, &[key], |mut list| {
        if let Some(list) = list.as_array_mut()
            && !list.is_empty()
        {
            let place = at % list.len();
            list[place] = by(list[place].take());
        }
        list
    });
}

fn remove(chance: &mut Chance, config: &mut Value, keys: &[&str]) {
    let fields = fields(config, keys);
    if !fields.is_empty()
        && let Some((parent, key)) = chance.pick(&fields).rsplit_once('/')
        && let Some(Value::Object(object)) = config.pointer_mut(parent)
    {
        object.remove(key);
    }
}

// === what JSON values do not show ===

const TEXTUAL: [Textual; 7] = [
    Textual::Broken,
    Textual::NoInteger,
    Textual::MinusZero,
    Textual::NotUnicode,
    Textual::Twice,
    Textual::Case,
    Textual::Unread,
];

/// Stands for what no JSON value can.
const MARK: &str = "@@";

/// The text with one thing wrong, and the text with the usual names of fields.
fn spoil_text(chance: &mut Chance, kind: Textual, mut config: Value) -> (Vec<u8>, Vec<u8>) {
    let numbers = ["link", "layer", "parent"];
    let (keys, wrong): (&[&str], &[u8]) = match kind {
        Textual::Broken => {
            let mut text = serde_json::to_vec(&config).unwrap();
            match chance.below(3) {
                0 => text.truncate(chance.below(text.len())),
                1 => text.extend(b"}"),
                _ => text.extend(b" null"),
            }
            return (text.clone(), text);
        }
        Textual::NoInteger => {
            let wrong: [&[u8]; 6] = [b"0.0", b"1e0", b"9223372036854775808", b"01", b"+1", b"NaN"];
            (&numbers, *chance.pick(&wrong))
        }
        Textual::MinusZero => (&numbers, b"-0"),
        Textual::NotUnicode => {
            let wrong: [&[u8]; 3] = [b"\"\xff\"", b"\"\\ud800\"", b"\"\\udc00\\ud800\""];
            (&["selector"], *chance.pick(&wrong))
        }
        Textual::Twice if chance.percent(50) => (&["digest"], b"\"sha256:00\",\"digest\":"),
        Textual::Twice => (&["link"], b"-5,\"link\":"),
        Textual::Case => (&ALL, b""),
        Textual::Unread => (&["createdAt"], b"\"yesterday\""),
    };
    let fields = fields(&config, keys);
    if fields.is_empty() {
        let text = serde_json::to_vec(&config).unwrap();
        return (text.clone(), text);
    }
    let at = chance.pick(&fields).clone();
    let (parent, key) = at.rsplit_once('/').unwrap();
    let object = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    let value = object.remove(key).unwrap();
    let mut replacement = wrong.to_vec();
    if matches!(kind, Textual::Twice | Textual::Case) {
        serde_json::to_writer(&mut replacement, &value).unwrap();
    }
    let mut text = |name: String| {
        let object = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        object.insert(name.clone(), MARK.into());
        let text = serde_json::to_string(&config).unwrap();
        let (before, after) = text.split_once(&format!("\"{MARK}\"")).unwrap();
        let object = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        object.remove(&name);
        [before.as_bytes(), &replacement, after.as_bytes()].concat()
    };
    let usual = text(key.to_owned());
    if kind == Textual::Case {
        (text(other_case(chance, key)), usual)
    } else {
        (usual.clone(), usual)
    }
}

/// Another spelling that Go takes for the same, with a long `s` or the sign of the kelvin.
fn other_case(chance: &mut Chance, key: &str) -> String {
    match chance.below(4) {
        0 => key.to_uppercase(),
        1 if key.contains('s') => key.replace('s', "ſ"),
        2 if key.contains('k') => key.replace('k', "\u{212a}"),
        _ => key[..1].to_uppercase() + &key[1..],
    }
}
