//! The JSON of a cache config and of inline records: fields, defaults and counts.
//!
//! The format is BuildKit's (`cache/remotecache/v1/types`), read as Go reads it: unknown fields
//! are skipped, the case of a field's name is ignored, and an absent field and `null` are both
//! the zero value. In three things it is stricter than Go: text must be Unicode, `-0` is no integer,
//! and no field may come twice. Go reads a second list over the elements of the first, so links could be
//! hidden there from a reader that checks them. Elements are counted before they are read, so an oversized
//! array is refused early. [`set`](super::set) checks that numbers are in range.
//!
//! Text is borrowed from the JSON: most of a cache is digests, for which the set has its own type.

use std::{borrow::Cow, cell::Cell, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::Limits;

/// A text, borrowed unless something in it is escaped.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A cache config.
#[derive(Default)]
pub(super) struct RawConfig<'a> {
    pub(super) layers: Vec<RawLayer<'a>>,
    pub(super) records: Vec<RawRecord<'a>>,
}

/// A layer. Its `parent` is -1 for none, so that an absent one is layer 0.
#[derive(Default)]
pub(super) struct RawLayer<'a> {
    pub(super) blob: Text<'a>,
    pub(super) parent: i64,
}

/// A record. `layers` are results given by their topmost layer, `chains` those given in full.
#[derive(Default)]
pub(super) struct RawRecord<'a> {
    pub(super) digest: Text<'a>,
    pub(super) inputs: Vec<Vec<RawLink<'a>>>,
    pub(super) layers: Vec<RawTop>,
    pub(super) chains: Vec<RawChain>,
}

#[derive(Default)]
pub(super) struct RawLink<'a> {
    pub(super) selector: Text<'a>,
    pub(super) link: i64,
}

#[derive(Default)]
pub(super) struct RawTop {
    pub(super) layer: i64,
}

#[derive(Default)]
pub(super) struct RawChain {
    pub(super) layers: Vec<i64>,
}

/// Why the JSON was not read.
pub(super) enum ReadError {
    TooMany { what: &'static str, limit: usize },
    Json(serde_json::Error),
}

/// Reads a whole cache config.
pub(super) fn config<'a>(json: &'a [u8], limits: &Limits) -> Result<RawConfig<'a>, ReadError> {
    let budget = Budget::new(limits);
    budget.read_all(json, Object::new(&budget))
}

/// Reads the array of records of an inline cache.
pub(super) fn records<'a>(
    json: &'a [u8],
    limits: &Limits,
) -> Result<Vec<RawRecord<'a>>, ReadError> {
    let budget = Budget::new(limits);
    budget.read_all(json, budget.objects(&budget.records))
}

// === the fields of each object ===

/// The name of a field. Unknown names are all `Other`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Layers,
    Records,
    Blob,
    Parent,
    Digest,
    Inputs,
    Chains,
    Selector,
    Link,
    Layer,
    Other,
}

impl Name {
    const ALL: [(&str, Self); 10] = [
        ("digest", Self::Digest),
        ("link", Self::Link),
        ("inputs", Self::Inputs),
        ("selector", Self::Selector),
        ("layers", Self::Layers),
        ("layer", Self::Layer),
        ("chains", Self::Chains),
        ("blob", Self::Blob),
        ("parent", Self::Parent),
        ("records", Self::Records),
    ];

    fn of(text: &str) -> Self {
        let find = |same: fn(&str, &str) -> bool| {
            let mut all = Self::ALL.into_iter();
            all.find(|(name, _)| same(name, text))
        };
        find(|name, text| name == text)
            .or_else(|| find(is_same_to_go))
            .map_or(Self::Other, |(_, name)| name)
    }
}

/// Whether Go treats `text` as the field `name`. Case is ignored, and two letters beyond ASCII count as the
/// other case of an ASCII letter.
pub(crate) fn is_same_to_go(name: &str, text: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    text.chars().map(fold).eq(name.chars().map(fold))
}

