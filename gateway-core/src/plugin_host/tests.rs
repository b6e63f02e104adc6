//! What is refused before any of it runs. Plugins that do run are tested end to end.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs,
    path::{Path, PathBuf},
};

use conexus_plugin_api::{
    Capabilities, Error, Host, NoConfig, Plugin, PointSet, StaticPlugin,
    host::{Library, Mismatch},
};
use tempfile::TempDir;

use super::{Bounds, Libraries, LoadError, PluginSource};

struct Quiet;

impl Plugin for Quiet {
    type Config = NoConfig;
    const POINTS: PointSet = PointSet::EMPTY;
    const NEEDS: Capabilities = Capabilities::DEFER;

    fn new(NoConfig {}: NoConfig, _: Host) -> Result<Self, Error> {
        Ok(Self)
    }
}

struct Files {
    folder: TempDir,
    libraries: Libraries,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let linked = [("quiet", StaticPlugin::of::<Quiet>())];
        let copies = Some(folder.path().into());
        let libraries = Libraries::new(&linked, Capabilities::ALL, Bounds::default(), copies);
        Self { folder, libraries }
    }

    /// A file of that crate, with this content.
    fn write(&self, crate_name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.folder.path().join(format!("{DLL_PREFIX}{crate_name}{DLL_SUFFIX}"));
        fs::write(&file, bytes).unwrap();
        file
    }

    fn refused(&self, path: &Path, crate_name: Option<&str>, sha256: Option<&str>) -> LoadError {
        let refused = self.libraries.load(&PluginSource::File { path, crate_name, sha256 });
        assert_eq!(self.libraries.count(), 0, "nothing ran");
        refused.unwrap_err()
    }

    fn why(&self, path: &Path) -> String {
        let text = self.refused(path, None, None).to_string();
        let named = format!("{}: ", path.display());
        text.strip_prefix(&named).unwrap_or_else(|| panic!("{text} names no file")).to_owned()
    }
}

/// A library that is there on every machine: the one of the C library that this test runs on.
fn some_library() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let library = files.find(|file| file.contains("libc.so")).expect("no C library is mapped");
    fs::read(library).unwrap()
}

#[test]
fn what_is_no_library_is_refused_with_its_file_and_the_reason() {
    let files = Files::new();
    for bytes in [&b""[..], b"x", b"#!/bin/sh\necho no library\n", b"\x7fELF", &[0xff; 4096]] {
        let why = files.why(&files.write("not", bytes));
        assert!(why.starts_with("not a library"), "{why}");
    }
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    let why = files.why(&files.write("program", &own));
    assert!(why.contains("does not export conexus_plugin_program"), "{why}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_truncated_library_is_refused_at_whatever_length() {
    let files = Files::new();
    let whole = some_library();
    for length in [16, 64, 1000, whole.len() / 3, whole.len() / 2] {
        let why = files.why(&files.write("cut", &whole[..length]));
        let known = why.starts_with("not a library") || why.starts_with("truncated");
        assert!(known, "{length} bytes: {why}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn another_machines_library_is_refused() {
    let files = Files::new();
    let mut library = some_library();
    // e_machine: MIPS.
    library[18..20].copy_from_slice(&8_u16.to_le_bytes());
    let why = files.why(&files.write("mips", &library));
    assert!(why.starts_with("built for Mips"), "{why}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_library_that_is_no_plugin_is_refused_with_the_symbol_that_it_lacks() {
    let files = Files::new();
    let why = files.why(&files.write("c", &some_library()));
    assert_eq!(
        why,
        "it does not export conexus_plugin_c: it is no Conexus plugin, or its crate has another \
         name (see `crate`)"
    );
}

#[test]
fn a_wrong_pin_is_refused_with_both_hashes() {
    let files = Files::new();
    let file = files.write("pinned", b"x");
    let pin = "ab".repeat(32);
    let text = files.refused(&file, None, Some(&pin)).to_string();
    let found = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    assert!(text.contains(&format!("its SHA-256 is {found}, the configuration pins {pin}")));
    // The right one, in whatever case, leads to the next check.
    let error = files.refused(&file, None, Some(&found.to_uppercase()));
    assert!(matches!(error, LoadError::Image { .. }), "{error}");
}

#[test]
fn what_is_not_there_is_refused() {
    let files = Files::new();
    let folder = files.folder.path();
    assert!(files.why(&folder.join("missing.so")).contains("No such file"));
    assert!(files.why(folder).contains("`crate` has to say which"));
    let error = files.refused(folder, Some("jwt-auth"), None);
    assert!(error.to_string().ends_with(&format!("has no {DLL_PREFIX}jwt_auth{DLL_SUFFIX}")));
    let odd = folder.join("plugin.bin");
    fs::write(&odd, b"x").unwrap();
    assert!(files.why(&odd).contains("does not tell its crate's"));
    assert!(matches!(files.refused(&odd, Some("plugin"), None), LoadError::Image { .. }));
    #[cfg(target_os = "linux")]
    assert_eq!(files.why(Path::new("/dev/zero")), "neither a file nor a folder");
}

#[test]
fn a_file_in_a_folder_is_found_by_its_crates_name() {
    let files = Files::new();
    let file = files.write("in_folder", b"x");
    let error = files.refused(files.folder.path(), Some("in-folder"), None);
    assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
}

#[test]
fn a_file_over_the_bound_is_not_read_to_its_end() {
    let mut files = Files::new();
    files.libraries =
        Libraries::new(&[], Capabilities::ALL, Bounds { file_bytes: 9, ..Bounds::default() }, None);
    assert_eq!(files.why(&files.write("large", &[0; 10])), "larger than 9 bytes");
    assert!(files.why(&files.write("small", &[0; 9])).starts_with("not a library"));
}

#[test]
fn a_linked_plugin_is_found_by_its_name() {
    let files = Files::new();
    let loaded = files.libraries.load(&PluginSource::Linked("quiet")).unwrap();
    assert_eq!((loaded.path(), loaded.sha256()), (None, None));
    assert!(loaded.library().needs().has(Capabilities::DEFER));
    let error = files.libraries.load(&PluginSource::Linked("loud")).unwrap_err();
    let text = "no plugin \"loud\" is linked into this gateway; there are quiet";
    assert_eq!(error.to_string(), text);
    let refused = Library::linked(StaticPlugin::of::<Quiet>(), Capabilities::NONE).unwrap_err();
    assert!(matches!(refused, Mismatch::Capabilities { .. }));
}

#[test]
fn loading_stops_at_the_cap() {
    let bounds = Bounds { libraries: 4, ..Bounds::default() };
    let libraries = Libraries::new(&[], Capabilities::ALL, bounds, None);
    let file = Path::new("x.so");
    assert!(libraries.make_room(3, file).is_ok());
    let refused = libraries.make_room(4, file).unwrap_err().to_string();
    assert!(refused.starts_with("x.so: 4 plugin libraries were loaded"), "{refused}");
}
