//! Digests and selectors that BuildKit derives from an operation alone, as v0.34.2 and, in
//! another [`Dialect`], v0.13.2 do. Digests of files and of sources are not derived here.
//!
//! The functions return `None` (unknown) for operations that they do not cover, and for values that another
//! version of BuildKit or Go writes differently. A digest that is wrong nevertheless equals no record's
//! digest, so nothing is concluded from it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    gojson::Object,
    graph::{ABSENT, Edge, Graph, Vertex},
};
use crate::cache::image::normalized;
use crate::cache::record::Digest;
use crate::protocol::proto::pb::{
    self, MountContentCache, MountType, file_action::Action, op::Op, user_opt,
};

/// The output number in the record digest of a key made from content.
const CONTENT: i64 = -1;

/// How Go writes protobuf messages as JSON, which depends on the daemon's protobuf library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Numbers of inputs and outputs are left out where they are 0, as in v0.34.2.
    Current,
    /// Numbers of inputs and outputs are always written, and a user's number has another name, as in v0.13.2.
    Gogo,
}

impl Dialect {
    /// All that are known.
    pub const ALL: [Self; 2] = [Self::Current, Self::Gogo];
}

/// The digest of the record for one output of an operation with this cache-map digest.
pub fn record_digest(operation: &Digest, output: i64) -> Digest {
    Digest::of(format!("{operation}@{output}").as_bytes())
}

/// The digest of the root record for this content digest.
pub fn content_root(content: &Digest) -> Digest {
    record_digest(content, CONTENT)
}

/// The digest of `edge`'s records, if the operation alone tells it.
pub fn edge_digest(
    graph: &Graph,
    edge: Edge,
    default: Option<&pb::Platform>,
    dialect: Dialect,
) -> Option<Digest> {
    let vertex = graph.vertices().get(edge.vertex)?;
    let operation = operation_digest(vertex, default, dialect)?;
    Some(record_digest(&operation, edge.output))
}

/// Whether a record's digest is that of an edge, in any dialect.
pub fn is_of_edge(
    graph: &Graph,
    edge: Edge,
    default: Option<&pb::Platform>,
    record: &Digest,
) -> bool {
    let mut dialects = Dialect::ALL.into_iter();
    dialects.any(|dialect| edge_digest(graph, edge, default, dialect).as_ref() == Some(record))
}

/// The cache-map digest of an exec, file, merge or diff operation. `default` is the platform of
/// the daemon, for operations that name none.
pub fn operation_digest(
    vertex: &Vertex,
    default: Option<&pb::Platform>,
    dialect: Dialect,
) -> Option<Digest> {
    if !vertex.complete {
        return None;
    }
    let json = match vertex.op.op.as_ref()? {
        Op::Exec(exec) => exec_json(exec, &platform(&vertex.op, default)?, dialect)?,
        Op::File(file) => file_json(file, vertex.inputs.len(), dialect)?,
        Op::Merge(merge) => Object::new()
            .always("Type", "buildkit.merge.v0")
            .always_object(
                "Merge",
                Object::new().objects("inputs", &merge.inputs, |input| {
                    Object::new().index("input", input.input, dialect)
                }),
            )
            .finish()?,
        Op::Diff(diff) => {
            let side = |input| Object::new().index("input", input, dialect);
            Object::new()
                .always("Type", "buildkit.diff.v0")
                .always_object(
                    "Diff",
                    Object::new()
                        .object("lower", diff.lower.map(|lower| side(lower.input)))
                        .object("upper", diff.upper.map(|upper| side(upper.input))),
                )
                .finish()?
        }
        Op::Source(_) | Op::Build(_) | Op::Passthrough(_) => return None,
    };
    Some(Digest::of(&json))
}

