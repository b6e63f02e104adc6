//! All libraries of one gateway, each loaded once.

use std::{
    collections::HashMap,
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fmt::Write,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use conexus_plugin_api::{Capabilities, StaticPlugin, host::Library};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{
    LoadError,
    copies::Copies,
    image::{self, Unfit},
    open::{self, OpenError},
};

/// Where a plugin is.
#[derive(Debug, Clone, Copy)]
pub enum PluginSource<'a> {
    /// Linked into the program, under this name.
    Linked(&'a str),
    /// A library.
    File {
        /// The file, or a folder that has it.
        path: &'a Path,
        /// Its crate's name, where the file's name does not tell, and for a folder.
        crate_name: Option<&'a str>,
        /// What its content must hash to, in hexadecimal digits.
        sha256: Option<&'a str>,
    },
}

/// What loading may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How many libraries the process may load in its life.
    pub libraries: usize,
    /// The largest file.
    pub file_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { libraries: 256, file_bytes: 512 * 1024 * 1024 }
    }
}

/// A plugin that instances can be made of.
#[derive(Debug)]
pub struct LoadedLibrary {
    library: Library,
    file: Option<(PathBuf, String)>,
}

impl LoadedLibrary {
    /// The checked plugin.
    #[must_use]
    pub const fn library(&self) -> &Library {
        &self.library
    }

    /// The file that it was first loaded from; none for what is linked in.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// The SHA-256 of its content in lower-case hexadecimal digits; none for what is linked in.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        self.file.as_ref().map(|(_, sha256)| sha256.as_str())
    }
}

/// All libraries of one gateway. Loading does I/O and takes its time: not for an async task.
#[derive(Debug)]
pub struct Libraries {
    linked: Vec<(String, StaticPlugin)>,
    offered: Capabilities,
    bounds: Bounds,
    copies: Copies,
    loaded: Mutex<HashMap<Key, Loaded>>,
}

/// A content's hash, and the crate that it was loaded as.
type Key = (String, String);
/// What is in memory is remembered even if it is of no use.
type Loaded = Result<Arc<LoadedLibrary>, conexus_plugin_api::host::Mismatch>;

impl Libraries {
    /// None loaded so far. `linked` are plugins of the program with their names; copies of files
    /// go to a new folder in `copies`, or where the system keeps temporary files.
    #[must_use]
    pub fn new(
        linked: &[(&str, StaticPlugin)],
        offered: Capabilities,
        bounds: Bounds,
        copies: Option<PathBuf>,
    ) -> Self {
        Self {
            linked: linked.iter().map(|(name, plugin)| ((*name).into(), *plugin)).collect(),
            offered,
            bounds,
            copies: Copies::new(copies),
            loaded: Mutex::default(),
        }
    }

    /// How many library files are in memory, also those that were refused or replaced since.
    #[must_use]
    pub fn count(&self) -> usize {
        self.loaded.lock().len()
    }

