//! Calls of one build, which a daemon has to get in their order.

use std::time::Duration;

use inlay::protocol::proto::control::{CacheOptions, CacheOptionsEntry, Exporter, SolveRequest};
use prost::Message as _;
use tokio::time::sleep;

use crate::peers::{Call, Client, Do, GRPC, Script, Way};

use Do::{Answer, Bytes, Headers, Meet, ReadAll, Sleep, Trailers};

const OF_BUILD: &[(&str, &[u8])] = &[
    ("buildkit-controlapi-buildid", b"build-1"),
    ("content-type", b"application/grpc"),
];
/// What a daemon says that exports no cache to sessions, and what it says of the build.
const FAILED: &[(&str, &[u8])] = &[
    ("grpc-message", b"unknown cache exporter"),
    ("grpc-status", b"2"),
];
/// How long the daemon takes to answer what inlay asks before it sends a solve.
const DAEMON_IS_BUSY: Duration = Duration::from_secs(2);

/// A solve that asks for inline cache. Its daemon is busy.
fn solve(way: &Way, client: &Client) -> Call {
    let request = SolveRequest {
        r#ref: "build-1".into(),
        exporters: vec![Exporter {
            r#type: "image".into(),
            ..Default::default()
        }],
        cache: Some(CacheOptions {
            exports: vec![CacheOptionsEntry {
                r#type: "inline".into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = [&[0][..], &length, &message].concat().leak();
    let busy = u64::try_from(DAEMON_IS_BUSY.as_millis()).unwrap();
    let script = Script {
        client: vec![
            Headers(GRPC, false),
            Bytes(framed),
            Trailers(&[]),
            Sleep(busy),
            Meet,
            Answer,
            ReadAll,
        ],
        daemon: vec![ReadAll, Meet, Headers(GRPC, false), Trailers(FAILED)],
    };
    way.call(client, "/moby.buildkit.v1.Control/Solve", script)
}

/// What a gateway client calls first.
fn ping(way: &Way, client: &Client) -> Call {
    let script = Script {
        client: vec![Headers(OF_BUILD, true), Answer, ReadAll],
        daemon: vec![
            ReadAll,
            Headers(GRPC, false),
            Trailers(&[("grpc-status", b"0")]),
        ],
    };
    way.call(client, "/moby.buildkit.v1.frontend.LLBBridge/Ping", script)
}

/// A daemon waits 3 s for the solve of a ping, and then fails the build.
#[tokio::test]
async fn a_ping_does_not_overtake_its_solve() {
    let way = Way::through_inlay().await;
    for ping_is_first in [false, true] {
        let client = way.connect().await;
        let calls = if ping_is_first {
            let ping = ping(&way, &client);
            sleep(Duration::from_millis(100)).await;
            [solve(&way, &client), ping]
        } else {
            let solve = solve(&way, &client);
            sleep(Duration::from_millis(100)).await;
            [solve, ping(&way, &client)]
        };
        sleep(DAEMON_IS_BUSY / 4).await;
        assert!(calls[0].has_arrived(), "the daemon is asked");
        assert!(!calls[1].has_arrived(), "ping first: {ping_is_first}");
        let [solve, ping] = calls;
        let failed = solve.seen(1).await.client;
        assert!(failed[2].contains("unknown cache exporter"), "{failed:?}");
        assert!(ping.seen(1).await.client[2].starts_with("trailers"));
    }
}
