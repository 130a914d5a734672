//! Which file imports what: by `use`, and by paths within the code.
//!
//! A `pub use` of something below the module itself is a re-export and no import: it gives the thing
//! another name, by which whoever uses it imports the file that declares it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemUse, Macro, Path, Visibility};

use crate::modules::{self, Modules, Use, attributes, is_test};

/// One file's use of something in another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The file and the line that import.
    pub file: PathBuf,
    pub line: usize,
    /// What is imported, from the crate's root, where it is declared.
    pub path: Vec<String>,
    /// The file that declares it.
    pub from: PathBuf,
}

/// All imports of a crate.
pub fn of(modules: &Modules) -> BTreeSet<Import> {
    let mut imports = BTreeSet::new();
    for (path, module) in modules.iter() {
        let mut paths = Paths {
            modules,
            module: path,
            imports: &mut imports,
        };
        for one in &module.uses {
            paths.add_use(one);
        }
        for item in &module.items {
            paths.visit_item(item);
        }
    }
    imports
}

/// Collects the paths in a module's code.
struct Paths<'a> {
    modules: &'a Modules,
    module: &'a [String],
    imports: &'a mut BTreeSet<Import>,
}

// === impl Paths ===

impl Paths<'_> {
    fn add_use(&mut self, one: &Use) {
        let target = self.modules.resolve(self.module, &one.path);
        let is_below = target.is_some_and(|target| target.module.starts_with(self.module));
        if !(one.is_public && is_below) {
            self.add(&one.path, one.line);
        }
    }

    fn add(&mut self, path: &[String], line: usize) {
        let Some(target) = self.modules.resolve(self.module, path) else {
            return;
        };
        let files = [self.module, &target.module].map(|module| self.modules.get(module));
        let [Some(module), Some(declares)] = files else {
            return;
        };
        if module.file != declares.file {
            self.imports.insert(Import {
                file: module.file.clone(),
                line,
                path: [target.module, target.rest].concat(),
                from: declares.file.clone(),
            });
        }
    }

    /// A path within the code. One that begins with a name that a `use` has brought is that import,
    /// unless it leads on to another file.
    fn add_inline(&mut self, path: &[String], line: usize) {
        let Some(first) = path.first() else {
            return;
        };
        let is_used = self.modules.get(self.module).is_some_and(|module| {
            let mut uses = module.uses.iter().filter(|one| !one.is_public);
            uses.any(|one| one.name.as_ref() == Some(first))
        });
        let file_of = |path| {
            let target = self.modules.resolve(self.module, path)?;
            self.modules.get(&target.module).map(|module| &module.file)
        };
        if !is_used || file_of(&path[..1]) != file_of(path) {
            self.add(path, line);
        }
    }

    /// Paths in what a macro gets, which need not be Rust.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        // How many colons came after the last name.
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_inline(&path, line);
                        path.clear();
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                _ => {}
            }
            self.add_inline(&path, line);
            path.clear();
            colons = 0;
        }
        self.add_inline(&path, line);
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none()
            && let Some(first) = path.segments.first()
        {
            let names: Vec<String> = path
                .segments
                .iter()
                .map(|part| part.ident.to_string())
                .collect();
            self.add_inline(&names, first.ident.span().start().line);
        }
        visit::visit_path(self, path);
    }

    /// A `use` in a function.
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut uses = Vec::new();
        modules::flatten(&item.tree, Vec::new(), false, &mut uses);
        for one in uses {
            self.add_use(&one);
        }
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.add_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    /// Who may use something is not what it uses.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    /// Derives and settings of other crates, and documentation.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes: &[Attribute] = match item {
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Const(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }
}
