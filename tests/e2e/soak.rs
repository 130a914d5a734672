//! Many clients for a long time, while clients, inlay and the daemon are killed. Each image that was
//! reported as pushed has to be whole, and inlay has to be afterwards what it was after its first
//! builds.
//!
//! `make soak SECONDS=1800 CLIENTS=200` is the long run. The test suite has 60 s of it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use inlay::cache::record::Digest;
use sha2::{Digest as _, Sha256};

use super::shapes::chance::Chance;
use super::shapes::files::Layers;
use crate::support::{
    BuildOutput, Buildkitd, Inlay, Project, Registry, Running, Stand, Usage, inline_records, seed,
    setting, wait_for,
};

/// Two layers that many builds share, and two that are one build's own.
const DOCKERFILE: &str = "\
FROM scratch
ADD rootfs.tar /
COPY shared /shared
RUN cat /shared >/copied
COPY own /own
RUN tr a-z A-Z </own >/out
";

/// After how many builds inlay is measured for the first time.
const FIRST: usize = 100;
/// The timeout for them.
const FIRST_TIMEOUT: Duration = Duration::from_secs(300);
/// How many different contents builds share.
const SHARED: usize = 8;
/// How many of a hundred clients are killed in their build.
const KILLED_CLIENTS: usize = 15;
/// How many of a hundred builds import the cache of the image before.
const IMPORTS: usize = 40;
/// The time between two kills of a server.
const BETWEEN_KILLS: Duration = Duration::from_secs(3);
/// What the allocator may keep of what is free (kB). An idle inlay had 38 to 61 MB in runs with equal
/// builds; one kB that each build leaves would be 26 MB in the long run.
const KEPT: u64 = 16 << 10;
/// The timeout for one build.
const BUILD_TIMEOUT: Duration = Duration::from_secs(300);
/// The timeout for inlay to become idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What may be killed beside clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kills {
    Nothing,
    Daemon,
    DaemonAndInlay,
}

/// An image that a client reported as pushed.
#[derive(Debug)]
struct Pushed {
    image: String,
    /// What its last step wrote.
    out: String,
    /// What its user was told.
    warnings: Vec<String>,
}

/// What all clients share.
struct Soak<'a> {
    addr: String,
    registry: &'a Registry,
    pushed: Mutex<Vec<Pushed>>,
    /// Begun builds, for names.
    begun: AtomicUsize,
    /// Finished builds of the phase.
    finished: AtomicUsize,
    /// Builds that ended with an error that a kill explains.
    broken: AtomicUsize,
    /// Odd while a server is down.
    outages: AtomicUsize,
}

/// How long a phase takes.
#[derive(Debug, Clone, Copy)]
struct Phase {
    kills: Kills,
    until: Instant,
    builds: usize,
}

// === impl Soak ===

impl<'a> Soak<'a> {
    fn new(inlay: &Inlay, registry: &'a Registry) -> Self {
        Self {
            addr: inlay.addr(),
            registry,
            pushed: Mutex::default(),
            begun: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            outages: AtomicUsize::new(0),
        }
    }

    fn is_over(&self, phase: Phase) -> bool {
        Instant::now() >= phase.until || self.finished.load(Ordering::SeqCst) >= phase.builds
    }

    /// Has all clients build, and kills what the phase says.
    fn run(&self, clients: u64, phase: Phase, inlay: &mut Inlay, buildkitd: &mut Buildkitd) {
        self.finished.store(0, Ordering::SeqCst);
        let seed = seed() ^ self.begun.load(Ordering::SeqCst) as u64;
        scope(|scope| {
            for client in 0..clients {
                scope.spawn(move || self.client(Chance::of_case(seed, client), phase));
            }
            self.kill_servers(Chance::of_case(seed, clients), phase, inlay, buildkitd);
        });
        println!(
            "{:?}: {} builds",
            phase.kills,
            self.finished.load(Ordering::SeqCst)
        );
    }