/// A JSON object whose absent fields are zero.
trait Fields<'de>: Default {
    /// Reads the value of a field. Returns false, and reads nothing, where the object has no such field.
    fn read<M: MapAccess<'de>>(
        &mut self,
        name: Name,
        map: &mut M,
        budget: &Budget,
    ) -> Result<bool, M::Error>;
}

/// Reads a value where `null` is zero.
fn plain<'de, T: Deserialize<'de> + Default, M: MapAccess<'de>>(
    map: &mut M,
) -> Result<T, M::Error> {
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}

impl<'de> Fields<'de> for RawConfig<'de> {
    fn read<M: MapAccess<'de>>(
        &mut self,
        name: Name,
        map: &mut M,
        budget: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            Name::Layers => {
                self.layers = map.next_value_seed(Seed(budget.objects(&budget.layers)))?;
            }
            Name::Records => {
                self.records = map.next_value_seed(Seed(budget.objects(&budget.records)))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de> Fields<'de> for RawLayer<'de> {
    fn read<M: MapAccess<'de>>(
        &mut self,
        name: Name,
        map: &mut M,
        _: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            Name::Blob => self.blob = plain(map)?,
            Name::Parent => self.parent = plain(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de> Fields<'de> for RawRecord<'de> {
    fn read<M: MapAccess<'de>>(
        &mut self,
        name: Name,
        map: &mut M,
        budget: &Budget,
    ) -> Result<bool, M::Error> {
        let links = &budget.links;
        match name {
            Name::Digest => self.digest = plain(map)?,
            Name::Inputs => {
                let inputs = budget.list(&budget.inputs, budget.objects(links));
                self.inputs = map.next_value_seed(Seed(inputs))?;
            }
            Name::Layers => self.layers = map.next_value_seed(Seed(budget.objects(links)))?,
            Name::Chains => self.chains = map.next_value_seed(Seed(budget.objects(links)))?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de> Fields<'de> for RawLink<'de> {
    fn read<M: MapAccess<'de>>(
        &mut self,
        name: Name,
        map: &mut M,
        _: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            Name::Selector => self.selector = plain(map)?,
            Name::Link => self.link = plain(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de> Fields<'de> for RawTop {
    fn read<M: MapAccess<'de>>(
        &mut self,
        name: Name,
        map: &mut M,
        _: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            Name::Layer => self.layer = plain(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl<'de> Fields<'de> for RawChain {
    fn read<M: MapAccess<'de>>(
        &mut self,
        name: Name,
        map: &mut M,
        budget: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            Name::Layers => {
                let numbers = budget.list(&budget.links, Plain::<i64>(PhantomData));
                self.layers = map.next_value_seed(Seed(numbers))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

// === the budget: what may still be read ===

struct Budget {
    layers: Count,
    records: Count,
    inputs: Count,
    links: Count,
    /// The count that was exceeded. serde's errors are text, so it is kept here.
    exceeded: Cell<Option<(&'static str, usize)>>,
}

struct Count {
    what: &'static str,
    limit: usize,
    used: Cell<usize>,
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        let count = |what, limit| Count {
            what,
            limit,
            used: Cell::new(0),
        };
        Self {
            layers: count("layers", limits.layers),
            records: count("records", limits.records),
            // No input may be empty, so there are at most as many inputs as links.
            inputs: count("inputs", limits.links),
            links: count("links and results", limits.links),
            exceeded: Cell::new(None),
        }
    }

    fn read_all<'de, R: Read<'de>>(
        &self,
        json: &'de [u8],
        whole: R,
    ) -> Result<R::Value, ReadError> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        Seed(whole)
            .deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value))
            .map_err(|error| match self.exceeded.get() {
                Some((what, limit)) => ReadError::TooMany { what, limit },
                None => ReadError::Json(error),
            })
    }

    fn list<'b, R>(&'b self, count: &'b Count, each: R) -> List<'b, R> {
        List {
            budget: self,
            count,
            each,
        }
    }

    fn objects<'b, T>(&'b self, count: &'b Count) -> List<'b, Object<'b, T>> {
        self.list(count, Object::new(self))
    }

    fn spend<E: Error>(&self, count: &Count) -> Result<(), E> {
        if count.used.get() == count.limit {
            self.exceeded.set(Some((count.what, count.limit)));
            return Err(E::custom("too many"));
        }
        count.used.set(count.used.get() + 1);
        Ok(())
    }
}

// === reading against the budget ===

/// A way to read a value of a type with a zero value.
trait Read<'de>: Copy {
    type Value: Default;

    fn read<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error>;
}

/// Any value that needs no budget.
struct Plain<T>(PhantomData<T>);

/// An object, field by field.
struct Object<'b, T> {
    budget: &'b Budget,
    kind: PhantomData<T>,
}

/// A list, each element of which is counted before it is read.
#[derive(Clone, Copy)]
struct List<'b, R> {
    budget: &'b Budget,
    count: &'b Count,
    each: R,
}

/// Reads as [`Read`] does, and reads `null` as zero.
struct Seed<R>(R);

impl<T> Clone for Plain<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Plain<T> {}

impl<'de, T: Deserialize<'de> + Default> Read<'de> for Plain<T> {
    type Value = T;

    fn read<D: Deserializer<'de>>(self, value: D) -> Result<T, D::Error> {
        T::deserialize(value)
    }
}

impl<'b, T> Object<'b, T> {
    fn new(budget: &'b Budget) -> Self {
        Self {
            budget,
            kind: PhantomData,
        }
    }
}

impl<T> Clone for Object<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Object<'_, T> {}

impl<'de, T: Fields<'de>> Read<'de> for Object<'_, T> {
    type Value = T;

    fn read<D: Deserializer<'de>>(self, value: D) -> Result<T, D::Error> {
        value.deserialize_map(self)
    }
}

