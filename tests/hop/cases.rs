//! Single calls: a table of what both sides do, and of what one of them has to see.

use h2::Reason;

use crate::peers::{Do, Script, Seen, Way};

use Do::{
    Answer, Bytes, Cork, Data, Drop, Headers, Meet, Read, ReadAll, Reset, Sleep, Trailers, Uncork,
};

/// A call, and what shows that it did what it is there for.
struct Case {
    name: String,
    script: Script,
    shows: String,
}

const GRPC: &[(&str, &[u8])] = &[("content-type", b"application/grpc"), ("te", b"trailers")];
const OK: &[(&str, &[u8])] = &[("grpc-status", b"0")];
const ERROR: &[(&str, &[u8])] = &[
    ("content-type", b"application/grpc"),
    ("grpc-status", b"5"),
    ("grpc-message", b"no%20such%20thing"),
    ("grpc-status-details-bin", b"CAUSB25vdGhpbmc"),
];
const METADATA: &[(&str, &[u8])] = &[
    ("content-type", b"application/grpc"),
    ("grpc-timeout", b"1234m"),
    ("grpc-encoding", b"gzip"),
    ("grpc-accept-encoding", b"gzip,identity"),
    ("user-agent", b"grpc-go/1.84.0"),
    ("key", b"one"),
    ("key-bin", b"AAECAw"),
    ("key", b"two"),
    ("key-bin", b"/+8"),
    ("key", b"one"),
    ("empty", b""),
    ("opaque", b"\xff\xfe"),
];

/// A message, and one whose flag says that it is compressed.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";
const COMPRESSED: &[u8] = b"\x01\0\0\0\x03abc";

/// All codes of HTTP/2, and one that nobody knows.
fn codes() -> impl Iterator<Item = Reason> {
    (0..=13).chain([4_000_000_000]).map(Reason::from)
}

fn case(name: &str, client: Vec<Do>, daemon: Vec<Do>, shows: &str) -> Case {
    Case {
        name: name.to_owned(),
        script: Script { client, daemon },
        shows: shows.to_owned(),
    }
}

fn messages() -> Vec<Case> {
    let long: &'static [u8] = vec![b'x'; 200_000].leak();
    let long: &'static [(&str, &[u8])] =
        vec![("grpc-status", &b"2"[..]), ("details-bin", long)].leak();
    vec![
        case(
            "a unary call with metadata",
            vec![
                Headers(METADATA, false),
                Bytes(MESSAGE),
                Data(0, true),
                Answer,
                ReadAll,
            ],
            vec![
                ReadAll,
                Headers(METADATA, false),
                Bytes(MESSAGE),
                Trailers(METADATA),
            ],
            "\"key\": [\"one\", \"two\", \"one\"]",
        ),
        case(
            "compressed messages",
            vec![
                Headers(GRPC, false),
                Bytes(COMPRESSED),
                Data(0, true),
                Answer,
                ReadAll,
            ],
            vec![
                ReadAll,
                Headers(GRPC, false),
                Bytes(COMPRESSED),
                Trailers(OK),
            ],
            "data 8",
        ),
        case(
            "a call without a body",
            vec![Headers(GRPC, true), Answer, ReadAll],
            vec![ReadAll, Headers(GRPC, false), Trailers(OK)],
            "data 0",
        ),
        case(
            "an error in headers alone",
            vec![
                Headers(GRPC, false),
                Bytes(MESSAGE),
                Data(0, true),
                Answer,
                ReadAll,
            ],
            vec![ReadAll, Headers(ERROR, true)],
            "\"grpc-status-details-bin\": [\"CAUSB25vdGhpbmc\"]} end",
        ),
        case(
            "an error before the client is done",
            vec![
                Headers(GRPC, false),
                Answer,
                Meet,
                Bytes(MESSAGE),
                Data(0, true),
            ],
            vec![Headers(ERROR, true), Meet, ReadAll],
            "data 10",
        ),
        case(
            "an error with trailers of 200 kB",
            vec![Headers(GRPC, true), Answer, ReadAll],
            vec![Headers(GRPC, false), Bytes(MESSAGE), Trailers(long)],
            "xxxxxx",
        ),
        case(
            "a stream of the daemon's",
            vec![Headers(GRPC, true), Answer, ReadAll],
            vec![
                Headers(GRPC, false),
                Data(3_000_000, false),
                Data(1, false),
                Trailers(OK),
            ],
            "data 3000001",
        ),
        case(
            "a stream of the client's",
            vec![
                Headers(GRPC, false),
                Data(3_000_000, false),
                Data(1, true),
                Answer,
                ReadAll,
            ],
            vec![ReadAll, Headers(GRPC, false), Trailers(OK)],
            "data 3000001",
        ),
        case(
            "messages of 16 MiB",
            vec![Headers(GRPC, false), Data(16 << 20, true), Answer, ReadAll],
            vec![
                ReadAll,
                Headers(GRPC, false),
                Data(16 << 20, false),
                Trailers(OK),
            ],
            "data 16777216",
        ),
        case(
            "a conversation",
            vec![
                Headers(GRPC, false),
                Answer,
                Bytes(MESSAGE),
                Read(10),
                Bytes(MESSAGE),
                Read(10),
                Data(0, true),
                ReadAll,
            ],
            vec![
                Headers(GRPC, false),
                Read(10),
                Bytes(MESSAGE),
                Read(10),
                Bytes(MESSAGE),
                ReadAll,
                Data(7, false),
                Trailers(OK),
            ],
            "data 7",
        ),
        case(
            "an end without trailers",
            vec![Headers(GRPC, true), Answer, ReadAll],
            vec![Headers(GRPC, false), Bytes(MESSAGE), Data(0, true)],
            "end",
        ),
        case(
            "a daemon that answers and reads no further",
            vec![Headers(GRPC, false), Bytes(MESSAGE), Answer, ReadAll],
            vec![
                Read(10),
                Headers(GRPC, false),
                Trailers(OK),
                Sleep(20),
                Drop,
            ],
            "trailers",
        ),
        case(
            "a client that is gone",
            vec![Headers(GRPC, false), Bytes(MESSAGE), Meet, Drop],
            vec![Read(10), Meet, ReadAll],
            "reset CANCEL",
        ),
        case(
            "a daemon that answers nothing",
            vec![Headers(GRPC, true), Answer],
            vec![Sleep(5), Drop],
            "reset",
        ),
    ]
}