/// The digest of the root record that BuildKit makes for the manifest of an image that the
/// definition pins by digest. BuildKit before v0.34 may know the image by its config as well.
pub fn manifest_root(vertex: &Vertex, default: Option<&pb::Platform>) -> Option<Digest> {
    let Some(Op::Source(source)) = &vertex.op.op else {
        return None;
    };
    let (scheme, reference) = source.identifier.split_once("://")?;
    if !matches!(scheme, "docker-image" | "oci-layout") {
        return None;
    }
    if (source.attrs.keys()).any(|key| key.ends_with(".layerlimit")) {
        return None;
    }
    let (_, digest) = reference.rsplit_once('@')?;
    let hex = digest.strip_prefix("sha256:")?;
    if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let platform = platform(&vertex.op, default)?;
    let json = Object::new()
        .always("Digest", digest)
        .always("OS", &platform.os)
        .always("Arch", &platform.architecture)
        .string("Variant", &platform.variant)
        .string("OSVersion", &platform.os_version)
        .strings("OSFeatures", &platform.os_features)
        .finish()?;
    let key = format!("buildkit.source.v0:{}", Digest::of(&json));
    Some(record_digest(&Digest::of(key.as_bytes()), 0))
}

// === how an operation's inputs are looked up ===

/// How BuildKit keys one input of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputKey {
    /// The selector of links to the keys of the input's definition.
    pub selector: String,
    /// Whether the input is keyed by content too. Such a link has no selector.
    pub content: bool,
}

/// How BuildKit v0.34.2 keys each input; `None` for operations not covered. v0.13.2 differs for
/// commands with secrets or SSH, whose mounts it counts as mounts of the first input.
pub fn input_keys(vertex: &Vertex) -> Option<Vec<InputKey>> {
    if !vertex.complete {
        return None;
    }
    let count = vertex.inputs.len();
    match vertex.op.op.as_ref()? {
        Op::Exec(exec) => exec_keys(exec, count),
        Op::File(file) => file_keys(file, count),
        Op::Merge(_) | Op::Diff(_) => {
            let key = InputKey {
                selector: String::new(),
                content: false,
            };
            Some(vec![key; count])
        }
        Op::Source(_) | Op::Build(_) | Op::Passthrough(_) => None,
    }
}

fn exec_keys(exec: &pb::ExecOp, count: usize) -> Option<Vec<InputKey>> {
    let mut paths: Vec<Vec<String>> = vec![Vec::new(); count];
    let mut content = vec![false; count];
    for mount in &exec.mounts {
        let kind = MountType::try_from(mount.mount_type).ok()?;
        if matches!(kind, MountType::Secret | MountType::Ssh | MountType::Tmpfs)
            || mount.input == ABSENT
        {
            continue;
        }
        let input = usize::try_from(mount.input).ok().filter(|&i| i < count)?;
        let path = clean(&mount.selector);
        // The number -1 means no output.
        let safe = mount.output == ABSENT || mount.readonly || path == "/";
        // As BuildKit has it, the last mount of an input decides.
        content[input] = match MountContentCache::try_from(mount.content_cache).ok()? {
            MountContentCache::Off => false,
            MountContentCache::On => true,
            MountContentCache::Default => safe && mount.dest != "/",
        };
        paths[input].push(path);
    }
    let keys = paths.into_iter().zip(content).map(|(paths, content)| {
        let selector = if paths.is_empty() {
            String::new()
        } else {
            Digest::of(paths.join("\0").as_bytes()).to_string()
        };
        InputKey { selector, content }
    });
    Some(keys.collect())
}

fn file_keys(file: &pb::FileOp, count: usize) -> Option<Vec<InputKey>> {
    let mut paths: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    let mut changed = BTreeSet::new();
    for action in &file.actions {
        changed.insert(action.input);
        let owner = match action.action.as_ref()? {
            Action::Copy(copy) => {
                if action.secondary_input != ABSENT {
                    (paths.entry(action.secondary_input).or_default()).push(&copy.src);
                }
                &copy.owner
            }
            Action::Mkfile(mkfile) => &mkfile.owner,
            Action::Mkdir(mkdir) => &mkdir.owner,
            Action::Symlink(symlink) => &symlink.owner,
            Action::Rm(_) => &None,
        };
        let owner = owner.clone().unwrap_or_default();
        for (who, path) in [(owner.user, "/etc/passwd"), (owner.group, "/etc/group")] {
            if let Some(user_opt::User::ByName(named)) = who.and_then(|who| who.user) {
                paths.entry(named.input).or_default().push(path);
            }
        }
    }
    let keys = (0..count as i64).map(|input| match paths.get_mut(&input) {
        Some(paths) if !changed.contains(&input) => {
            paths.sort_unstable_by(|a, b| b.cmp(a));
            InputKey {
                selector: Digest::of(paths.join("\0").as_bytes()).to_string(),
                content: true,
            }
        }
        _ => InputKey {
            selector: String::new(),
            content: false,
        },
    });
    Some(keys.collect())
}

