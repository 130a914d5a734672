use super::*;

/// `[{}]` in base64.
const CACHE: &str = "W3t9XQ==";

fn embedded(config: &str) -> String {
    String::from_utf8(embed(config.as_bytes(), CACHE, DEFAULT_LIMIT).unwrap()).unwrap()
}

fn stripped(config: &str) -> String {
    String::from_utf8(strip(config.as_bytes(), DEFAULT_LIMIT).unwrap()).unwrap()
}

fn cache(config: &str) -> Result<Option<Vec<u8>>, ConfigError> {
    cache_of(config.as_bytes(), DEFAULT_LIMIT)
}

#[test]
fn a_cache_comes_last_and_leaves_no_trace() {
    for (config, with_cache) in [
        ("{}", r#"{"moby.buildkit.cache.v0":"W3t9XQ=="}"#),
        (
            "\n{ \t} ",
            "\n{\"moby.buildkit.cache.v0\":\"W3t9XQ==\" \t} ",
        ),
        (
            r#"{"os":"linux","config":{}}"#,
            r#"{"os":"linux","config":{},"moby.buildkit.cache.v0":"W3t9XQ=="}"#,
        ),
        (
            "{\n  \"os\" : \"lin\\\"ux\\\\\" ,\n  \"n\": -1.50e+2\n}\n",
            "{\n  \"os\" : \"lin\\\"ux\\\\\" ,\n  \"n\": -1.50e+2,\"moby.buildkit.cache.v0\":\"W3t9XQ==\"\n}\n",
        ),
        (
            r#"{"config":{"moby.buildkit.cache.v0":"nested"},"a":["}",{"b":"]"}]}"#,
            r#"{"config":{"moby.buildkit.cache.v0":"nested"},"a":["}",{"b":"]"}],"moby.buildkit.cache.v0":"W3t9XQ=="}"#,
        ),
        (
            r#"{"a":1,"a":2,"Moby.buildkit.cache.v0":0}"#,
            r#"{"a":1,"a":2,"Moby.buildkit.cache.v0":0,"moby.buildkit.cache.v0":"W3t9XQ=="}"#,
        ),
    ] {
        assert_eq!(cache(config).unwrap(), None, "{config}");
        assert_eq!(stripped(config), config);
        assert_eq!(embedded(config), with_cache);
        assert_eq!(embedded(with_cache), with_cache);
        assert_eq!(stripped(with_cache), config);
        assert_eq!(cache(with_cache).unwrap().unwrap(), b"[{}]");
    }
}

#[test]
fn every_cache_goes_wherever_it_stands() {
    for (config, rest) in [
        (r#"{ "moby.buildkit.cache.v0" : "" }"#, "{  }"),
        (r#"{ "moby.buildkit.cache.v0":"" , "a":1 }"#, r#"{ "a":1 }"#),
        (
            r#"{"a":1 , "moby.buildkit.cache.v0":[{}] , "b":2}"#,
            r#"{"a":1 , "b":2}"#,
        ),
        (
            r#"{"moby.buildkit.cache.v0":1,"moby.buildkit.cache.v0":2, "a":{},"\u006doby.buildkit.cache.v0":3}"#,
            r#"{"a":{}}"#,
        ),
        (
            r#"{"moby.buildkit.cache.v0":1,"moby.buildkit.cache.v0":2}"#,
            "{}",
        ),
    ] {
        assert_eq!(stripped(config), rest);
        assert_eq!(stripped(&embedded(config)), rest);
        assert_eq!(cache(&embedded(config)).unwrap().unwrap(), b"[{}]");
    }
}

#[test]
fn the_last_of_several_caches_counts() {
    let key = |value: &str| format!(r#""moby.buildkit.cache.v0":{value}"#);
    let two = |a, b| cache(&format!("{{{},{}}}", key(a), key(b))).unwrap();
    assert_eq!(two("7", r#""W3t9\nXQ==""#).unwrap(), b"[{}]");
    assert_eq!(two(r#""W3t9XQ==""#, "null"), None);
}

#[test]
fn a_cache_is_written_in_one_line() {
    let config = embed(b"{}", "W3t9\r\nXQ==\n", DEFAULT_LIMIT).unwrap();
    assert_eq!(config, embed(b"{}", CACHE, DEFAULT_LIMIT).unwrap());
}

#[test]
fn deep_nesting_costs_no_stack() {
    let config = format!("{{\"a\":{}{}}}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    assert_eq!(stripped(&embedded(&config)), config);
}

#[test]
fn each_refusal_says_why() {
    let embed = |config: &str, cache, limit| {
        let refusal = embed(config.as_bytes(), cache, limit).unwrap_err();
        refusal.to_string()
    };
    for (message, expected) in [
        (
            embed("{}  ", CACHE, 3),
            "the image config has 4 bytes, more than 3",
        ),
        (
            embed("{}", CACHE, 36),
            "the image config has 37 bytes, more than 36",
        ),
        (
            embed("{", CACHE, 99),
            "the image config is not JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            embed("[{}]", CACHE, 99),
            "the image config is not a JSON object",
        ),
        (
            embed("null", CACHE, 99),
            "the image config is not a JSON object",
        ),
        (
            embed("{}", "W3t9XQ=", 99),
            "`moby.buildkit.cache.v0` of the image config is not base64: its length or its padding is wrong",
        ),
        (
            cache(r#"{"moby.buildkit.cache.v0":[]}"#)
                .unwrap_err()
                .to_string(),
            "`moby.buildkit.cache.v0` in the image config is not a string",
        ),
        (
            cache(r#"{"moby.buildkit.cache.v0":"*"}"#)
                .unwrap_err()
                .to_string(),
            "`moby.buildkit.cache.v0` of the image config is not base64 at character 1",
        ),
    ] {
        assert_eq!(message, expected);
    }
    assert!(super::embed(b"{}", CACHE, 37).is_ok());
}
