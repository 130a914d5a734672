//! The imports that a client names, wherever in its requests it names them.
//!
//! Pure: messages in, messages out. It knows where an import stands in a request, and nothing of
//! what becomes of it.
//!
//! A client names its imports in the message of a solve, and again, as JSON, among the options of
//! the frontend: `cache-imports` (`[{"Type":…,"Attrs":{…}}]`), or the older `cache-from`, a list of
//! refs (`frontend/dockerui/config.go` of BuildKit).

use std::cell::Cell;
use std::collections::BTreeMap;

use prost::Message as _;
use serde_json::{Map, Value};

use super::proto::{control, gateway};
use super::wire::{self, Edit, WireError};

/// The frontend's options with imports.
const CACHE_IMPORTS: &str = "cache-imports";
const CACHE_FROM: &str = "cache-from";
/// The fields of JSON imports.
const TYPE: &str = "Type";
const ATTRS: &str = "Attrs";

/// The kinds of imports that may be of images.
const INLINE: &str = "inline";
/// An import from a registry.
pub const REGISTRY: &str = "registry";
/// The attribute that names the image.
pub const REF: &str = "ref";
/// The attribute by which a registry is spoken to without TLS, or without a look at its certificate.
pub const INSECURE: &str = "registry.insecure";

/// An import as a client names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// What kind of importer it is for.
    pub kind: String,
    /// What it says to that.
    pub attrs: BTreeMap<String, String>,
}

/// What becomes of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Keep,
    /// It does not go on.
    Drop,
    /// It goes on as others.
    Replace(Vec<Entry>),
}

