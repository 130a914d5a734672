use super::*;
use crate::cache::record::Limits;

fn digest(n: usize) -> Digest {
    Digest::parse(&format!("sha256:{n:064x}")).unwrap()
}

/// A cache of which layer n has blob 100 + n, the layer below it given, if any.
#[derive(Default)]
struct Cache {
    layers: Vec<String>,
    records: Vec<String>,
}

impl Cache {
    fn layers(parents: &[i64]) -> Self {
        let layer = |(n, parent)| format!(r#"{{"blob":"{}","parent":{parent}}}"#, digest(100 + n));
        Self {
            layers: parents.iter().enumerate().map(layer).collect(),
            records: vec![],
        }
    }

    /// A record with digest n; `rest` is its fields but that.
    fn record(self, n: usize, rest: &str) -> Self {
        self.keyed(digest(n).as_str(), rest)
    }

    fn keyed(mut self, digest: &str, rest: &str) -> Self {
        let comma = if rest.is_empty() { "" } else { "," };
        self.records
            .push(format!(r#"{{"digest":"{digest}"{comma}{rest}}}"#));
        self
    }

    fn set(&self) -> RecordSet {
        let json = format!(
            r#"{{"layers":[{}],"records":[{}]}}"#,
            self.layers.join(","),
            self.records.join(",")
        );
        RecordSet::parse(json.as_bytes(), &Limits::default()).unwrap()
    }

    fn select(&self) -> Result<InlineCache, SelectError> {
        select(&self.set())
    }
}

/// The JSON with digest n written as `@n`.
fn json(cache: &InlineCache) -> String {
    let mut json = String::from_utf8(cache.to_json()).unwrap();
    for n in (0..200).rev() {
        json = json.replace(&format!("\"{}\"", digest(n)), &format!("@{n}"));
    }
    json
}

fn selected(cache: &Cache) -> String {
    json(&cache.select().unwrap())
}

#[test]
fn a_build_of_two_stages_comes_out_in_order() {
    let cache = Cache::layers(&[1, -1])
        .record(5, r#""inputs":[[{"link":2}],[{"link":1,"selector":"b"},{"link":1,"selector":"a"}]],"layers":[{"layer":0,"createdAt":"2024-01-01T00:00:00Z"}]"#)
        .record(2, "")
        .record(3, r#""inputs":[[{"link":3}]],"layers":[{"layer":1}]"#)
        .record(1, "");
    assert_eq!(
        selected(&cache),
        concat!(
            r#"[{"digest":@1},{"digest":@2},"#,
            r#"{"layers":[{}],"digest":@3,"inputs":[[{}]]},"#,
            r#"{"layers":[{"layer":1}],"digest":@5,"inputs":[[{"link":2}],[{"selector":"a","link":1},{"selector":"b","link":1}]]}]"#
        )
    );
    assert_eq!(cache.select().unwrap().layers(), 2);
}

#[test]
fn results_are_kept_that_are_made_of_the_images_layers() {
    // The image is 0, 1, 2; 3 is on 1 and not in it; 4 has the blob of 2 and stands alone.
    let mut cache = Cache::layers(&[-1, 0, 1, 1]);
    cache
        .layers
        .push(format!(r#"{{"blob":"{}","parent":-1}}"#, digest(102)));
    let cache = cache
        .record(1, r#""layers":[{"layer":1}]"#)
        .record(2, r#""chains":[{"layers":[2,0]}]"#)
        .record(3, r#""layers":[{"layer":3}]"#)
        .record(4, r#""layers":[{"layer":4}]"#)
        .record(5, r#""chains":[{"layers":[0,1]}]"#)
        .record(6, r#""layers":[{"layer":4},{"layer":2},{"layer":0},{"layer":3}]"#)
        .record(
            7,
            r#""inputs":[[{"link":0}],[{"link":1}],[{"link":2}],[{"link":3}],[{"link":4}],[{"link":5}]],"layers":[{"layer":2}]"#,
        );
    let results: Vec<_> = cache
        .select()
        .unwrap()
        .records()
        .iter()
        .map(|r| r.result.clone())
        .collect();
    let chain = |layers: &[usize]| Some(InlineResult::Chain(layers.into()));
    assert_eq!(
        results,
        [
            Some(InlineResult::Layer(1)),
            chain(&[2, 0]),
            None,
            chain(&[2]),
            Some(InlineResult::Layer(1)),
            Some(InlineResult::Layer(0)),
            Some(InlineResult::Layer(2)),
        ]
    );
}

#[test]
fn layers_are_the_same_by_blob_or_by_diff_id() {
    // The same two layers, compressed twice; of the third nothing is known.
    let cache = Cache::layers(&[-1, 0, -1, 2, -1])
        .record(1, r#""layers":[{"layer":2}]"#)
        .record(2, r#""layers":[{"layer":4}]"#)
        .record(
            3,
            r#""inputs":[[{"link":0}],[{"link":1}]],"layers":[{"layer":1},{"layer":3}]"#,
        );
    assert!(matches!(
        cache.select(),
        Err(SelectError::AmbiguousFinal(_))
    ));
    let mut set = cache.set();
    set.set_diff_ids(|blob| {
        (0..4)
            .find(|&n| *blob == digest(100 + n))
            .map(|n| digest(150 + n % 2))
    });
    assert_eq!(
        json(&select(&set).unwrap()),
        concat!(
            r#"[{"layers":[{}],"digest":@1},{"digest":@2},"#,
            r#"{"layers":[{"layer":1}],"digest":@3,"inputs":[[{}],[{"link":1}]]}]"#
        )
    );
}

#[test]
fn an_uncompressed_layer_is_its_own_diff_id() {
    let cache = Cache::layers(&[-1, -1])
        .record(1, r#""layers":[{"layer":1}]"#)
        .record(2, r#""inputs":[[{"link":0}]],"layers":[{"layer":0}]"#);
    let mut set = cache.set();
    set.set_diff_ids(|blob| (*blob == digest(100)).then(|| digest(101)));
    let cache = select(&set).unwrap();
    assert_eq!(cache.records()[0].result, Some(InlineResult::Layer(0)));
}

#[test]
fn the_same_layer_twice_in_an_image_is_no_trouble() {
    let mut cache = Cache::layers(&[-1, 0]);
    cache
        .layers
        .push(format!(r#"{{"blob":"{}","parent":1}}"#, digest(100)));
    let cache = cache
        .record(1, r#""layers":[{"layer":1}]"#)
        .record(2, r#""chains":[{"layers":[1,2]}]"#)
        .record(
            3,
            r#""inputs":[[{"link":0}],[{"link":1}]],"layers":[{"layer":2}]"#,
        );
    let cache = cache.select().unwrap();
    let results: Vec<_> = cache.records().iter().map(|r| r.result.clone()).collect();
    assert_eq!(
        results,
        [
            Some(InlineResult::Layer(1)),
            Some(InlineResult::Chain([1, 2].into())),
            Some(InlineResult::Layer(2)),
        ]
    );
}

#[test]
fn what_does_not_lead_to_the_final_record_goes() {
    let cache = Cache::layers(&[-1])
        .record(1, "")
        .record(2, r#""layers":[{"layer":0}]"#)
        .record(3, r#""inputs":[[{"link":1}]]"#)
        .record(4, r#""inputs":[[{"link":0}]],"layers":[{"layer":0}]"#);
    assert_eq!(
        selected(&cache),
        r#"[{"digest":@1},{"layers":[{}],"digest":@4,"inputs":[[{}]]}]"#
    );
}

#[test]
fn random_keys_go_and_what_needs_them() {
    let cache = Cache::layers(&[-1, 0])
        .record(1, "")
        .keyed("random:ff", r#""layers":[{"layer":0}]"#)
        .record(2, r#""inputs":[[{"link":1}]],"layers":[{"layer":0}]"#)
        .record(
            3,
            r#""inputs":[[{"link":0},{"link":1},{"link":2}]],"layers":[{"layer":1}]"#,
        );
    assert_eq!(
        selected(&cache),
        r#"[{"digest":@1},{"layers":[{"layer":1}],"digest":@3,"inputs":[[{}]]}]"#
    );
}

#[test]
fn a_final_record_that_goes_leaves_no_other_to_be_mistaken_for_it() {
    let cache = Cache::layers(&[-1, 0])
        .record(1, "")
        .record(2, r#""inputs":[[{"link":0}]],"layers":[{"layer":0}]"#)
        .keyed(
            "random:ff",
            r#""inputs":[[{"link":1}]],"layers":[{"layer":1}]"#,
        );
    assert_eq!(
        cache.select().unwrap_err().to_string(),
        "no final record may be embedded: each has or needs a `random:` key: record 2 (random:ff)"
    );
}

#[test]
fn several_final_records_of_one_image_all_stay() {
    let cache = Cache::layers(&[-1])
        .record(1, "")
        .record(2, "")
        .record(3, r#""inputs":[[{"link":1}]],"layers":[{"layer":0}]"#)
        .record(3, r#""inputs":[[{"link":0}]],"layers":[{"layer":0}]"#);
    let records = cache.select().unwrap().records().len();
    assert_eq!(records, 4);
}

#[test]
fn final_records_of_different_images_are_named() {
    let cache = Cache::layers(&[-1, 0])
        .record(1, "")
        .record(2, r#""inputs":[[{"link":0}]],"layers":[{"layer":0}]"#)
        .record(3, r#""inputs":[[{"link":0}]],"layers":[{"layer":1}]"#);
    let error = cache.select().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no telling which layers are the image's: they differ between the results of \
             record 1 ({}), record 2 ({})",
            digest(2),
            digest(3)
        )
    );
}

#[test]
fn without_a_final_record_there_is_no_image() {
    for cache in [
        Cache::default(),
        Cache::layers(&[-1]).record(1, r#""layers":[{"layer":0}]"#),
        Cache::default()
            .record(1, "")
            .record(2, r#""inputs":[[{"link":0}]]"#),
    ] {
        assert_eq!(cache.select().unwrap_err(), SelectError::NoFinal);
    }
}

#[test]
fn equal_records_become_one() {
    // 1 and 2 are equal, so are then 3 and 4, and so are the links to them.
    let cache = Cache::layers(&[-1, 0])
        .record(1, "")
        .record(1, r#""layers":[{"layer":0}]"#)
        .record(2, r#""inputs":[[{"link":0}]],"chains":[{"layers":[1,0]}]"#)
        .record(
            2,
            r#""inputs":[[{"link":1},{"link":0}]],"layers":[{"layer":0}]"#,
        )
        .record(
            3,
            r#""inputs":[[{"link":2},{"link":3},{"link":2}]],"layers":[{"layer":1}]"#,
        );
    assert_eq!(
        selected(&cache),
        concat!(
            r#"[{"layers":[{}],"digest":@1},"#,
            r#"{"layers":[{}],"digest":@2,"inputs":[[{}]]},"#,
            r#"{"layers":[{"layer":1}],"digest":@3,"inputs":[[{"link":1}]]}]"#
        )
    );
}

#[test]
fn alternatives_stay_unless_the_set_has_lost_them() {
    let cache = Cache::layers(&[-1, 0])
        .record(1, "")
        .record(2, "")
        .record(3, r#""inputs":[[{"link":0}]],"layers":[{"layer":0}]"#)
        .record(3, r#""inputs":[[{"link":1}]],"layers":[{"layer":0}]"#)
        .record(
            4,
            r#""inputs":[[{"link":2},{"link":3}]],"layers":[{"layer":1}]"#,
        );
    let mut set = cache.set();
    assert_eq!(select(&set).unwrap().records().len(), 5);
    set.retain_links(|_, _, link| link.record != 3);
    assert_eq!(
        json(&select(&set).unwrap()),
        concat!(
            r#"[{"digest":@1},{"layers":[{}],"digest":@3,"inputs":[[{}]]},"#,
            r#"{"layers":[{"layer":1}],"digest":@4,"inputs":[[{"link":1}]]}]"#
        )
    );
}

#[test]
fn results_written_out_are_bounded() {
    let mut cache = Cache::layers(&[-1, 0, -1, 2]);
    cache.layers[2] = format!(r#"{{"blob":"{}","parent":-1}}"#, digest(101));
    cache.layers[3] = format!(r#"{{"blob":"{}","parent":2}}"#, digest(100));
    let cache = cache
        .record(1, r#""layers":[{"layer":3}]"#)
        .record(2, r#""layers":[{"layer":3}]"#)
        .record(
            3,
            r#""inputs":[[{"link":0}],[{"link":1}]],"layers":[{"layer":1}]"#,
        );
    let json = format!(
        r#"{{"layers":[{}],"records":[{}]}}"#,
        cache.layers.join(","),
        cache.records.join(",")
    );
    let with = |links| {
        let limits = Limits {
            links,
            ..Limits::default()
        };
        select(&RecordSet::parse(json.as_bytes(), &limits).unwrap())
    };
    // Two links; one number for the final record's result, two for each of the others'.
    assert!(with(7).is_ok());
    assert_eq!(
        with(6).unwrap_err().to_string(),
        "the records have more than 6 links and layers of results"
    );
}

#[test]
fn a_source_once_more_is_no_end_of_a_build() {
    let again = |result: &str| {
        Cache::layers(&[-1, 0])
            .record(1, "")
            .record(2, r#""inputs":[[{"link":0}]],"layers":[{"layer":0}]"#)
            .record(3, r#""inputs":[[{"link":1}]],"layers":[{"layer":1}]"#)
            // Equal to record 1, by way of a root that is equal to record 0.
            .record(1, "")
            .record(
                2,
                &format!(r#""inputs":[[{{"link":3}}]],"layers":[{result}]"#),
            )
    };
    let expected = concat!(
        r#"[{"digest":@1},{"layers":[{}],"digest":@2,"inputs":[[{}]]},"#,
        r#"{"layers":[{"layer":1}],"digest":@3,"inputs":[[{"link":1}]]}]"#
    );
    for result in [r#"{"layer":0}"#, r#"{"layer":1}"#] {
        assert_eq!(selected(&again(result)), expected, "{result}");
    }
    // With another source it is another record, and ends another build.
    let other = again(r#"{"layer":0}"#)
        .record(4, "")
        .record(2, r#""inputs":[[{"link":5}]],"layers":[{"layer":0}]"#);
    assert!(matches!(
        other.select(),
        Err(SelectError::AmbiguousFinal(named)) if named.len() == 2
    ));
}

/// A base, a step, a copy that is linked on the step, and both as one. The daemon has the result of an
/// earlier copy, which is equal to the base's layer.
#[test]
fn a_result_of_an_earlier_run_is_found_elsewhere_by_chance() {
    let with = |step: &str| {
        Cache::layers(&[-1, 0, 1, -1])
            .record(1, "")
            .record(
                2,
                &format!(r#""inputs":[[{{"link":0}}]],"layers":[{step}]"#),
            )
            .record(3, r#""inputs":[[{"link":0}]],"layers":[{"layer":3}]"#)
            .record(
                4,
                r#""inputs":[[{"link":1}],[{"link":2}]],"layers":[{"layer":2}]"#,
            )
    };
    let copy = |cache: &Cache| {
        let mut set = cache.set();
        set.set_diff_ids(|blob| {
            let layer = (0..4).find(|&n| *blob == digest(100 + n))?;
            Some(digest(150 + layer % 3))
        });
        let expected = HashMap::from([
            (1, InlineResult::Layer(1)),
            (2, InlineResult::Chain([2].into())),
            (3, InlineResult::Layer(2)),
        ]);
        let cache = select_expecting(&set, &expected).unwrap();
        let copy = cache.records().iter().find(|it| it.digest == digest(3));
        copy.unwrap().result.clone()
    };
    assert_eq!(
        copy(&with(r#"{"layer":1}"#)),
        Some(InlineResult::Chain([2].into()))
    );
    // Nothing tells where the copy begins.
    assert_eq!(copy(&with("")), Some(InlineResult::Layer(0)));
}
