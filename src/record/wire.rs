//! The JSON of a cache config and of inline records: fields, defaults and counts.
//!
//! The format is BuildKit's (`cache/remotecache/v1/types`), read as Go reads it: unknown fields
//! are skipped, an absent field and `null` are both the zero value, and of a field that comes
//! twice the last counts. Some of Go's liberties are not taken: field names must match in case,
//! text must be Unicode, `-0` is no integer, and a list that comes twice is not read into what
//! the first left behind. Numbers are not yet checked against anything here; that is
//! [`set`](super::set)'s part. What is done here is to count, so that an oversized array is
//! refused before it is held.

use std::{cell::Cell, fmt, marker::PhantomData};

use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::Limits;

/// A cache config.
#[derive(Default)]
pub(super) struct Config {
    pub(super) layers: Vec<Layer>,
    pub(super) records: Vec<Record>,
}

/// A layer. Its `parent` is -1 for none, so that an absent one is layer 0.
#[derive(Default)]
pub(super) struct Layer {
    pub(super) blob: String,
    pub(super) parent: i64,
}

/// A record. `layers` are results given by their topmost layer, `chains` those given in full.
#[derive(Default)]
pub(super) struct Record {
    pub(super) digest: String,
    pub(super) inputs: Vec<Vec<Link>>,
    pub(super) layers: Vec<TopLayer>,
    pub(super) chains: Vec<Chain>,
}

#[derive(Default)]
pub(super) struct Link {
    pub(super) selector: String,
    pub(super) link: i64,
}

#[derive(Default)]
pub(super) struct TopLayer {
    pub(super) layer: i64,
}

#[derive(Default)]
pub(super) struct Chain {
    pub(super) layers: Vec<i64>,
}

/// Why the JSON was not read.
pub(super) enum WireError {
    TooMany { what: &'static str, limit: usize },
    Json(serde_json::Error),
}

/// Reads a whole cache config.
pub(super) fn config(json: &[u8], limits: &Limits) -> Result<Config, WireError> {
    let budget = Budget::new(limits);
    budget.read_all(json, Object::new(&budget))
}

/// Reads the array of records of an inline cache.
pub(super) fn records(json: &[u8], limits: &Limits) -> Result<Vec<Record>, WireError> {
    let budget = Budget::new(limits);
    budget.read_all(json, budget.objects(&budget.records))
}

// === the fields of each object ===

/// A JSON object whose absent fields are zero.
trait Fields: Default {
    /// Reads the value of field `name`; false, with nothing read, where it is none of ours.
    fn read<'de, M: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut M,
        budget: &Budget,
    ) -> Result<bool, M::Error>;
}

/// Reads a value where `null` is zero.
fn plain<'de, T: DeserializeOwned + Default, M: MapAccess<'de>>(
    map: &mut M,
) -> Result<T, M::Error> {
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}

impl Fields for Config {
    fn read<'de, M: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut M,
        budget: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            "layers" => self.layers = map.next_value_seed(Seed(budget.objects(&budget.layers)))?,
            "records" => {
                self.records = map.next_value_seed(Seed(budget.objects(&budget.records)))?
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Fields for Layer {
    fn read<'de, M: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut M,
        _: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            "blob" => self.blob = plain(map)?,
            "parent" => self.parent = plain(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Fields for Record {
    fn read<'de, M: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut M,
        budget: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            "digest" => self.digest = plain(map)?,
            "inputs" => {
                let links = budget.objects(&budget.links);
                self.inputs = map.next_value_seed(Seed(budget.list(&budget.inputs, links)))?;
            }
            "layers" => self.layers = map.next_value_seed(Seed(budget.objects(&budget.links)))?,
            "chains" => self.chains = map.next_value_seed(Seed(budget.objects(&budget.links)))?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Fields for Link {
    fn read<'de, M: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut M,
        _: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            "selector" => self.selector = plain(map)?,
            "link" => self.link = plain(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Fields for TopLayer {
    fn read<'de, M: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut M,
        _: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            "layer" => self.layer = plain(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Fields for Chain {
    fn read<'de, M: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut M,
        budget: &Budget,
    ) -> Result<bool, M::Error> {
        match name {
            "layers" => {
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
    /// The count that ran out. Serde's errors are text; this keeps ours typed.
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
            // None of them may be empty, so there are no more of them than links.
            inputs: count("inputs", limits.links),
            links: count("links and results", limits.links),
            exceeded: Cell::new(None),
        }
    }

    fn read_all<R: Read>(&self, json: &[u8], whole: R) -> Result<R::Value, WireError> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        Seed(whole)
            .deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value))
            .map_err(|error| match self.exceeded.get() {
                Some((what, limit)) => WireError::TooMany { what, limit },
                None => WireError::Json(error),
            })
    }

    fn list<'b, R: Read>(&'b self, count: &'b Count, each: R) -> List<'b, R> {
        List {
            budget: self,
            count,
            each,
        }
    }

    fn objects<'b, T: Fields>(&'b self, count: &'b Count) -> List<'b, Object<'b, T>> {
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

/// A way to read a value that has a zero.
trait Read: Copy {
    type Value: Default;

    fn read<'de, D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error>;
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

/// What [`Read`] reads, and zero where `null` stands instead.
struct Seed<R>(R);

impl<T> Clone for Plain<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Plain<T> {}

impl<T: DeserializeOwned + Default> Read for Plain<T> {
    type Value = T;

    fn read<'de, D: Deserializer<'de>>(self, value: D) -> Result<T, D::Error> {
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

impl<T: Fields> Read for Object<'_, T> {
    type Value = T;

    fn read<'de, D: Deserializer<'de>>(self, value: D) -> Result<T, D::Error> {
        value.deserialize_map(self)
    }
}

impl<'de, T: Fields> Visitor<'de> for Object<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<T, M::Error> {
        let mut object = T::default();
        while let Some(name) = map.next_key::<String>()? {
            if !object.read(&name, &mut map, self.budget)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

impl<R: Read> Read for List<'_, R> {
    type Value = Vec<R::Value>;

    fn read<'de, D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        value.deserialize_seq(self)
    }
}

impl<'de, R: Read> Visitor<'de> for List<'_, R> {
    type Value = Vec<R::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element_seed(Element(self))? {
            list.push(element);
        }
        Ok(list)
    }
}

/// An element of a list; serde asks for it only once it has seen that there is one.
struct Element<'b, R>(List<'b, R>);

impl<'de, R: Read> DeserializeSeed<'de> for Element<'_, R> {
    type Value = R::Value;

    fn deserialize<D: Deserializer<'de>>(self, element: D) -> Result<R::Value, D::Error> {
        self.0.budget.spend(self.0.count)?;
        Seed(self.0.each).deserialize(element)
    }
}

impl<'de, R: Read> DeserializeSeed<'de> for Seed<R> {
    type Value = R::Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<R::Value, D::Error> {
        value.deserialize_option(self)
    }
}

impl<'de, R: Read> Visitor<'de> for Seed<R> {
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