    /// The plugin of a source; the one that is there already where the content is the same.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(&self, source: &PluginSource<'_>) -> Result<Arc<LoadedLibrary>, LoadError> {
        match *source {
            PluginSource::Linked(name) => self.linked(name),
            PluginSource::File { path, crate_name, sha256 } => {
                let (file, crate_name) = locate(path, crate_name)?;
                self.load_file(&file, &crate_name, sha256)
            }
        }
    }

    fn linked(&self, name: &str) -> Result<Arc<LoadedLibrary>, LoadError> {
        let found = self.linked.iter().find(|(known, _)| known == name);
        let (_, plugin) = found.ok_or_else(|| LoadError::NotLinked {
            name: name.into(),
            known: self.linked.iter().map(|(name, _)| name.clone()).collect(),
        })?;
        let library = Library::linked(*plugin, self.offered)
            .map_err(|mismatch| LoadError::Mismatch { name: name.into(), mismatch })?;
        Ok(Arc::new(LoadedLibrary { library, file: None }))
    }

    fn load_file(
        &self,
        file: &Path,
        crate_name: &str,
        pin: Option<&str>,
    ) -> Result<Arc<LoadedLibrary>, LoadError> {
        let bytes = read(file, self.bounds.file_bytes)?;
        let sha256 = hash(&bytes);
        if let Some(pinned) = pin.filter(|pin| !pin.eq_ignore_ascii_case(&sha256)) {
            let (file, pinned) = (file.into(), pinned.into());
            return Err(LoadError::Pin { file, found: sha256, pinned });
        }
        let mismatch =
            |mismatch| LoadError::Mismatch { name: file.display().to_string(), mismatch };
        // Held while loading: two loads of the same content are one.
        let mut loaded = self.loaded.lock();
        let key = (sha256.clone(), String::from(crate_name));
        if let Some(known) = loaded.get(&key) {
            return known.clone().map_err(mismatch);
        }
        let symbol = format!("{}{crate_name}", image::PREFIX);
        image::check(&bytes, &symbol).map_err(|unfit| match unfit {
            Unfit::Image(why) => LoadError::Image { file: file.into(), why },
            Unfit::NoSymbol(plugins) => {
                LoadError::NoSymbol { file: file.into(), symbol: symbol.clone(), plugins }
            }
        })?;
        self.make_room(loaded.len(), file)?;
        let name = format!("{DLL_PREFIX}{crate_name}-{sha256}{DLL_SUFFIX}");
        let copy = self.copies.write(&name, &bytes).map_err(|source| LoadError::Copy {
            file: file.into(),
            to: self.copies.parent().into(),
            source,
        })?;
        let opened = match open::open(&copy, &symbol, self.offered) {
            Err(OpenError::Loader(why)) => {
                let _ = std::fs::remove_file(&copy);
                return Err(LoadError::Open { file: file.into(), why });
            }
            Err(OpenError::Mismatch(mismatch)) => Err(mismatch),
            Ok(library) => {
                Ok(Arc::new(LoadedLibrary { library, file: Some((file.into(), sha256)) }))
            }
        };
        loaded.insert(key, opened.clone());
        opened.map_err(mismatch)
    }

    /// Refuses at the cap; warns when it is near.
    pub(super) fn make_room(&self, loaded: usize, file: &Path) -> Result<(), LoadError> {
        let most = self.bounds.libraries;
        if loaded >= most {
            return Err(LoadError::TooMany { file: file.into(), loaded });
        }
        if loaded + 1 >= most - most / 4 {
            tracing::warn!(
                loaded = loaded + 1,
                most,
                "plugin libraries stay in memory when they are replaced, and few more may be \
                 loaded: restart the gateway when it suits"
            );
        }
        Ok(())
    }
}

/// The file, and the name of its crate.
fn locate(path: &Path, crate_name: Option<&str>) -> Result<(PathBuf, String), LoadError> {
    let of_path = |source| LoadError::Read { file: path.into(), source };
    let crate_name = crate_name.map(|name| name.replace('-', "_"));
    let kind = path.metadata().map_err(of_path)?;
    if kind.is_dir() {
        let folder = path.to_path_buf();
        let Some(name) = crate_name else { return Err(LoadError::FolderNeedsCrate { folder }) };
        let file = format!("{DLL_PREFIX}{name}{DLL_SUFFIX}");
        let inside = folder.join(&file);
        if !inside.is_file() {
            return Err(LoadError::NotInFolder { folder, file });
        }
        return Ok((inside, name));
    }
    // A pipe or a device could be read forever.
    if !kind.is_file() {
        return Err(LoadError::NoFile { file: path.into() });
    }
    let name = crate_name.or_else(|| crate_of(path));
    let name = name.ok_or_else(|| LoadError::NoCrateName { file: path.into() })?;
    Ok((path.into(), name))
}

/// `libfoo_bar.so` is of the crate `foo_bar`.
fn crate_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix(DLL_PREFIX)?.strip_suffix(DLL_SUFFIX)?;
    let is_name = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !name.is_empty()
    };
    is_name(name).then(|| name.to_owned())
}

fn read(file: &Path, max: u64) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Read { file: file.into(), source };
    let mut bytes = Vec::new();
    let open = File::open(file).map_err(failed)?;
    open.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > max) {
        return Err(LoadError::TooLarge { file: file.into(), max });
    }
    Ok(bytes)
}

fn hash(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
