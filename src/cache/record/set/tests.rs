use super::*;

fn digest(n: usize) -> String {
    format!("sha256:{n:064x}")
}

/// Writes `@n` of a template out as digest n, quoted.
fn with_digests(template: &str) -> String {
    let mut parts = template.split('@');
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap();
        out += &format!(
            "\"{}\"{}",
            digest(part[..end].parse().unwrap()),
            &part[end..]
        );
    }
    out
}

fn parse(template: &str) -> Result<RecordSet, ParseError> {
    RecordSet::parse(with_digests(template).as_bytes(), &Limits::default())
}

fn refusal(template: &str) -> String {
    parse(template).unwrap_err().to_string()
}

fn links(set: &RecordSet) -> Vec<Vec<Vec<usize>>> {
    set.records()
        .iter()
        .map(|r| {
            let links = |input: &Vec<Link>| input.iter().map(|l| l.record).collect();
            r.inputs.iter().map(links).collect()
        })
        .collect()
}

/// A chain of `length` records, each the only source of the next.
fn chain(length: usize) -> String {
    let mut records = vec![format!(r#"{{"digest":"{}"}}"#, digest(0))];
    for n in 1..length {
        records.push(format!(
            r#"{{"digest":"{}","inputs":[[{{"link":{}}}]]}}"#,
            digest(n),
            n - 1
        ));
    }
    format!(r#"{{"records":[{}]}}"#, records.join(","))
}

#[test]
fn a_config_is_read_as_buildkit_reads_it() {
    let set = parse(
        r#"{"layers":[{"blob":@10,"parent":-1},{"blob":@11},{"parent":1,"blob":@12,"annotations":{"size":4}}],
            "records":[
              {"digest":@1,"unknown":[{}]},
              {"digest":@2,"inputs":[[{"selector":"sel","link":0},{}]],
               "layers":[{"layer":2,"createdAt":"2024-01-01T00:00:00Z"}],
               "chains":[{"layers":[2,0],"createdAt":"0001-01-01T00:00:00Z"},{"layers":[]},{}]}]}"#,
    )
    .unwrap();
    let parents: Vec<_> = set.layers().iter().map(|l| l.parent).collect();
    assert_eq!(parents, [None, Some(0), Some(1)]);
    let record = &set.records()[1];
    assert_eq!(&*record.inputs[0][0].selector, "sel");
    assert_eq!(links(&set), [vec![], vec![vec![0, 0]]]);
    let results: Vec<_> = record.results.iter().map(|r| r.to_vec()).collect();
    assert_eq!(results, [vec![0, 1, 2], vec![2, 0]]);
}

#[test]
fn null_is_zero_as_in_go() {
    for empty in ["null", "{}", r#"{"layers":null,"records":null}"#] {
        assert!(parse(empty).unwrap().records().is_empty(), "{empty}");
    }
    let set = parse(
        r#"{"layers":[{"blob":@1,"parent":-1}],
            "records":[{"digest":@1,"inputs":null,"layers":[null],"chains":null},
                       {"digest":@2,"inputs":[[{"selector":null,"link":null}]]}]}"#,
    )
    .unwrap();
    assert_eq!(*set.records()[0].results[0], [0]);
    assert_eq!(links(&set), [vec![], vec![vec![0]]]);
    let none = RecordSet::parse_inline(b"null", &[], &Limits::default()).unwrap();
    assert!(none.records().is_empty());
}

#[test]
fn inline_results_are_layers_of_the_image() {
    let image = [Digest::parse(&digest(10)), Digest::parse(&digest(11))].map(Result::unwrap);
    let parse = |records: &str| {
        let json = with_digests(records);
        RecordSet::parse_inline(json.as_bytes(), &image, &Limits::default())
    };
    let set = parse(r#"[{"digest":@1,"layers":[{"layer":1}],"chains":[{"layers":[1]}]}]"#).unwrap();
    let results: Vec<_> = set.records()[0]
        .results
        .iter()
        .map(|r| r.to_vec())
        .collect();
    assert_eq!(results, [vec![0, 1], vec![1]]);
    assert_eq!(
        parse(r#"[{"digest":@1,"layers":[{"layer":2}]}]"#)
            .unwrap_err()
            .to_string(),
        "record 0: its result has layer 2, of 2 layers"
    );
}

#[test]
fn each_refusal_says_which_and_why() {
    let other = "random:ff";
    for (config, message) in [
        (
            r#"{"layers":[{"parent":-1}]}"#.to_owned(),
            "layer 0: the digest is absent",
        ),
        (
            format!(r#"{{"layers":[{{"blob":@1,"parent":-1}},{{"blob":"{other}"}}]}}"#),
            "layer 1: the digest is a key, not that of a blob",
        ),
        (
            r#"{"layers":[{"blob":@1,"parent":1}]}"#.into(),
            "layer 0: its parent is layer 1, of 1 layers",
        ),
        (
            r#"{"layers":[{"blob":@1,"parent":-2}]}"#.into(),
            "layer 0: its parent is layer -2, of 1 layers",
        ),
        (
            r#"{"layers":[{"blob":@1}]}"#.into(),
            "layer 0: it is among its own parents",
        ),
        (
            r#"{"layers":[{"blob":@1,"parent":2},{"blob":@1,"parent":2},{"blob":@1,"parent":1}]}"#
                .into(),
            "layer 2: it is among its own parents",
        ),
        (
            r#"{"records":[{"digest":@1},null]}"#.into(),
            "record 1: the digest is absent",
        ),
        (
            r#"{"records":[{"digest":"sha256:0"}]}"#.into(),
            "record 0: the text is not a digest: its length is not its algorithm's",
        ),
        (
            r#"{"records":[{"digest":@1},{"digest":@2,"inputs":[[{"link":0}],[]]}]}"#.into(),
            "record 1: its input 1 is empty",
        ),
        (
            r#"{"records":[{"digest":@1,"inputs":[null]}]}"#.into(),
            "record 0: its input 0 is empty",
        ),
        (
            r#"{"records":[{"digest":@1,"inputs":[[{"link":1}]]}]}"#.into(),
            "record 0: its input 0 links to record 1, of 1 records",
        ),
        (
            r#"{"records":[{"digest":@1,"inputs":[[{"link":-1}]]}]}"#.into(),
            "record 0: its input 0 links to record -1, of 1 records",
        ),
        (
            r#"{"records":[{"digest":@1,"layers":[{"layer":0}]}]}"#.into(),
            "record 0: its result has layer 0, of 0 layers",
        ),
        (
            r#"{"records":[{"digest":@1,"chains":[{"layers":[-1]}]}]}"#.into(),
            "record 0: its result has layer -1, of 0 layers",
        ),
        (
            r#"{"records":[{"digest":@1,"inputs":[[{"link":0}]]}]}"#.into(),
            "record 0: it is among its own sources",
        ),
        (
            // Record 0 waits for the loop and is not on it; record 1 is no part of it at all.
            r#"{"records":[{"digest":@1,"inputs":[[{"link":2}]]},{"digest":@9},
                {"digest":@2,"inputs":[[{"link":1}],[{"link":3}]]},
                {"digest":@3,"inputs":[[{"link":2}]]}]}"#
                .into(),
            "record 2: it is among its own sources",
        ),
    ] {
        assert_eq!(refusal(&config), message, "{config}");
    }
}

#[test]
fn what_is_not_the_formats_json_is_refused() {
    for config in [
        "",
        "[]",
        "7",
        r#"{"records":{}}"#,
        r#"{"records":[[]]}"#,
        r#"{"layers":[[@1,-1]]}"#,
        r#"{"layers":[{"blob":@1,"parent":1.0}]}"#,
        r#"{"layers":[{"blob":@1,"parent":"0"}]}"#,
        r#"{"records":[{"digest":7}]}"#,
        r#"{"records":[]} x"#,
    ] {
        let refusal = refusal(config);
        assert!(
            refusal.starts_with("the cache is not readable: "),
            "{config}: {refusal}"
        );
    }
}

#[test]
fn limits_are_held_before_the_rest_is_read() {
    let limits = Limits {
        bytes: 1000,
        records: 2,
        links: 3,
        layers: 2,
        depth: 1,
    };
    for (config, message) in [
        (" ".repeat(1001), "the cache has 1001 bytes, more than 1000"),
        // None of these is even complete JSON: the limit comes first.
        (
            r#"{"records":[{},{},{"#.into(),
            "the cache has more than 2 records",
        ),
        (
            r#"{"layers":[null,null,nul"#.into(),
            "the cache has more than 2 layers",
        ),
        (
            r#"{"records":[{"inputs":[[{},{}],[{},{"#.into(),
            "the cache has more than 3 links and results",
        ),
        (
            r#"{"records":[{"layers":[{}]},{"chains":[{"layers":[0,0"#.into(),
            "the cache has more than 3 links and results",
        ),
        (
            r#"{"records":[{"inputs":[[],[],[],["#.into(),
            "the cache has more than 3 inputs",
        ),
    ] {
        let refusal = RecordSet::parse(config.as_bytes(), &limits).unwrap_err();
        assert_eq!(refusal.to_string(), message);
    }
    let deep = RecordSet::parse(
        chain(3).as_bytes(),
        &Limits {
            depth: 1,
            ..Limits::default()
        },
    );
    assert_eq!(
        deep.unwrap_err().to_string(),
        "record 2: it has more than 1 records below it in a row"
    );
    let image = vec![Digest::parse(&digest(1)).unwrap(); 3];
    assert_eq!(
        RecordSet::parse_inline(b"[]", &image, &limits)
            .unwrap_err()
            .to_string(),
        "the cache has more than 2 layers"
    );
}

/// A record whose results are the layers of a trunk, and of as many branches on top of it.
fn tree(trunk: usize, branches: usize) -> Result<RecordSet, ParseError> {
    let parent = |n: usize| i64::try_from(n.min(trunk)).unwrap() - 1;
    let layers: Vec<_> = (0..trunk + branches)
        .map(|n| with_digests(&format!(r#"{{"blob":@{n},"parent":{}}}"#, parent(n))))
        .collect();
    let tops: Vec<_> = (0..layers.len())
        .map(|n| format!(r#"{{"layer":{n}}}"#))
        .collect();
    let config = format!(
        r#"{{"layers":[{}],"records":[{{"digest":{},"layers":[{}]}}]}}"#,
        layers.join(","),
        with_digests("@1 ").trim_end(),
        tops.join(",")
    );
    RecordSet::parse(config.as_bytes(), &Limits::default())
}

#[test]
fn results_are_the_layers_down_from_their_topmost() {
    let set = tree(3000, 2).unwrap();
    let results = &set.records()[0].results;
    for (top, result) in results.iter().enumerate() {
        let below: Vec<_> = (0..top.min(3000)).chain([top]).collect();
        assert_eq!(**result, below);
    }
}

#[test]
fn results_of_many_branches_on_a_deep_trunk_are_bounded() {
    assert_eq!(
        tree(1500, 1500).unwrap_err().to_string(),
        "the cache has more than 1000000 layers in results"
    );
}

#[test]
fn depth_costs_no_stack() {
    let limits = Limits {
        depth: 100_000,
        ..Limits::default()
    };
    let mut set = RecordSet::parse(chain(50_000).as_bytes(), &limits).unwrap();
    assert_eq!(set.finals(), [49_999]);
    // The lowest link takes with it all that stands on it, and the root then leads nowhere.
    set.retain_links(|record, _, _| record != 1);
    assert!(set.records().is_empty());
    assert!(RecordSet::parse(chain(50_000).as_bytes(), &Limits::default()).is_err());
}

#[test]
fn without_a_link_goes_what_depends_on_it() {
    let mut set = parse(
        r#"{"records":[
             {"digest":@4,"inputs":[[{"link":2},{"link":3}],[{"link":1}]]},
             {"digest":@1},
             {"digest":@2,"inputs":[[{"link":1}]]},
             {"digest":@3,"inputs":[[{"link":1,"selector":"s"}]]},
             {"digest":@5,"inputs":[[{"link":2}]]}]}"#,
    )
    .unwrap();
    assert_eq!(set.finals(), [0, 4]);

    let mut asked = vec![];
    set.retain_links(|record, input, link| {
        asked.push((record, input, link.record));
        record != 2
    });
    assert_eq!(
        asked,
        [
            (0, 0, 2),
            (0, 0, 3),
            (0, 1, 1),
            (2, 0, 1),
            (3, 0, 1),
            (4, 0, 2)
        ]
    );
    let digests: Vec<_> = set.records().iter().map(|r| r.digest.to_string()).collect();
    assert_eq!(digests, [digest(4), digest(1), digest(3)]);
    assert_eq!(links(&set), [vec![vec![2], vec![1]], vec![], vec![vec![1]]]);
    assert_eq!(set.sources_first(), [1, 2, 0]);
    assert_eq!(set.finals(), [0]);
}

#[test]
fn diff_ids_go_to_the_layers_they_are_known_for() {
    let mut set = parse(r#"{"layers":[{"blob":@1,"parent":-1},{"blob":@2}]}"#).unwrap();
    let diff_id = Digest::parse(&digest(9)).unwrap();
    set.set_diff_ids(|blob| (blob.as_str() == digest(2)).then(|| diff_id.clone()));
    let diff_ids: Vec<_> = set.layers().iter().map(|l| l.diff_id.clone()).collect();
    assert_eq!(diff_ids, [None, Some(diff_id)]);
}

#[test]
fn the_case_of_a_fields_name_is_no_matter() {
    let usual = with_digests(
        r#"{"layers":[{"blob":@1,"parent":-1}],"records":[{"digest":@2},
           {"digest":@3,"inputs":[[{"link":0,"selector":"s"}]],"layers":[{"layer":0}],"chains":[]}]}"#,
    );
    let read = |text: &str| RecordSet::parse(text.as_bytes(), &Limits::default());
    let set = read(&usual).unwrap();
    for name in [
        "layers", "records", "blob", "parent", "digest", "inputs", "link", "selector", "layer",
        "chains",
    ] {
        let long_s = name.replace('s', "\u{17f}");
        let kelvin = name.replace('k', "\u{212a}");
        for other in [name.to_uppercase(), long_s, kelvin] {
            let text = usual.replace(&format!("\"{name}\":"), &format!("\"{other}\":"));
            assert_eq!(read(&text).unwrap().records(), set.records(), "{text}");
            assert_eq!(read(&text).unwrap().layers(), set.layers(), "{text}");
        }
    }
    // Another letter is another name.
    let text = usual.replace("\"digest\"", "\"d\u{131}gest\"");
    let error = read(&text).unwrap_err().to_string();
    assert_eq!(error, "record 0: the digest is absent");
}

/// Go reads the second list into what the first left behind, so that a link that is left out there is
/// the first one's.
#[test]
fn a_field_that_comes_twice_is_refused() {
    for (twice, name) in [
        (r#""inputs":[[{"link":1}]],"inputs":[[{}]]"#, "inputs"),
        (r#""inputs":[[{"link":0}]],"Inputs":[[{}]]"#, "inputs"),
        (r#""inputs":[[{"link":1,"link":null}]]"#, "link"),
        (r#""layers":null,"layers":[]"#, "layers"),
    ] {
        let text = format!(r#"{{"records":[{{"digest":@1}},{{"digest":@2,{twice}}}]}}"#);
        let error = parse(&text).unwrap_err().to_string();
        assert!(
            error.contains(&format!("duplicate field {name:?}")),
            "{text}: {error}"
        );
    }
    // What is read by nobody may.
    let text = r#"{"x":1,"x":2,"records":[{"digest":@1,"y":[],"y":{}}]}"#;
    assert_eq!(parse(text).unwrap().records().len(), 1);
}

/// A root, a record that is made of it, and what an export of these has beside them; settled.
fn settled(finals: &[&str]) -> RecordSet {
    let finals = finals.join(",");
    let mut set = parse(&format!(
        r#"{{"layers":[{{"blob":@10,"parent":-1}}],
            "records":[{{"digest":@1}},{{"digest":@2,"inputs":[[{{"link":0}}]]}},{finals}]}}"#
    ))
    .unwrap();
    set.settle();
    set
}

#[test]
fn the_final_record_gets_the_links_of_one_without_a_result() {
    const FOUND: &str = r#"{"digest":@9,"inputs":[[{"link":0}]],"layers":[{"layer":0}]}"#;
    const REMEMBERED: &str = r#"{"digest":@9,"inputs":[[{"link":1}]]}"#;
    for finals in [[FOUND, REMEMBERED], [REMEMBERED, FOUND]] {
        assert_eq!(links(&settled(&finals)).last(), Some(&vec![vec![0, 1]]));
    }
    // Of two that have a result, neither is more likely to be it. `make fuzz` found that the first
    // of them was taken.
    let found_by_both = FOUND.replace(r#"{"link":0}"#, r#"{"link":0},{"link":1}"#);
    let set = settled(&[&found_by_both, FOUND, REMEMBERED]);
    assert_eq!(links(&set)[2..], [vec![vec![0, 1]], vec![vec![0]]]);
}

/// `make fuzz` found that it was taken for the end of the build once the link to the equal one had
/// gone.
#[test]
fn a_record_that_is_equal_to_a_source_is_not_final() {
    const STEP: &str = r#"{"digest":@8,"inputs":[[{"link":0}]],"layers":[{"layer":0}]}"#;
    const LAST: &str = r#"{"digest":@9,"inputs":[[{"link":1},{"link":3}]],"layers":[{"layer":0}]}"#;
    let mut set = settled(&[STEP, STEP, LAST]);
    assert_eq!(set.finals().len(), 1);
    let step = digest(8).parse().unwrap();
    let number = set
        .records()
        .iter()
        .position(|record| record.digest == step);
    set.retain_links(|_, _, link| Some(link.record) != number);
    let [last] = set.finals()[..] else {
        panic!("one end: {set:?}")
    };
    assert_eq!(set.records()[last].digest.to_string(), digest(9));
}

/// A document may be a file, or the answer of an internal service.
#[test]
fn nothing_of_a_cache_is_quoted() {
    for config in [
        r#""secret""#,
        r#"{"records":"secret"}"#,
        r#"{"records":[{"digest":"secret"}]}"#,
        r#"{"records":[{"digest":["secret"]}]}"#,
        r#"{"layers":[{"blob":"secret"}]}"#,
        r#"{"layers":[{"blob":"random:5ec2e7"}]}"#,
        "secret",
    ] {
        let refusal = RecordSet::parse(config.as_bytes(), &Limits::default());
        let said = refusal.unwrap_err().to_string();
        assert!(!said.contains("sec") && !said.contains("5ec2e7"), "{said}");
    }
}
