use std::collections::HashMap;
use std::fs;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;
use crate::cache::record::base64;

/// A definition, and what BuildKit v0.34.2 exported as `type=local` when it built it, by a name for
/// what had been before.
#[derive(Deserialize)]
struct Recorded {
    definition: String,
    exports: HashMap<String, RecordedExport>,
}

#[derive(Deserialize)]
struct RecordedExport {
    config: Box<RawValue>,
    diff_ids: HashMap<String, String>,
}

impl Recorded {
    fn read(name: &str) -> Self {
        let path = format!("{}/tests/exports/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn definition(&self) -> Vec<u8> {
        base64::decode(&self.definition).unwrap()
    }

    fn exported(&self, name: &str) -> Exported {
        let export = &self.exports[name];
        let digest = |text: &String| text.parse::<Digest>().unwrap();
        let diff_ids = export.diff_ids.iter();
        Exported {
            config: export.config.get().as_bytes().to_vec(),
            diff_ids: diff_ids.map(|(b, d)| (digest(b), digest(d))).collect(),
        }
    }

    fn embedded(&self, name: &str) -> InlineCache {
        let embedded = embed(&self.exported(name), &self.definition(), None).unwrap();
        assert_eq!(embedded.notes, [], "{name}");
        embedded.cache
    }
}

/// Of each record the beginning of its digest, its result, and for each input its sources.
fn shown(cache: &InlineCache) -> Vec<String> {
    let records = cache.records();
    let digest = |number: usize| &records[number].digest.as_str()[7..13];
    let shown = records.iter().enumerate().map(|(number, record)| {
        let mut text = digest(number).to_owned();
        match &record.result {
            Some(InlineResult::Layer(top)) => text += &format!(" 0..={top}"),
            Some(InlineResult::Chain(layers)) => text += &format!(" {layers:?}"),
            None => {}
        }
        for links in &record.inputs {
            let links: Vec<_> = links.iter().map(|link| digest(link.record)).collect();
            text += &format!(" <{}", links.join(","));
        }
        text
    });
    shown.collect()
}

/// `FROM scratch AS a`, `COPY sh /sh`, `RUN …`; `FROM scratch`, `COPY --from=a /sh /sh`. The two
/// copies have one key. Cold the daemon has one record of them, of which the command is made, and
/// warm it has two.
#[test]
fn the_last_step_may_have_the_key_of_another() {
    let recorded = Recorded::read("same-key");
    let cold = recorded.embedded("cold");
    assert_eq!(
        shown(&cold),
        [
            "1c1b9c <cc8c6b",
            "8f96a7",
            "cc8c6b 0..=0 <1c1b9c",
            "cc8c6b 0..=0 <8f96a7",
        ]
    );
    assert_eq!(recorded.embedded("warm"), cold);
}

/// `FROM B AS a`, `COPY --link sh /sh`; `FROM scratch`, `COPY --from=a /sh /sh`. What nothing is made
/// of is the merge, of three layers, and the image has one.
#[test]
fn the_image_is_not_what_nothing_is_made_of() {
    let recorded = Recorded::read("same-key-over-merge");
    let cold = recorded.embedded("cold");
    assert_eq!(cold.layers(), 1);
    assert_eq!(
        shown(&cold),
        [
            "060ba3",
            "5dbfba <060ba3 <cc8c6b",
            "8f96a7",
            "cc8c6b 0..=0 <5dbfba",
            "cc8c6b 0..=0 <8f96a7",
        ]
    );
    assert_eq!(recorded.embedded("warm"), cold);
}

/// `FROM B AS deps`, `RUN echo x >/m`; `FROM B AS prod`, `COPY --from=deps /m /m`; `FROM B`,
/// `COPY --from=prod /m /m`.
#[test]
fn equal_copies_in_a_row_are_found_by_what_leads_to_them() {
    let recorded = Recorded::read("equal-hops");
    let cold = recorded.embedded("cold");
    assert_eq!(
        shown(&cold),
        [
            "060ba3",
            "776d82 0..=2 <060ba3 <776d82",
            "776d82 0..=2 <060ba3 <c1966e,ce2b89",
            "c1966e",
            "ce2b89 <060ba3",
        ]
    );
    assert_eq!(recorded.embedded("warm"), cold);
    assert_eq!(recorded.embedded("imported"), cold);
}