impl<'de, T: Fields<'de>> Visitor<'de> for Object<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<T, M::Error> {
        let mut object = T::default();
        let mut seen = 0_u16;
        while let Some(name) = map.next_key::<Name>()? {
            let bit = 1 << name as u16;
            if name != Name::Other && seen & bit != 0 {
                let named = Name::ALL.iter().find(|(_, known)| *known == name);
                let text = named.map_or("", |(text, _)| text);
                return Err(M::Error::custom(format_args!("duplicate field {text:?}")));
            }
            seen |= bit;
            if !object.read(name, &mut map, self.budget)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(name: D) -> Result<Self, D::Error> {
        struct OfText;

        impl Visitor<'_> for OfText {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                Ok(Name::of(text))
            }
        }

        name.deserialize_str(OfText)
    }
}

impl<'de, R: Read<'de>> Read<'de> for List<'_, R> {
    type Value = Vec<R::Value>;

    fn read<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        value.deserialize_seq(self)
    }
}

impl<'de, R: Read<'de>> Visitor<'de> for List<'_, R> {
    type Value = Vec<R::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let Some(first) = seq.next_element_seed(Element(self))? else {
            return Ok(Vec::new());
        };
        // Most lists have one element. The four that `Vec` reserves for the first push would take most of
        // a cache's memory.
        let mut list = Vec::with_capacity(1);
        list.push(first);
        while let Some(element) = seq.next_element_seed(Element(self))? {
            list.push(element);
        }
        Ok(list)
    }
}

/// An element of a list. It is counted when serde has seen that there is one.
struct Element<'b, R>(List<'b, R>);

impl<'de, R: Read<'de>> DeserializeSeed<'de> for Element<'_, R> {
    type Value = R::Value;

    fn deserialize<D: Deserializer<'de>>(self, element: D) -> Result<R::Value, D::Error> {
        self.0.budget.spend(self.0.count)?;
        Seed(self.0.each).deserialize(element)
    }
}

impl<'de, R: Read<'de>> DeserializeSeed<'de> for Seed<R> {
    type Value = R::Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<R::Value, D::Error> {
        value.deserialize_option(self)
    }
}

impl<'de, R: Read<'de>> Visitor<'de> for Seed<R> {
    type Value = R::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E: Error>(self) -> Result<R::Value, E> {
        Ok(R::Value::default())
    }

    fn visit_unit<E: Error>(self) -> Result<R::Value, E> {
        Ok(R::Value::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<R::Value, D::Error> {
        self.0.read(value)
    }
}