// === what BuildKit hashes ===

impl Object {
    /// The number of an input or output.
    fn index(self, name: &str, value: i64, dialect: Dialect) -> Self {
        match dialect {
            Dialect::Current => self.int(name, value),
            Dialect::Gogo => self.always_int(name, value),
        }
    }
}

fn exec_json(exec: &pb::ExecOp, platform: &pb::Platform, dialect: Dialect) -> Option<Vec<u8>> {
    // The daemon replaces requests for devices by what it grants.
    if !exec.cdi_devices.is_empty() {
        return None;
    }
    let meta = exec.meta.as_ref().map(|meta| {
        Object::new()
            .strings("args", &meta.args)
            .strings("env", &meta.env)
            .string("cwd", &meta.cwd)
            .string("user", &meta.user)
            // Proxies and the addresses of extra hosts are no part of the key.
            .objects("extraHosts", &meta.extra_hosts, |host| {
                Object::new().string("Host", &host.host)
            })
            .string("hostname", &meta.hostname)
            .objects("ulimit", &meta.ulimit, |limit| {
                Object::new()
                    .string("Name", &limit.name)
                    .int("Soft", limit.soft)
                    .int("Hard", limit.hard)
            })
            .string("cgroupParent", &meta.cgroup_parent)
            .flag(
                "removeMountStubsRecursive",
                meta.remove_mount_stubs_recursive,
            )
            .ints("validExitCodes", &meta.valid_exit_codes)
    });
    let mounts = match exec.mounts.as_slice() {
        [only] if is_plain_root(only) => &[],
        mounts => mounts,
    };
    let exec = Object::new()
        .object("meta", meta)
        .objects("mounts", mounts, |mount| mount_json(mount, dialect))
        .int("network", exec.network)
        .int("security", exec.security)
        .objects("secretenv", &exec.secretenv, |secret| {
            Object::new()
                .string("ID", &secret.id)
                .string("name", &secret.name)
                .flag("optional", secret.optional)
        });
    Object::new()
        .always("Type", "buildkit.exec.v0")
        .always_object("Exec", exec)
        .always("OS", &platform.os)
        .always("Arch", &platform.architecture)
        .string("Variant", &platform.variant)
        .string("OSVersion", &platform.os_version)
        .strings("OSFeatures", &platform.os_features)
        .finish()
}

/// The one mount of a plain `RUN`, which BuildKit leaves out.
fn is_plain_root(mount: &pb::Mount) -> bool {
    mount.dest == "/"
        && !mount.readonly
        && mount.mount_type == MountType::Bind as i32
        && mount.cache_opt.is_none()
        && mount.ssh_opt.is_none()
        && mount.secret_opt.is_none()
        && mount.result_id.is_empty()
}

/// A mount without its selector, which belongs to the link.
fn mount_json(mount: &pb::Mount, dialect: Dialect) -> Object {
    let cache = mount.cache_opt.as_ref().map(|cache| {
        let named_after_path = cache.id == mount.dest
            || (cache.id.split_once('/')).is_some_and(|(_, rest)| rest == mount.dest);
        if named_after_path && cache.sharing == 0 {
            Object::new().string("ID", &cache.id)
        } else {
            Object::new()
        }
    });
    let secret = mount.secret_opt.as_ref().map(|secret| {
        Object::new()
            .string("ID", &secret.id)
            .int("uid", secret.uid)
            .int("gid", secret.gid)
            .int("mode", secret.mode)
            .flag("optional", secret.optional)
    });
    let ssh = mount.ssh_opt.as_ref().map(|ssh| {
        Object::new()
            .string("ID", &ssh.id)
            .int("uid", ssh.uid)
            .int("gid", ssh.gid)
            .int("mode", ssh.mode)
            .flag("optional", ssh.optional)
    });
    let tmpfs = (mount.tmpfs_opt.as_ref()).map(|tmpfs| Object::new().int("size", tmpfs.size));
    Object::new()
        .index("input", mount.input, dialect)
        .string("dest", &mount.dest)
        .index("output", mount.output, dialect)
        .flag("readonly", mount.readonly)
        .int("mountType", mount.mount_type)
        .object("TmpfsOpt", tmpfs)
        .object("cacheOpt", cache)
        .object("secretOpt", secret)
        .object("SSHOpt", ssh)
        .string("resultID", &mount.result_id)
        .int("contentCache", mount.content_cache)
}

