//! The tree of a crate's modules: in which file each is, and which names it imports.
//!
//! Modules and items under `#[cfg(test)]` are left out.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use syn::{Attribute, Ident, Item, Meta, UseTree, Visibility};

/// The text of each file of a folder, by its path below that.
pub type Files = BTreeMap<PathBuf, String>;

/// The names of a module from the crate's root, as in `["cache", "record"]`.
pub type ModulePath = Vec<String>;

/// All modules of a crate.
pub struct Modules {
    all: BTreeMap<ModulePath, Module>,
}

/// One module, in a file of its own or in that of the module around it.
pub struct Module {
    /// Its file.
    pub file: PathBuf,
    /// Whether `file` is its own.
    pub is_file: bool,
    /// What is declared in it.
    pub items: Vec<Item>,
    pub uses: Vec<Use>,
}

/// One name that a `use` brings into a module.
#[derive(Clone)]
pub struct Use {
    /// The name in the module, or `None` for all names of a glob.
    pub name: Option<String>,
    /// What it is the name of.
    pub path: Vec<String>,
    /// Whether others can import it from here.
    pub is_public: bool,
    pub line: usize,
}

/// What a path in the source leads to.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The module that it is in, or the module itself.
    pub module: ModulePath,
    /// What is named within the module.
    pub rest: Vec<String>,
}

// === impl Modules ===

impl Modules {
    /// The modules that `lib.rs` declares, and those that these declare.
    pub fn of(files: &Files) -> Result<Self, String> {
        let mut modules = Self {
            all: BTreeMap::new(),
        };
        modules.add_file(files, Path::new("lib.rs"), Vec::new())?;
        Ok(modules)
    }

    fn add_file(&mut self, files: &Files, file: &Path, path: ModulePath) -> Result<(), String> {
        let text = files.get(file).map_or("", String::as_str);
        let parsed = syn::parse_file(text).map_err(|err| format!("{}: {err}", file.display()))?;
        self.add(files, file, true, path, parsed.items)
    }

    fn add(
        &mut self,
        files: &Files,
        file: &Path,
        is_file: bool,
        path: ModulePath,
        items: Vec<Item>,
    ) -> Result<(), String> {
        let mut module = Module {
            file: file.to_owned(),
            is_file,
            items: Vec::new(),
            uses: Vec::new(),
        };
        for item in items.into_iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Mod(inner) => {
                    let name = inner.ident.to_string();
                    let path = [path.clone(), vec![name.clone()]].concat();
                    match inner.content {
                        Some((_, items)) => self.add(files, file, false, path, items)?,
                        None => {
                            let child = child(files, file, &path).ok_or_else(|| {
                                format!("{}: mod {name} has no file", file.display())
                            })?;
                            self.add_file(files, &child, path)?;
                        }
                    }
                }
                Item::Use(item) => {
                    let is_public = !matches!(item.vis, Visibility::Inherited);
                    flatten(&item.tree, Vec::new(), is_public, &mut module.uses);
                }
                item => module.items.push(item),
            }
        }
        self.all.insert(path, module);
        Ok(())
    }

    /// Every module with its path.
    pub fn iter(&self) -> impl Iterator<Item = (&ModulePath, &Module)> {
        self.all.iter()
    }

    /// Every file.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let modules = self.all.values().filter(|module| module.is_file);
        modules.map(|module| module.file.as_path())
    }

    pub fn get(&self, path: &[String]) -> Option<&Module> {
        self.all.get(path)
    }

    /// What a path leads to that is written in a module. `None` where it is not of this crate, or
    /// is a name of that module itself.
    pub fn resolve(&self, from: &[String], path: &[String]) -> Option<Target> {
        self.resolve_once(from, path, &mut HashSet::new())
    }

    /// `seen` are the names that are being resolved: one that leads to itself leads nowhere.
    fn resolve_once(
        &self,
        from: &[String],
        path: &[String],
        seen: &mut HashSet<(ModulePath, String)>,
    ) -> Option<Target> {
        let mut start = from.to_vec();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                start.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while let [first, more @ ..] = rest
                    && first == "super"
                {
                    start.pop()?;
                    rest = more;
                }
            }
            // A name of this module: a module in it, or one that it imports.
            name => {
                let is_child = self.all.contains_key(&[from, &[name.to_owned()]].concat());
                if !is_child {
                    return self.imported(from, path, seen);
                }
            }
        }
        self.walk(start, rest, seen)
    }

    /// What a path means in a module that is known.
    fn walk(
        &self,
        mut module: ModulePath,
        mut rest: &[String],
        seen: &mut HashSet<(ModulePath, String)>,
    ) -> Option<Target> {
        while let [name, more @ ..] = rest {
            let child = [module.clone(), vec![name.clone()]].concat();
            if self.all.contains_key(&child) {
                module = child;
                rest = more;
                continue;
            }
            match self.imported(&module, rest, seen) {
                Some(target) if !self.is_one_file(&module, &target.module) => return Some(target),
                // What a module in the same file declares is known by the name outside of it.
                _ => break,
            }
        }
        Some(Target {
            module,
            rest: rest.to_vec(),
        })
    }

    /// What a path means whose first name a module imports, by itself or by a glob.
    fn imported(
        &self,
        module: &[String],
        path: &[String],
        seen: &mut HashSet<(ModulePath, String)>,
    ) -> Option<Target> {
        let [name, more @ ..] = path else {
            return None;
        };
        if !seen.insert((module.to_vec(), name.clone())) {
            return None;
        }
        let uses = &self.all.get(module)?.uses;
        let named = uses.iter().find(|one| one.name.as_deref() == Some(name));
        if let Some(one) = named {
            let target = self.resolve_once(module, &one.path, seen)?;
            return match target.rest.is_empty() {
                true => self.walk(target.module, more, seen),
                false => Some(Target {
                    rest: [&target.rest, more].concat(),
                    ..target
                }),
            };
        }
        for glob in uses.iter().filter(|one| one.name.is_none()) {
            let Some(target) = self.resolve_once(module, &glob.path, seen) else {
                continue;
            };
            if target.rest.is_empty() && self.declares(&target.module, name) {
                return self.walk(target.module, path, seen);
            }
        }
        None
    }

    fn is_one_file(&self, one: &[String], other: &[String]) -> bool {
        let [one, other] = [one, other].map(|path| self.all.get(path).map(|module| &module.file));
        one == other
    }

    /// Whether a module has a name: of an item, a module in it, or something that it exports.
    fn declares(&self, path: &[String], name: &str) -> bool {
        let Some(module) = self.all.get(path) else {
            return false;
        };
        let mut exported = module.uses.iter().filter(|one| one.is_public);
        self.all.contains_key(&[path, &[name.to_owned()]].concat())
            || exported.any(|one| one.name.as_deref() == Some(name))
            || module
                .items
                .iter()
                .any(|item| ident(item).is_some_and(|ident| ident == name))
    }
}