    /// Builds until the phase is over.
    fn client(&self, mut chance: Chance, phase: Phase) {
        let project = Project::new().base().dockerfile(DOCKERFILE);
        let mut before: Option<String> = None;
        while !self.is_over(phase) {
            let number = self.begun.fetch_add(1, Ordering::SeqCst);
            let image = format!("soak:{number}");
            project.write("shared", format!("shared {}\n", chance.below(SHARED)));
            project.write("own", format!("own {number}\n"));
            let name = self.registry.image(&image);
            let mut build = crate::support::Buildctl::new(&*self.addr)
                .project(&project)
                .push(&name)
                .export_cache("type=inline");
            if let (Some(before), true) = (&before, chance.percent(IMPORTS)) {
                build = build.import_cache(&format!("type=registry,ref={before}"));
            }
            let outages = self.outages.load(Ordering::SeqCst);
            let running = build.spawn();
            let is_killed = phase.kills != Kills::Nothing && chance.percent(KILLED_CLIENTS);
            if is_killed {
                sleep(Duration::from_millis(chance.below(2_000) as u64));
                running.kill();
                continue;
            }
            let built = finish(running);
            self.finished.fetch_add(1, Ordering::SeqCst);
            if built.status.success() {
                before = Some(name);
                self.pushed.lock().unwrap().push(Pushed {
                    image,
                    out: format!("OWN {number}\n"),
                    warnings: built.warnings,
                });
                continue;
            }
            let is_explained = outages % 2 == 1 || outages != self.outages.load(Ordering::SeqCst);
            assert!(
                is_explained,
                "no server was killed, and a build failed: {built}"
            );
            self.broken.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn kill_servers(
        &self,
        mut chance: Chance,
        phase: Phase,
        inlay: &mut Inlay,
        buildkitd: &mut Buildkitd,
    ) {
        let mut next = Instant::now() + BETWEEN_KILLS;
        while !self.is_over(phase) {
            sleep(Duration::from_millis(100));
            if phase.kills == Kills::Nothing || Instant::now() < next {
                continue;
            }
            self.outages.fetch_add(1, Ordering::SeqCst);
            let is_abrupt = chance.percent(50);
            if phase.kills == Kills::DaemonAndInlay && chance.percent(50) {
                inlay.restart(is_abrupt);
            } else {
                if is_abrupt {
                    buildkitd.kill();
                }
                buildkitd.restart();
            }
            self.outages.fetch_add(1, Ordering::SeqCst);
            let pause = chance.below(2 * BETWEEN_KILLS.as_millis() as usize);
            next = Instant::now() + BETWEEN_KILLS / 2 + Duration::from_millis(pause as u64);
        }
    }

    /// Every image is there, blob by blob, with the file that its last step wrote and with its cache.
    fn check(self) {
        let mut seen = BTreeSet::new();
        let mut layers = Layers::default();
        let mut without_cache = 0;
        let pushed = self.pushed.into_inner().unwrap();
        for Pushed {
            image,
            out,
            warnings,
        } in &pushed
        {
            let manifest = self.registry.image_manifest(image, None);
            let blobs = manifest["layers"].as_array().expect("an image has layers");
            for blob in blobs.iter().chain([&manifest["config"]]) {
                let digest = blob["digest"].as_str().expect("a blob has a digest");
                if seen.insert(digest.to_owned()) {
                    let stored = self.registry.stored(digest);
                    assert_eq!(Digest::of(&stored).as_str(), digest, "{image}");
                    assert_eq!(blob["size"], stored.len(), "{image}: {digest}");
                }
            }
            let files = layers.files(self.registry, &self.registry.layers(image, None));
            let expected = format!("{:x?}", &Sha256::digest(out)[..8]);
            let found = &files["out"];
            assert!(found.ends_with(&expected), "{image}: {found}, not {out:?}");

            let records = inline_records(&self.registry.config(image, None));
            let is_told = warnings.iter().any(|warning| warning.contains("inlay: "));
            assert!(
                !records.is_empty() || is_told,
                "{image} silently has no cache"
            );
            without_cache += usize::from(records.is_empty());
        }
        println!(
            "{} images are whole, {without_cache} of them told to be without cache; {} builds ended \
             with a server that was killed",
            pushed.len(),
            self.broken.into_inner(),
        );
        assert!(!pushed.is_empty());
    }
}

/// Waits for the end of a build that may not hang.
fn finish(mut running: Running) -> BuildOutput {
    let ended = wait_for(BUILD_TIMEOUT, || (!running.is_running()).then_some(()));
    assert!(ended.is_some(), "a build hangs: {}", running.kill());
    running.wait()
}

/// Waits until inlay is as idle as it was, and fails with the difference if it does not become so.
fn assert_as_before(when: &str, inlay: &Inlay, before: &Usage) {
    let is_as_before = |now: &Usage| {
        now.descriptors.abs_diff(before.descriptors) <= 5
            && now.threads <= before.threads
            && now.memory <= before.memory + before.memory / 10 + KEPT
    };
    let settled = wait_for(IDLE_TIMEOUT, || {
        sleep(Duration::from_millis(500));
        is_as_before(&inlay.usage()).then_some(())
    });
    let now = inlay.usage();
    println!("{when}: {now:?}");
    assert!(settled.is_some(), "{when}: {now:?}, and before {before:?}");
}

#[test]
fn clients_inlay_and_the_daemon_are_killed_and_no_image_is_lost() {
    let seconds = Duration::from_secs(setting("INLAY_SOAK_SECONDS", 60));
    let clients = setting("INLAY_SOAK_CLIENTS", 8);
    let Stand {
        mut inlay,
        mut buildkitd,
        registry,
    } = Stand::start();
    let soak = Soak::new(&inlay, &registry);
    let phase = |kills, hundredths: u32, builds| Phase {
        kills,
        until: Instant::now() + seconds * hundredths / 100,
        builds,
    };
    let first_builds = Phase {
        kills: Kills::Nothing,
        until: Instant::now() + FIRST_TIMEOUT,
        builds: FIRST,
    };

    soak.run(clients, first_builds, &mut inlay, &mut buildkitd);
    inlay.idle_sockets();
    // The threads of work that blocks end when there is none.
    sleep(Duration::from_secs(12));
    let first = inlay.usage();
    println!("after the first builds: {first:?}");

    soak.run(
        clients,
        phase(Kills::Daemon, 40, usize::MAX),
        &mut inlay,
        &mut buildkitd,
    );
    assert_as_before("after kills of clients and the daemon", &inlay, &first);

    soak.run(
        clients,
        phase(Kills::DaemonAndInlay, 40, usize::MAX),
        &mut inlay,
        &mut buildkitd,
    );
    assert_as_before("after kills of inlay", &inlay, &first);

    soak.run(
        clients,
        phase(Kills::Nothing, 20, FIRST),
        &mut inlay,
        &mut buildkitd,
    );
    assert_as_before("at the end", &inlay, &first);
    soak.check();
}