fn file_json(file: &pb::FileOp, inputs: usize, dialect: Dialect) -> Option<Vec<u8>> {
    let actions: Option<Vec<_>> = (file.actions.iter())
        .map(|action| action_json(action, inputs, dialect))
        .collect();
    let indexes: Vec<_> = (file.actions.iter())
        .map(|action| [action.input, action.secondary_input, action.output])
        .collect();
    let indexes = if is_usual(&indexes) { &[] } else { &*indexes };
    Object::new()
        .always("Type", "buildkit.file.v0")
        .always_blobs("Actions", &actions?)
        .triples("indexes", indexes)
        .finish()
}

/// Whether the actions form a chain from the first input to the only output, where copies are from the
/// second input. BuildKit leaves out the numbers then.
fn is_usual(indexes: &[[i64; 3]]) -> bool {
    let count = indexes.len();
    let usual = |(at, &[input, secondary, output]): (usize, &[i64; 3])| {
        let first = at == 0;
        let last = at + 1 == count;
        input == if first { 0 } else { (count + at - 1) as i64 }
            && matches!(secondary, ABSENT | 1)
            && output == if last { 0 } else { ABSENT }
    };
    count > 0 && indexes.iter().enumerate().all(usual)
}

fn action_json(action: &pb::FileAction, inputs: usize, dialect: Dialect) -> Option<Vec<u8>> {
    let owner_json = |owner: &pb::ChownOpt| owner_json(owner, dialect);
    let object = match action.action.as_ref()? {
        Action::Copy(copy) => {
            // The selector of the link has the folder that is copied from.
            let from_input =
                action.secondary_input != ABSENT && action.secondary_input < inputs as i64;
            let src = if from_input {
                base(&copy.src)
            } else {
                &copy.src
            };
            Object::new()
                .string("src", src)
                .string("dest", &copy.dest)
                .object("owner", copy.owner.as_ref().map(owner_json))
                .int("mode", copy.mode)
                .flag("followSymlink", copy.follow_symlink)
                .flag("dirCopyContents", copy.dir_copy_contents)
                .flag(
                    "attemptUnpackDockerCompatibility",
                    copy.attempt_unpack_docker_compatibility,
                )
                .flag("createDestPath", copy.create_dest_path)
                .flag("allowWildcard", copy.allow_wildcard)
                .flag("allowEmptyWildcard", copy.allow_empty_wildcard)
                .int("timestamp", copy.timestamp)
                .strings("include_patterns", &copy.include_patterns)
                .strings("exclude_patterns", &copy.exclude_patterns)
                .flag(
                    "alwaysReplaceExistingDestPaths",
                    copy.always_replace_existing_dest_paths,
                )
                .string("modeStr", &copy.mode_str)
                .strings("required_paths", &copy.required_paths)
        }
        Action::Mkfile(mkfile) => Object::new()
            .string("path", &mkfile.path)
            .int("mode", mkfile.mode)
            .bytes("data", &mkfile.data)
            .object("owner", mkfile.owner.as_ref().map(owner_json))
            .int("timestamp", mkfile.timestamp),
        Action::Mkdir(mkdir) => Object::new()
            .string("path", &mkdir.path)
            .int("mode", mkdir.mode)
            .flag("makeParents", mkdir.make_parents)
            .object("owner", mkdir.owner.as_ref().map(owner_json))
            .int("timestamp", mkdir.timestamp),
        Action::Rm(rm) => Object::new()
            .string("path", &rm.path)
            .flag("allowNotFound", rm.allow_not_found)
            .flag("allowWildcard", rm.allow_wildcard),
        Action::Symlink(symlink) => Object::new()
            .string("oldpath", &symlink.oldpath)
            .string("newpath", &symlink.newpath)
            .object("owner", symlink.owner.as_ref().map(owner_json))
            .int("timestamp", symlink.timestamp),
    };
    object.finish()
}