/// The call is reset with a code, in each of its states.
fn resets(code: Reason) -> Vec<Case> {
    let shows = format!("reset {code:?}");
    let case = |name: &str, client, daemon| {
        let name = format!("{name}: {code:?}");
        Case {
            name,
            script: Script { client, daemon },
            shows: shows.clone(),
        }
    };
    vec![
        case(
            "the daemon resets at once",
            vec![Headers(GRPC, false), Answer],
            vec![Reset(code)],
        ),
        case(
            "the daemon resets what the client has ended",
            vec![Headers(GRPC, true), Answer],
            vec![ReadAll, Reset(code)],
        ),
        case(
            "the daemon resets after headers",
            vec![Headers(GRPC, false), Answer, Meet, ReadAll],
            vec![Headers(GRPC, false), Meet, Reset(code)],
        ),
        case(
            "the daemon resets after data",
            vec![Headers(GRPC, true), Answer, Read(1000), Meet, ReadAll],
            vec![Headers(GRPC, false), Data(1000, false), Meet, Reset(code)],
        ),
        case(
            "data comes with its reset",
            vec![Headers(GRPC, true), Answer, Read(1000), ReadAll],
            vec![
                Cork,
                Headers(GRPC, false),
                Data(1000, false),
                Sleep(10),
                Reset(code),
                Sleep(10),
                Uncork,
            ],
        ),
        case(
            "the client resets before an answer",
            vec![Headers(GRPC, false), Bytes(MESSAGE), Meet, Reset(code)],
            vec![Read(10), Meet, ReadAll],
        ),
        case(
            "the client resets a call without a body",
            vec![Headers(GRPC, false), Meet, Reset(code)],
            vec![Meet, ReadAll],
        ),
        case(
            "the client resets within an answer",
            vec![Headers(GRPC, false), Answer, Read(1000), Meet, Reset(code)],
            vec![Headers(GRPC, false), Data(1000, false), Meet, ReadAll],
        ),
        case(
            "the client resets what it has ended",
            vec![
                Headers(GRPC, false),
                Data(0, true),
                Answer,
                Meet,
                Reset(code),
            ],
            vec![Headers(GRPC, false), Meet, Do::Told],
        ),
        case(
            "the client resets what it has ended, before an answer",
            vec![Headers(GRPC, false), Data(0, true), Meet, Reset(code)],
            vec![ReadAll, Meet, Do::Told],
        ),
    ]
}

async fn seen(way: &Way, case: &Case, of_daemon: usize) -> Seen {
    let client = way.connect().await;
    let path = format!("/test.Service/{}", case.name.replace(' ', "-"));
    way.call(&client, &path, case.script.clone())
        .seen(of_daemon)
        .await
}

async fn compare(cases: Vec<Case>) {
    let (direct, inlay) = (Way::direct(), Way::through_inlay().await);
    for case in cases {
        let expected = seen(&direct, &case, case.notes()).await;
        let shown = expected.client.iter().chain(&expected.daemon);
        assert!(
            shown.clone().any(|line| line.contains(&case.shows)),
            "{}: nobody saw {:?}: {expected:#?}",
            case.name,
            case.shows
        );
        let through = seen(&inlay, &case, expected.daemon.len()).await;
        assert_eq!(through, expected, "{}", case.name);
    }
}

// === impl Case ===

impl Case {
    /// How many notes the daemon takes.
    fn notes(&self) -> usize {
        let steps = self.script.daemon.iter();
        let notes = steps.map(|step| match step {
            Read(_) | Do::Told => 1,
            ReadAll => 2,
            _ => 0,
        });
        1 + notes.sum::<usize>()
    }
}

#[tokio::test]
async fn calls_of_every_kind_are_the_same() {
    compare(messages()).await;
}

#[tokio::test]
async fn resets_of_every_code_are_the_same() {
    compare(codes().flat_map(resets).collect()).await;
}

#[tokio::test]
async fn a_thousand_calls_at_a_time_are_the_same() {
    let script = Script {
        client: vec![
            Headers(GRPC, false),
            Meet,
            Data(20_000, true),
            Answer,
            ReadAll,
        ],
        daemon: vec![
            Meet,
            ReadAll,
            Headers(GRPC, false),
            Data(20_000, false),
            Trailers(OK),
        ],
    };
    let mut all = Vec::new();
    for way in [Way::direct(), Way::through_inlay().await] {
        let client = way.connect().await;
        let calls = (0..1000).map(|number| {
            let path = format!("/test.Service/{number}");
            way.call(&client, &path, script.clone())
        });
        let calls: Vec<_> = calls.collect();
        let mut seen = Vec::new();
        for call in calls {
            seen.push(call.seen(3).await);
        }
        all.push(seen);
    }
    assert!(
        all[0][999].client.contains(&"data 20000".to_owned()),
        "{:?}",
        all[0][999]
    );
    assert_eq!(all[0], all[1]);
}
