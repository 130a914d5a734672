//! The real inlay between real clients and real daemons. Each module is a scenario.
//!
//! `make e2e` runs them all, and `make e2e FILTER=import` those whose names have `import` in them.
//! They need root and the programs that `make peers` gets; a missing one fails its test. Each test
//! starts daemons of its own in temporary directories, on sockets and ports that nothing else has,
//! so tests run side by side.

mod cases;
mod differential;
mod direct;
mod drain;
mod earlier_versions;
mod examples;
mod failures;
mod generations;
mod history;
mod import;
mod importable;
mod indexes;
mod loopback;
mod memory;
mod mutations;
mod neighbours;
mod opt_in;
mod outputs;
mod pages;
mod plain_buildkit;
mod protocol;
mod proxy;
mod reproducible;
mod serve;
mod session;
mod several_imports;
mod shapes;
mod side_solve;
mod size;
mod soak;
mod sources;
#[path = "../support/mod.rs"]
mod support;
mod unreadable_layers;
mod week;
