//! JSON as Go's `encoding/json` writes structs, byte for byte, for the kinds of fields that cache
//! digests are made of.

use crate::cache::record::base64;

/// A JSON object under construction. Fields are written in the order of the calls; as with Go's
/// `omitempty`, an empty value leaves its field out, unless the method says otherwise.
pub(super) struct Object {
    out: Vec<u8>,
    /// Cleared by a value whose encoding differs among versions of Go.
    stable: bool,
}

impl Object {
    pub(super) fn new() -> Self {
        Self {
            out: vec![b'{'],
            stable: true,
        }
    }

    /// The bytes. `None` if versions of Go write them differently.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        self.out.push(b'}');
        self.stable.then_some(self.out)
    }

    pub(super) fn string(self, name: &str, value: &str) -> Self {
        if value.is_empty() {
            return self;
        }
        self.always(name, value)
    }

    /// A string that is written even if empty.
    pub(super) fn always(mut self, name: &str, value: &str) -> Self {
        self.key(name);
        self.quote(value);
        self
    }

    pub(super) fn int(self, name: &str, value: impl Into<i64>) -> Self {
        match value.into() {
            0 => self,
            value => self.always_int(name, value),
        }
    }

    /// A number that is written even if 0.
    pub(super) fn always_int(mut self, name: &str, value: i64) -> Self {
        self.key(name);
        self.out.extend(value.to_string().bytes());
        self
    }

    pub(super) fn flag(mut self, name: &str, value: bool) -> Self {
        if value {
            self.key(name);
            self.out.extend(b"true");
        }
        self
    }

    pub(super) fn strings(mut self, name: &str, values: &[String]) -> Self {
        if values.is_empty() {
            return self;
        }
        self.key(name);
        self.list(values, |this, value| this.quote(value));
        self
    }

    pub(super) fn ints(mut self, name: &str, values: &[i32]) -> Self {
        if values.is_empty() {
            return self;
        }
        self.key(name);
        self.list(values, |this, value| {
            this.out.extend(value.to_string().bytes());
        });
        self
    }

    /// A list of lists of numbers.
    pub(super) fn triples(mut self, name: &str, values: &[[i64; 3]]) -> Self {
        if values.is_empty() {
            return self;
        }
        self.key(name);
        self.list(values, |this, value| {
            this.list(value, |this, number| {
                this.out.extend(number.to_string().bytes());
            });
        });
        self
    }

    /// A `[]byte`.
    pub(super) fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        if !value.is_empty() {
            self.key(name);
            self.base64(value);
        }
        self
    }

    /// A `[][]byte` that is written even if empty.
    pub(super) fn always_blobs(mut self, name: &str, values: &[Vec<u8>]) -> Self {
        self.key(name);
        self.list(values, |this, value| this.base64(value));
        self
    }

    /// A pointer to a struct.
    pub(super) fn object(self, name: &str, value: Option<Object>) -> Self {
        match value {
            Some(value) => self.always_object(name, value),
            None => self,
        }
    }

    /// A struct that is written even if empty.
    pub(super) fn always_object(mut self, name: &str, value: Object) -> Self {
        self.key(name);
        self.embed(value);
        self
    }

    /// A list of pointers to structs.
    pub(super) fn objects<T>(
        mut self,
        name: &str,
        values: &[T],
        object: impl Fn(&T) -> Object,
    ) -> Self {
        if values.is_empty() {
            return self;
        }
        self.key(name);
        self.list(values, |this, value| this.embed(object(value)));
        self
    }

    fn key(&mut self, name: &str) {
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        self.quote(name);
        self.out.push(b':');
    }

    fn embed(&mut self, value: Object) {
        self.stable &= value.stable;
        self.out.extend(value.out);
        self.out.push(b'}');
    }

    fn list<T>(&mut self, values: &[T], write: impl Fn(&mut Self, &T)) {
        self.out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            write(self, value);
        }
        self.out.push(b']');
    }

    fn base64(&mut self, value: &[u8]) {
        self.out.push(b'"');
        self.out.extend(base64::encode(value).bytes());
        self.out.push(b'"');
    }

    fn quote(&mut self, value: &str) {
        self.out.push(b'"');
        for char in value.chars() {
            match char {
                '"' => self.out.extend(b"\\\""),
                '\\' => self.out.extend(b"\\\\"),
                '\n' => self.out.extend(b"\\n"),
                '\r' => self.out.extend(b"\\r"),
                '\t' => self.out.extend(b"\\t"),
                // Go writes these two by number before 1.22, by letter since.
                '\u{8}' | '\u{c}' => self.stable = false,
                '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    let text = format!("\\u{:04x}", u32::from(char));
                    self.out.extend(text.bytes());
                }
                _ => {
                    let mut buffer = [0; 4];
                    self.out.extend(char.encode_utf8(&mut buffer).bytes());
                }
            }
        }
        self.out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expectations were printed by Go 1.26.
    #[test]
    fn strings_are_escaped_as_by_go() {
        let text = "a\"\\\n\r\t\u{1}\u{1f}\u{7f}<b>&\u{2028}\u{2029}é☃😀/'";
        let json = Object::new().string("k", text).finish().unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            "{\"k\":\"a\\\"\\\\\\n\\r\\t\\u0001\\u001f\u{7f}\\u003cb\\u003e\\u0026\\u2028\\u2029é☃😀/'\"}"
        );
    }

    #[test]
    fn what_versions_of_go_write_differently_is_unknown() {
        let inner = Object::new().string("k", "\u{8}");
        assert_eq!(Object::new().object("o", Some(inner)).finish(), None);
    }

    #[test]
    fn empty_values_are_left_out() {
        let json = Object::new()
            .string("a", "")
            .int("b", 0)
            .flag("c", false)
            .strings("d", &[])
            .bytes("e", &[])
            .object("f", None)
            .object("g", Some(Object::new()))
            .always("h", "")
            .triples("i", &[[0, -1, 2]])
            .always_blobs("j", &[vec![0]])
            .finish()
            .unwrap();
        assert_eq!(json, br#"{"g":{},"h":"","i":[[0,-1,2]],"j":["AA=="]}"#);
    }
}
