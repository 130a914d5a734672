//! Finds and replaces the cache imports in a client's requests.
//!
//! A client names its imports in the message of a solve, and again, as JSON, among the options of
//! the frontend: `cache-imports` (`[{"Type":…,"Attrs":{…}}]`), or the older `cache-from`, a list of
//! refs (`frontend/dockerui/config.go` of BuildKit).

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Map, Value};

use super::proto::{control, gateway};
use super::wire::{self, Edit, WireError};

/// The frontend's options with imports.
const CACHE_IMPORTS: &str = "cache-imports";
const CACHE_FROM: &str = "cache-from";
/// The fields of a gateway solve request with imports.
const FRONTEND_OPT: u32 = 3;
const IMPORT_REFS: u32 = 4;
const IMPORTS: u32 = 12;
/// The fields of JSON imports.
const TYPE: &str = "Type";
const ATTRS: &str = "Attrs";

/// The type of an import of an image at any location.
pub const INLINE: &str = "inline";
/// The type of an import from a registry: of an image or of a cache export.
pub const REGISTRY: &str = "registry";
/// The attribute that names the image.
pub const REF: &str = "ref";
/// The attribute that allows a registry without TLS, or with a certificate that is not verified.
pub const INSECURE: &str = "registry.insecure";

/// An import as a client names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The type of the import.
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
}

/// What becomes of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is forwarded as it is.
    Keep,
    /// It is left out of the request.
    Drop,
    /// These imports are forwarded in its place.
    Replace(Vec<Entry>),
}

/// The imports that a request names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Each once.
    pub entries: Vec<Entry>,
    /// How many more there are that cannot be read. An option that is no list counts as one.
    pub unreadable: usize,
}

/// A request with its imports replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    /// Encoded.
    pub message: Vec<u8>,
    /// How many imports were dropped because they cannot be read.
    pub unreadable: usize,
}

/// All imports of a solve request.
pub fn of_solve(request: &control::SolveRequest) -> Named {
    let mut entries = Vec::new();
    let mut unreadable = 0;
    if let Some(cache) = &request.cache {
        let refs = &cache.import_refs_deprecated;
        let named = cache
            .imports
            .iter()
            .map(|import| Entry::new(&import.r#type, &import.attrs));
        entries.extend(named);
        entries.extend(refs.iter().map(|reference| Entry::registry(reference)));
    }
    if let Some(option) = request.frontend_attrs.get(CACHE_IMPORTS) {
        for import in imports(option) {
            match import.as_ref().and_then(Entry::read) {
                Some(entry) => entries.push(entry),
                None => unreadable += 1,
            }
        }
    }
    if let Some(from) = text(&request.frontend_attrs, CACHE_FROM) {
        entries.extend(refs(from).map(Entry::registry));
    }
    entries.sort();
    entries.dedup();
    Named {
        entries,
        unreadable,
    }
}

/// An option of the frontend that is text.
pub(super) fn text<'a>(options: &'a HashMap<String, Bytes>, name: &str) -> Option<&'a str> {
    std::str::from_utf8(options.get(name)?).ok()
}

/// All imports of an encoded gateway solve request.
///
/// # Errors
/// Where it is no protobuf message.
pub fn of_gateway_solve(message: &[u8]) -> Result<Named, WireError> {
    let options = Options::of(message)?;
    let named = options.imports.iter().filter_map(Entry::read);
    let mut entries: Vec<_> = named.collect();
    for field in wire::fields(message) {
        let field = field?;
        if let Some(value) = field.value {
            entries.extend(Entry::of_field(field.number, value)?);
        }
    }
    entries.sort();
    entries.dedup();
    Ok(Named {
        entries,
        unreadable: options.unreadable,
    })
}

