//! What the operator decided. The command line makes it once and hands it down.

use std::time::Duration;

use crate::protocol::imports::{Entry, INLINE, INSECURE, REGISTRY};
use crate::protocol::solve::Plan;
use crate::source::Access;

/// What inlay does for builds, and what it may read.
#[derive(Debug)]
pub struct Policy {
    /// Whether inlay makes the inline caches that builds ask for.
    pub exports: bool,
    /// The timeout for the daemon's export of the cache of one image.
    pub export_timeout: Duration,
    /// What inlay does with imports that the daemon could do alone.
    pub registry_imports: RegistryImports,
    /// Which images may be read, and how.
    pub access: Access,
}

/// What inlay does with `type=registry` imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryImports {
    /// They pass unread.
    Daemon,
    /// They are read and checked, and the daemon imports what was checked. One that cannot be fetched
    /// is left to the daemon, and one with `registry.insecure` passes unread.
    Checked,
    /// They are read and checked, and served by inlay, layers included. None is left to the daemon.
    Inlay,
}

// === impl Policy ===

impl Policy {
    /// What is left of a plan for inlay to do.
    pub fn restrict(&self, mut plan: Plan) -> Plan {
        plan.inline = plan.inline.filter(|_| self.exports);
        plan.imports
            .retain(|entry| self.registry_imports.takes(entry));
        plan
    }
}

#[cfg(test)]
impl Policy {
    /// That of an operator who gives no options.
    pub fn of_tests() -> Self {
        Self {
            exports: true,
            export_timeout: Duration::from_secs(1),
            registry_imports: RegistryImports::Checked,
            access: Access::new(crate::source::Settings::default()).unwrap(),
        }
    }
}

// === impl RegistryImports ===

impl RegistryImports {
    /// Whether inlay reads an import.
    pub fn takes(self, entry: &Entry) -> bool {
        let passes = match self {
            Self::Daemon => true,
            Self::Checked => entry.attrs.contains_key(INSECURE),
            Self::Inlay => false,
        };
        match entry.kind.as_str() {
            // No daemon knows these, with an image or without.
            INLINE => true,
            REGISTRY => entry.image().is_some() && !passes,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost::Message as _;

    use super::*;
    use crate::protocol::proto::control::{
        CacheOptions, CacheOptionsEntry, Exporter, SolveRequest,
    };

    fn policy(exports: bool, registry_imports: RegistryImports) -> Policy {
        Policy {
            exports,
            registry_imports,
            ..Policy::of_tests()
        }
    }

    fn entry(kind: &str, reference: &str) -> CacheOptionsEntry {
        CacheOptionsEntry {
            r#type: kind.to_owned(),
            attrs: HashMap::from([("ref".to_owned(), reference.to_owned())]),
        }
    }

    #[test]
    fn a_plan_is_what_the_operator_lets_inlay_do() {
        let request = SolveRequest {
            exporters: vec![Exporter {
                r#type: "image".to_owned(),
                ..Default::default()
            }],
            cache: Some(CacheOptions {
                exports: vec![entry("inline", "")],
                imports: vec![entry("inline", "oci:/images/a"), entry("registry", "a")],
                ..Default::default()
            }),
            ..Default::default()
        };
        let left = |request: &SolveRequest, policy: Policy| {
            let plan = Plan::read(&request.encode_to_vec()).unwrap();
            let plan = policy.restrict(plan);
            (plan.inline.is_some(), plan.imports.len())
        };
        let checked = RegistryImports::Checked;
        assert_eq!(left(&request, policy(true, checked)), (true, 2));
        assert_eq!(left(&request, policy(false, checked)), (false, 2));
        let daemon = RegistryImports::Daemon;
        assert_eq!(left(&request, policy(false, daemon)), (false, 1));

        let mut insecure = request.clone();
        let imports = &mut insecure.cache.as_mut().unwrap().imports;
        imports.remove(0);
        let attrs = &mut imports[0].attrs;
        attrs.insert("registry.insecure".to_owned(), "true".to_owned());
        assert_eq!(left(&insecure, policy(false, checked)), (false, 0));
        let inlay = RegistryImports::Inlay;
        assert_eq!(left(&insecure, policy(false, inlay)), (false, 1));
    }
}