/// All imports of a solve request, each once.
pub fn of_solve(request: &control::SolveRequest) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(cache) = &request.cache {
        let refs = &cache.import_refs_deprecated;
        let named = cache
            .imports
            .iter()
            .map(|import| Entry::new(&import.r#type, &import.attrs));
        entries.extend(named);
        entries.extend(refs.iter().map(|reference| Entry::registry(reference)));
    }
    let option = |name: &str| request.frontend_attrs.get(name);
    if let Some(imports) = option(CACHE_IMPORTS).and_then(|text| imports(text)) {
        entries.extend(imports.iter().filter_map(Entry::read));
    }
    if let Some(from) = option(CACHE_FROM) {
        entries.extend(refs(from).map(Entry::registry));
    }
    entries.sort();
    entries.dedup();
    entries
}

/// Whether an encoded gateway solve request names one of these imports.
///
/// # Errors
/// Where it is no protobuf message.
pub fn are_named(message: &[u8], entries: &[Entry]) -> Result<bool, WireError> {
    let named = Cell::new(false);
    in_gateway_solve(message, |entry| {
        named.set(named.get() || entries.contains(entry));
        Verdict::Keep
    })?;
    Ok(named.get())
}

/// The encoded gateway solve request with each import as `verdict` says.
///
/// # Errors
/// Where it is no protobuf message.
pub fn in_gateway_solve(
    message: &[u8],
    verdict: impl Fn(&Entry) -> Verdict,
) -> Result<Vec<u8>, WireError> {
    const FRONTEND_OPT: u32 = 3;
    const IMPORT_REFS: u32 = 4;
    const IMPORTS: u32 = 12;
    const ENTRY_KEY: u32 = 1;
    const ENTRY_VALUE: u32 = 2;

    let options = Options::of(message, FRONTEND_OPT)?.judged(&verdict);
    let mut more = Vec::new();
    let mut edited = wire::rewrite(message, |number, value| {
        let entry = match number {
            FRONTEND_OPT if options.is_some() => {
                let (key, _) = wire::map_entry(value)?;
                let has_imports = key == CACHE_IMPORTS || key == CACHE_FROM;
                return Ok(if has_imports { Edit::Drop } else { Edit::Keep });
            }
            IMPORT_REFS => std::str::from_utf8(value).ok().map(Entry::registry),
            IMPORTS => gateway::CacheOptionsEntry::decode(value)
                .ok()
                .map(|import| Entry::new(&import.r#type, &import.attrs)),
            _ => None,
        };
        Ok::<_, WireError>(match entry.map(|entry| verdict(&entry)) {
            None | Some(Verdict::Keep) => Edit::Keep,
            Some(Verdict::Drop) => Edit::Drop,
            Some(Verdict::Replace(entries)) => {
                more.extend(entries);
                Edit::Drop
            }
        })
    })?;
    for entry in more {
        wire::put(&mut edited, IMPORTS, &entry.encode());
    }
    if let Some(imports) = options {
        let mut option = Vec::new();
        wire::put(&mut option, ENTRY_KEY, CACHE_IMPORTS.as_bytes());
        wire::put(&mut option, ENTRY_VALUE, imports.as_bytes());
        wire::put(&mut edited, FRONTEND_OPT, &option);
    }
    Ok(edited)
}

/// The frontend's options with imports.
#[derive(Default)]
struct Options {
    imports: Vec<Value>,
}

// === impl Entry ===

impl Entry {
    fn new<'a>(kind: &str, attrs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let attrs = attrs.into_iter().map(|(k, v)| (k.clone(), v.clone()));
        Self {
            kind: kind.to_owned(),
            attrs: attrs.collect(),
        }
    }

    fn registry(reference: &str) -> Self {
        Self {
            kind: REGISTRY.to_owned(),
            attrs: [(REF.to_owned(), reference.to_owned())].into(),
        }
    }

    /// The image that it names, if it may name one.
    pub fn image(&self) -> Option<&str> {
        let names_images = self.kind == INLINE || self.kind == REGISTRY;
        let reference = self.attrs.get(REF).filter(|_| names_images)?;
        Some(reference.as_str())
    }

    fn read(import: &Value) -> Option<Self> {
        let attrs = match import.get(ATTRS) {
            None | Some(Value::Null) => &Map::new(),
            Some(attrs) => attrs.as_object()?,
        };
        let attrs = attrs
            .iter()
            .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        Some(Self {
            kind: import.get(TYPE)?.as_str()?.to_owned(),
            attrs: attrs.collect::<Option<_>>()?,
        })
    }

    /// As JSON.
    fn write(&self) -> Value {
        let attrs = self.attrs.iter();
        let attrs = attrs.map(|(key, value)| (key.clone(), value.clone().into()));
        let fields = [
            (TYPE.to_owned(), self.kind.clone().into()),
            (ATTRS.to_owned(), Value::Object(attrs.collect())),
        ];
        Value::Object(fields.into_iter().collect())
    }

    fn encode(self) -> Vec<u8> {
        let import = gateway::CacheOptionsEntry {
            r#type: self.kind,
            attrs: self.attrs.into_iter().collect(),
        };
        import.encode_to_vec()
    }
}

// === impl Options ===

impl Options {
    fn of(message: &[u8], field: u32) -> Result<Self, WireError> {
        let mut options = Self::default();
        let mut from = Vec::new();
        for option in wire::fields(message) {
            let option = option?;
            let Some(entry) = option.value.filter(|_| option.number == field) else {
                continue;
            };
            let (key, value) = wire::map_entry(entry)?;
            let value = String::from_utf8_lossy(value);
            match &*key {
                // Of a key that comes twice the last counts.
                CACHE_IMPORTS => options.imports = imports(&value).unwrap_or_default(),
                CACHE_FROM => from = refs(&value).map(|r| Entry::registry(r).write()).collect(),
                _ => {}
            }
        }
        options.imports.append(&mut from);
        Ok(options)
    }

    /// All imports as one option, each as `verdict` says; `None` where all of them stay.
    fn judged(self, verdict: impl Fn(&Entry) -> Verdict) -> Option<String> {
        let mut changed = false;
        let mut judged = Vec::with_capacity(self.imports.len());
        for import in self.imports {
            match Entry::read(&import).map_or(Verdict::Keep, |entry| verdict(&entry)) {
                Verdict::Keep => judged.push(import),
                Verdict::Drop => changed = true,
                Verdict::Replace(entries) => {
                    changed = true;
                    judged.extend(entries.iter().map(Entry::write));
                }
            }
        }
        changed.then(|| Value::Array(judged).to_string())
    }
}

fn imports(option: &str) -> Option<Vec<Value>> {
    serde_json::from_str(option).ok()
}

fn refs(option: &str) -> impl Iterator<Item = &str> {
    option.split(',').filter(|reference| !reference.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const JSON: &str = r#"[{"Type":"inline","Attrs":{"ref":"a"}},{"Type":"gha","More":1}]"#;

    fn inline(reference: &str) -> Entry {
        Entry {
            kind: "inline".to_owned(),
            ..Entry::registry(reference)
        }
    }

    fn request() -> Vec<u8> {
        let import = |kind: &str, reference: &str| gateway::CacheOptionsEntry {
            r#type: kind.to_owned(),
            attrs: HashMap::from([("ref".to_owned(), reference.to_owned())]),
        };
        let request = gateway::SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            frontend_opt: HashMap::from([
                ("cache-imports".to_owned(), JSON.to_owned()),
                ("cache-from".to_owned(), "b,c".to_owned()),
                ("filename".to_owned(), "Dockerfile".to_owned()),
            ]),
            cache_imports: vec![import("inline", "a"), import("registry", "d")],
            ..Default::default()
        };
        let mut message = request.encode_to_vec();
        wire::put(&mut message, 4, b"e");
        wire::put(&mut message, 900, b"unknown");
        message
    }

    #[test]
    fn imports_that_stay_leave_the_message_as_it_was() {
        let message = request();
        let seen = std::cell::RefCell::new(Vec::new());
        let kept = in_gateway_solve(&message, |entry| {
            seen.borrow_mut().push(entry.clone());
            Verdict::Keep
        });
        assert_eq!(kept.unwrap(), message);
        let mut seen = seen.into_inner();
        seen.sort();
        seen.dedup();
        let gha = Entry {
            kind: "gha".to_owned(),
            attrs: BTreeMap::new(),
        };
        let registry = ["b", "c", "d", "e"].map(Entry::registry);
        let expected: Vec<_> = [gha, inline("a")].into_iter().chain(registry).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn imports_are_changed_wherever_they_stand() {
        let changed = in_gateway_solve(&request(), |entry| match entry.attrs.get("ref") {
            Some(name) if name == "a" => Verdict::Replace(vec![inline("A")]),
            Some(name) if name == "c" || name == "d" => Verdict::Drop,
            Some(name) if name == "e" => Verdict::Replace(vec![inline("E"), inline("F")]),
            _ => Verdict::Keep,
        })
        .unwrap();
        let sent = gateway::SolveRequest::decode(&changed[..]).unwrap();
        let entries = |imports: &[gateway::CacheOptionsEntry]| -> Vec<_> {
            let entries = imports.iter();
            entries.map(|i| Entry::new(&i.r#type, &i.attrs)).collect()
        };
        assert_eq!(
            entries(&sent.cache_imports),
            [inline("A"), inline("E"), inline("F")]
        );
        assert_eq!(sent.frontend_opt.len(), 2);
        let option: Value = serde_json::from_str(&sent.frontend_opt["cache-imports"]).unwrap();
        let expected = serde_json::json!([
            {"Type": "inline", "Attrs": {"ref": "A"}},
            {"Type": "gha", "More": 1},
            {"Type": "registry", "Attrs": {"ref": "b"}},
        ]);
        assert_eq!(option, expected);
        let unknown = wire::fields(&changed).find(|field| field.as_ref().unwrap().number == 900);
        assert_eq!(unknown.unwrap().unwrap().value, Some(&b"unknown"[..]));
    }

    #[test]
    fn a_solve_request_names_each_import_once() {
        let request = control::SolveRequest {
            frontend_attrs: HashMap::from([
                ("cache-imports".to_owned(), JSON.to_owned()),
                ("cache-from".to_owned(), "b".to_owned()),
            ]),
            cache: Some(control::CacheOptions {
                import_refs_deprecated: vec!["b".to_owned()],
                imports: vec![control::CacheOptionsEntry {
                    r#type: "inline".to_owned(),
                    attrs: HashMap::from([("ref".to_owned(), "a".to_owned())]),
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let kinds: Vec<_> = of_solve(&request).into_iter().map(|e| e.kind).collect();
        assert_eq!(kinds, ["gha", "inline", "registry"]);
    }
}