/// The encoded gateway solve request with each import as `verdict` says. Imports that cannot be read are
/// dropped, since they could be ones to drop.
///
/// # Errors
/// Where it is no protobuf message.
pub fn in_gateway_solve(
    message: &[u8],
    verdict: impl Fn(&Entry) -> Verdict,
) -> Result<Judged, WireError> {
    const ENTRY_KEY: u32 = 1;
    const ENTRY_VALUE: u32 = 2;

    let options = Options::of(message)?;
    let unreadable = options.unreadable;
    let options = options.judged(&verdict);
    let mut more = Vec::new();
    let mut edited = wire::rewrite(message, |number, value| {
        let entry = match number {
            FRONTEND_OPT if options.is_some() => {
                let (key, _) = wire::map_entry(value)?;
                let has_imports = key == CACHE_IMPORTS || key == CACHE_FROM;
                return Ok(if has_imports { Edit::Drop } else { Edit::Keep });
            }
            _ => Entry::of_field(number, value)?,
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
    Ok(Judged {
        message: edited,
        unreadable,
    })
}

/// The frontend's options with imports.
#[derive(Default)]
struct Options {
    imports: Vec<Value>,
    /// How many more cannot be read.
    unreadable: usize,
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

    /// The import in a field of a gateway solve request, if the field has one.
    fn of_field(number: u32, value: &[u8]) -> Result<Option<Self>, WireError> {
        Ok(match number {
            IMPORT_REFS => Some(Self::registry(&String::from_utf8_lossy(value))),
            IMPORTS => Some(Self::decode(value)?),
            _ => None,
        })
    }

    /// Reads an encoded import. Its text may be invalid UTF-8, since the daemon accepts that.
    fn decode(import: &[u8]) -> Result<Self, WireError> {
        const KIND: u32 = 1;
        const ENTRY: u32 = 2;
        let mut entry = Self {
            kind: String::new(),
            attrs: BTreeMap::new(),
        };
        for field in wire::fields(import) {
            let field = field?;
            match (field.number, field.value) {
                (KIND, Some(kind)) => entry.kind = String::from_utf8_lossy(kind).into_owned(),
                (ENTRY, Some(attr)) => {
                    let (name, value) = wire::map_entry(attr)?;
                    let value = String::from_utf8_lossy(value).into_owned();
                    entry.attrs.insert(name.into_owned(), value);
                }
                _ => {}
            }
        }
        Ok(entry)
    }

    fn read(import: &Value) -> Option<Self> {
        let fields = import.as_object()?;
        // Go ignores the case of names, and treats the long s as an s.
        let only = |name: &str| {
            let mut named = fields.iter().filter(|(field, _)| {
                let field = field.replace('\u{17f}', "s");
                field.eq_ignore_ascii_case(name)
            });
            match (named.next(), named.next()) {
                (Some(_), Some(_)) => None,
                (field, _) => Some(field.map(|(_, value)| value)),
            }
        };
        let attrs = match only(ATTRS)? {
            None | Some(Value::Null) => &Map::new(),
            Some(attrs) => attrs.as_object()?,
        };
        let attrs = attrs
            .iter()
            .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        Some(Self {
            kind: only(TYPE)??.as_str()?.to_owned(),
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
    fn of(message: &[u8]) -> Result<Self, WireError> {
        let mut options = Self::default();
        let mut from = Vec::new();
        for option in wire::fields(message) {
            let option = option?;
            let Some(entry) = option.value.filter(|_| option.number == FRONTEND_OPT) else {
                continue;
            };
            let (key, value) = wire::map_entry(entry)?;
            match &*key {
                // If a key comes twice, the last one counts.
                CACHE_IMPORTS => {
                    let all = imports(value);
                    let number = all.len();
                    let can_be_read = |import: &Value| Entry::read(import).is_some();
                    let readable = all.into_iter().flatten().filter(can_be_read);
                    options.imports = readable.collect();
                    options.unreadable = number - options.imports.len();
                }
                CACHE_FROM => {
                    let value = String::from_utf8_lossy(value);
                    from = refs(&value).map(|r| Entry::registry(r).write()).collect();
                }
                _ => {}
            }
        }
        options.imports.append(&mut from);
        Ok(options)
    }

    /// All imports as one option, each as `verdict` says; `None` where all of them stay.
    fn judged(self, verdict: impl Fn(&Entry) -> Verdict) -> Option<String> {
        let mut changed = self.unreadable > 0;
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

/// The imports of an option. If it is no JSON list, that is one import that cannot be read (`None`).
fn imports(option: &[u8]) -> Vec<Option<Value>> {
    match serde_json::from_slice::<Option<Vec<Value>>>(option) {
        Ok(imports) => imports.into_iter().flatten().map(Some).collect(),
        Err(_) if option.is_empty() => Vec::new(),
        Err(_) => vec![None],
    }
}

fn refs(option: &str) -> impl Iterator<Item = &str> {
    option.split(',').filter(|reference| !reference.is_empty())
}

#[cfg(test)]
mod tests {
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
                ("cache-imports".to_owned(), JSON.into()),
                ("cache-from".to_owned(), "b,c".into()),
                ("filename".to_owned(), "Dockerfile".into()),
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
        let kept = in_gateway_solve(&message, |_| Verdict::Keep).unwrap();
        assert_eq!((&kept.message, kept.unreadable), (&message, 0));
        let seen = of_gateway_solve(&message).unwrap().entries;
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
        let changed = changed.message;
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
        let option: Value = serde_json::from_slice(&sent.frontend_opt["cache-imports"]).unwrap();
        let expected = serde_json::json!([
            {"Type": "inline", "Attrs": {"ref": "A"}},
            {"Type": "gha", "More": 1},
            {"Type": "registry", "Attrs": {"ref": "b"}},
        ]);
        assert_eq!(option, expected);
        let unknown = wire::fields(&changed).find(|field| field.as_ref().unwrap().number == 900);
        assert_eq!(unknown.unwrap().unwrap().value, Some(&b"unknown"[..]));
    }

    /// Go reads each of them: names in another case, half of a surrogate pair, text that is no UTF-8.
    #[test]
    fn what_go_reads_does_not_pass_unread() {
        let option = |json: &[u8]| {
            let request = gateway::SolveRequest {
                frontend_opt: [(CACHE_IMPORTS.to_owned(), json.to_vec().into())].into(),
                ..Default::default()
            };
            request.encode_to_vec()
        };
        let dropped = |message: &[u8]| {
            let judged = in_gateway_solve(message, |entry| {
                assert_eq!(entry.image(), Some("a"));
                Verdict::Drop
            });
            let judged = judged.unwrap();
            let sent = gateway::SolveRequest::decode(&judged.message[..]).unwrap();
            assert!(sent.cache_imports.is_empty());
            (judged.unreadable, sent.frontend_opt.into_values().next())
        };
        let none = Some("[]".into());
        let spelled = option(br#"[{"type":"registry","ATTRS":{"ref":"a"}}]"#);
        assert_eq!(dropped(&spelled), (0, none.clone()));
        for unreadable in [
            &br#"[{"Type":"registry","Attrs":{"ref":"a","b":"\ud800"}}]"#[..],
            b"[{\"Type\":\"registry\",\"Attrs\":{\"ref\":\"a\",\"b\":\"\xff\"}}]",
            br#"[{"Type":"registry","Attrs":{"ref":"a"},"attrs":{"ref":"b"}}]"#,
            br#"[null]"#,
            br#"{"#,
        ] {
            let unreadable = option(unreadable);
            assert_eq!(dropped(&unreadable), (1, none.clone()));
            assert_eq!(of_gateway_solve(&unreadable).unwrap().unreadable, 1);
        }
        let mut import = Entry::registry("a").encode();
        wire::put(&mut import, 2, b"\x0a\x01b\x12\x01\xff");
        let mut message = Vec::new();
        wire::put(&mut message, 12, &import);
        assert_eq!(dropped(&message), (0, None));
        for nothing in [&b""[..], b"null", b"[]"] {
            assert_eq!(
                of_gateway_solve(&option(nothing)).unwrap(),
                Named::default()
            );
        }
    }

    #[test]
    fn a_solve_request_names_each_import_once() {
        let request = control::SolveRequest {
            frontend_attrs: HashMap::from([
                ("cache-imports".to_owned(), JSON.into()),
                ("cache-from".to_owned(), "b".into()),
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
        let named = of_solve(&request);
        assert_eq!(named.unreadable, 0);
        let kinds: Vec<_> = named.entries.into_iter().map(|e| e.kind).collect();
        assert_eq!(kinds, ["gha", "inline", "registry"]);
    }
}