fn owner_json(owner: &pb::ChownOpt, dialect: Dialect) -> Object {
    let who = |who: &pb::UserOpt| {
        let who = match &who.user {
            Some(user_opt::User::ByName(named)) => Object::new().object(
                "byName",
                Some(Object::new().string("name", &named.name).index(
                    "input",
                    named.input,
                    dialect,
                )),
            ),
            Some(user_opt::User::ById(id)) => match dialect {
                Dialect::Current => Object::new().int("byId", *id),
                Dialect::Gogo => Object::new().int("byID", *id),
            },
            None => Object::new(),
        };
        Object::new().always_object("User", who)
    };
    Object::new()
        .object("user", owner.user.as_ref().map(who))
        .object("group", owner.group.as_ref().map(who))
}

// === platforms and paths, as in Go ===

/// The operation's platform in containerd's normal form.
fn platform(op: &pb::Op, default: Option<&pb::Platform>) -> Option<pb::Platform> {
    let mut platform = op.platform.as_ref().or(default)?.clone();
    platform.os = match platform.os.to_lowercase().as_str() {
        // The daemon's own.
        "" => return None,
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    };
    let architecture = platform.architecture.to_lowercase();
    let is_arm64 = matches!(&*architecture, "aarch64" | "arm64");
    if is_arm64 && !matches!(platform.variant.to_lowercase().as_str(), "" | "8" | "v8") {
        // Versions of containerd differ.
        return None;
    }
    (platform.architecture, platform.variant) =
        normalized(&platform.architecture, &platform.variant);
    platform.os_features.sort_unstable();
    platform.os_features.dedup();
    Some(platform)
}

/// Go's `path.Base`.
fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/",
        Some(base) => base,
    }
}

/// Go's `path.Join("/", path)`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_gos() {
        for (path, expected) in [
            ("", "."),
            ("/", "/"),
            ("//", "/"),
            ("a", "a"),
            ("/a/b/", "b"),
            ("/a/*.txt", "*.txt"),
            (".", "."),
        ] {
            assert_eq!(base(path), expected, "{path:?}");
        }
        for (path, expected) in [
            ("", "/"),
            ("a/../b", "/b"),
            ("../x", "/x"),
            ("/a//./b/", "/a/b"),
        ] {
            assert_eq!(clean(path), expected, "{path:?}");
        }
    }

    #[test]
    fn the_usual_numbers_of_actions() {
        assert!(is_usual(&[[0, 1, 0]]));
        assert!(is_usual(&[[0, -1, -1], [2, 1, 0]]));
        assert!(!is_usual(&[[-1, 0, 0]]));
        assert!(!is_usual(&[[0, 2, 0]]));
        assert!(!is_usual(&[[0, -1, 0], [2, 1, 1]]));
        assert!(!is_usual(&[]));
    }

    #[test]
    fn platforms_are_normalized_or_unknown() {
        let op = |os: &str, architecture: &str, variant: &str| pb::Op {
            platform: Some(pb::Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: variant.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let normal = |op: &pb::Op| {
            platform(op, None).map(|p| format!("{}/{}/{}", p.os, p.architecture, p.variant))
        };
        assert_eq!(
            normal(&op("Linux", "x86_64", "v1")).unwrap(),
            "linux/amd64/"
        );
        assert_eq!(
            normal(&op("linux", "aarch64", "v8")).unwrap(),
            "linux/arm64/"
        );
        assert_eq!(normal(&op("linux", "arm", "")).unwrap(), "linux/arm/v7");
        assert_eq!(normal(&op("linux", "arm64", "v9")), None);
        assert_eq!(normal(&op("", "amd64", "")), None);
        assert_eq!(normal(&pb::Op::default()), None);
    }
}