/// Reads the Rust files of a folder, and of those in it.
pub fn read(src: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(src.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.insert(path, fs::read_to_string(entry.path())?);
            }
        }
    }
    Ok(files)
}

/// Whether something is compiled for tests alone: `cfg(test)`, or `cfg(all(test, …))`.
pub fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else {
            return false;
        };
        let mut words = list.tokens.clone().into_iter();
        list.path.is_ident("cfg")
            && match words.next().map(|word| word.to_string()).as_deref() {
                Some("test") => words.next().is_none(),
                Some("all") => words.next().is_some_and(|inner| match inner {
                    proc_macro2::TokenTree::Group(group) => group
                        .stream()
                        .into_iter()
                        .any(|word| word.to_string() == "test"),
                    _ => false,
                }),
                _ => false,
            }
    })
}

/// The attributes of an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item declares. Impls have none.
fn ident(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Macro(item) => item.ident.as_ref(),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::TraitAlias(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

/// The file of a module that a file declares: beside a `mod.rs` or `lib.rs`, below any other.
fn child(files: &Files, file: &Path, path: &[String]) -> Option<PathBuf> {
    let name = path.last()?;
    let folder = match file.file_name()?.to_str()? {
        "mod.rs" | "lib.rs" => file.parent()?.to_owned(),
        _ => file.with_extension(""),
    };
    let candidates = [format!("{name}.rs"), format!("{name}/mod.rs")].map(|file| folder.join(file));
    candidates.into_iter().find(|file| files.contains_key(file))
}

/// The names that a `use` brings.
pub fn flatten(tree: &UseTree, mut path: Vec<String>, is_public: bool, uses: &mut Vec<Use>) {
    let mut add = |name: Option<String>, path: Vec<String>, line: usize| {
        uses.push(Use {
            name,
            path,
            is_public,
            line,
        });
    };
    match tree {
        UseTree::Path(inner) => {
            path.push(inner.ident.to_string());
            flatten(&inner.tree, path, is_public, uses);
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, path.clone(), is_public, uses);
            }
        }
        UseTree::Name(leaf) => {
            let line = leaf.ident.span().start().line;
            if leaf.ident != "self" {
                path.push(leaf.ident.to_string());
            }
            add(path.last().cloned(), path, line);
        }
        UseTree::Rename(leaf) => {
            let line = leaf.ident.span().start().line;
            if leaf.ident != "self" {
                path.push(leaf.ident.to_string());
            }
            add(Some(leaf.rename.to_string()), path, line);
        }
        UseTree::Glob(glob) => {
            let line = glob.star_token.spans[0].start().line;
            add(None, path, line);
        }
    }
}
