//! The registry on a loopback address from which daemons import what inlay serves. Other users of the
//! machine reach it, too.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::{Buildctl, Project, SOON, Stand, wait_for};

/// What it answers to a request: the status line and all that follows. Nothing if it is gone.
fn ask(host: &str, method: &str, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(host) else {
        return String::new();
    };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Who does not know the random name of a build's cache finds nothing, and after the build nobody does.
#[test]
fn a_stranger_reads_no_image_of_a_build() {
    let images = tempfile::tempdir().unwrap();
    let mut stand = Stand::reading(images.path());
    let steps = "FROM scratch\nADD rootfs.tar /\nCOPY f /f\n";
    let project = Project::new()
        .base()
        .file("f", "secret\n")
        .dockerfile(steps);
    let layout = images.path().join("app");
    let build = stand.build(&project).export_cache("type=inline");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    build.clone().output(&output).run_ok();
    stand.push(&build, "app:1", "");
    let layers = stand.registry.layers("app:1", None);

    stand.buildkitd.wipe();
    let before = stand.buildkitd.log().len();
    project.write("Dockerfile", format!("{steps}RUN sleep 1000\n"));
    let import = format!("type=inline,ref=oci:{}", layout.display());
    let running = build.import_cache(&import).spawn();
    let started = wait_for(6 * SOON, || {
        let processes = stand.buildkitd.processes();
        let sleeps = processes.iter().any(|line| line.contains("sleep 1000"));
        sleeps.then_some(())
    });
    assert!(started.is_some(), "{}", running.kill());
    // The daemon's log has the address and, last, the name by which it imports.
    let log = stand.buildkitd.log();
    let mut named = log[before..].rsplit("127.0.0.1:");
    let (port, rest) = named.find_map(|at| at.split_once("/v2/inlay/")).unwrap();
    let host = format!("127.0.0.1:{port}");
    let name = format!("inlay/{}", rest.split([':', '"', '/', ' ']).next().unwrap());
    let manifest = format!("/v2/{name}/manifests/cache");
    let answer = ask(&host, "GET", &manifest);
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "{host} {name}: {answer}"
    );

    let other = "inlay/0000000000000000000000000";
    let mut paths = vec![
        "/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/inlay/tags/list".to_owned(),
        "/v2/inlay/manifests/cache".to_owned(),
        format!("/v2/{name}/tags/list"),
        format!("/v2/{other}/manifests/cache"),
        format!("/v2/{other}/../{name}/manifests/cache"),
        format!("/v2/inlay//{}", &manifest[1..]),
    ];
    for layer in &layers {
        for repository in ["inlay", other, "app", &name[..name.len() - 1]] {
            paths.push(format!("/v2/{repository}/blobs/{layer}"));
        }
    }
    for path in &paths {
        for method in ["GET", "HEAD"] {
            let answer = ask(&host, method, path);
            assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
            assert!(!answer.contains(&name), "{path}: {answer}");
        }
    }
    for method in ["PUT", "POST", "DELETE", "PATCH"] {
        let answer = ask(&host, method, &manifest);
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }

    running.kill();
    let gone = wait_for(SOON, || {
        let answer = ask(&host, "GET", &manifest);
        (!answer.starts_with("HTTP/1.1 200")).then_some(())
    });
    assert!(gone.is_some(), "the cache is there after its build");
}

/// A daemon in a container reaches no loopback address of inlay's. It imports by the session of the client.
#[test]
fn a_daemon_in_another_network_imports_by_sessions() {
    let images = tempfile::tempdir().unwrap();
    let mut stand = Stand::in_two_networks(images.path());
    let steps = "\
FROM scratch AS shared
ADD rootfs.tar /
COPY f /f
FROM shared AS one
RUN cat /f >/one
FROM shared AS two
RUN cat /f >/two
FROM shared AS both
COPY --from=one /one /
COPY --from=two /two /
";
    let project = Project::new().base().file("f", "text\n").dockerfile(steps);
    let layout = |target: &str| images.path().join(target);
    for target in ["one", "two"] {
        let output = format!("type=oci,tar=false,dest={}", layout(target).display());
        let build = stand.build(&project).opt(&format!("target={target}"));
        build.export_cache("type=inline").output(&output).run_ok();
    }
    let import = |build: Buildctl, target: &str| {
        build.import_cache(&format!("type=inline,ref=oci:{}", layout(target).display()))
    };
    let files = images.path().join("files");
    for (target, copies) in [("one", 0), ("two", 0), ("both", 2)] {
        stand.buildkitd.wipe();
        let build = stand.build(&project).opt(&format!("target={target}"));
        let built = ["one", "two"].into_iter().fold(build, import);
        let output = format!("type=local,dest={}", files.join(target).display());
        let built = built.output(&output).run_ok();
        assert_eq!(built.steps_ran().len(), copies, "{target}: {built}");
        assert_eq!(built.warnings, [""; 0], "{built}");
    }
    for file in ["one/one", "two/two", "both/one", "both/two"] {
        assert_eq!(std::fs::read_to_string(files.join(file)).unwrap(), "text\n");
    }
    assert!(stand.inlay.log().contains("caches are served by sessions"));
}
