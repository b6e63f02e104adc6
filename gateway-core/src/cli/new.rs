//! `conexus new`: a script or a plugin to begin with, that works and has tests.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;

use crate::config::{self, Settings, Sources};

const SCRIPT: &str = include_str!("templates/script.rhai");
const SCRIPT_TEST: &str = include_str!("templates/script.test.rhai");
const PLUGIN_MANIFEST: &str = include_str!("templates/plugin.toml");
const PLUGIN: &str = include_str!("templates/plugin.rs");

/// Where the contract is found by a plugin that is not told otherwise.
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

#[derive(Subcommand)]
pub(super) enum New {
    /// A script with tests, in the folder of scripts
    Script {
        /// Lower-case letters, digits, - and _
        name: String,
    },
    /// A crate for a native plugin with tests, in a folder of its own
    Plugin {
        /// Lower-case letters, digits, - and _
        name: String,
        /// Where to make the folder
        #[arg(long, default_value = ".")]
        path: PathBuf,
        /// The folder of conexus-plugin-api, where it lies on this machine
        #[arg(long, value_name = "FOLDER")]
        api: Option<PathBuf>,
    },
}

/// Why nothing new was made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    #[error("{0:?} is no name: it needs lower-case letters, digits, - and _, a letter first")]
    Name(String),
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} has no Cargo.toml of conexus-plugin-api", .0.display())]
    Api(PathBuf),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

pub(super) fn new(new: &New, sources: &Sources) -> Result<ExitCode, NewError> {
    match new {
        New::Script { name } => script(name, sources),
        New::Plugin { name, path, api } => plugin(name, path, api.as_deref()),
    }
}

fn script(name: &str, sources: &Sources) -> Result<ExitCode, NewError> {
    check(name)?;
    // A configuration that is faulty for now is no reason to make none.
    let settings = config::load(sources).map_or_else(|_| Settings::default(), |it| it.settings);
    let folder = sources.working_dir.join(&settings.scripts.path);
    let files = [
        (folder.join(format!("{name}.rhai")), fill(SCRIPT, name)),
        (folder.join(format!("{name}.test.rhai")), fill(SCRIPT_TEST, name)),
    ];
    write(&files)?;
    let mut out = io::stdout().lock();
    for (path, _) in &files {
        writeln!(out, "made {}", path.display())?;
    }
    writeln!(out, "try its tests: conexus test {}", files[1].0.display())?;
    writeln!(out, "then add what its header shows to gateway.toml, and: conexus check")?;
    Ok(ExitCode::SUCCESS)
}

fn plugin(name: &str, path: &Path, api: Option<&Path>) -> Result<ExitCode, NewError> {
    check(name)?;
    let folder = path.join(name);
    if folder.exists() {
        return Err(NewError::Exists(folder));
    }
    let api = match api {
        None => format!("git = \"{REPOSITORY}\""),
        Some(api) => {
            let found = fs::canonicalize(api).ok().filter(|api| api.join("Cargo.toml").is_file());
            let found = found.ok_or_else(|| NewError::Api(api.to_owned()))?;
            format!("path = {}", toml_edit::Value::from(found.display().to_string()))
        }
    };
    let manifest = fill(PLUGIN_MANIFEST, name).replace("{{api}}", &api);
    let files =
        [(folder.join("Cargo.toml"), manifest), (folder.join("src/lib.rs"), fill(PLUGIN, name))];
    write(&files)?;
    let file = format!("lib{}.so", name.replace('-', "_"));
    let mut out = io::stdout().lock();
    writeln!(out, "made {}", folder.display())?;
    writeln!(out, "test it:   cd {} && cargo test", folder.display())?;
    writeln!(out, "build it:  cargo build --release, which makes target/release/{file}")?;
    writeln!(out, "then, in gateway.toml:\n")?;
    writeln!(out, "[plugins.{name}]\npath = \"{}/target/release/{file}\"\n", folder.display())?;
    writeln!(
        out,
        "[hook.{name}]\nuse = \"plugin:{name}\"\nconfig = {{ capability = \"chat\" }}\n"
    )?;
    writeln!(out, "[[chain.on_register]]\nhook = \"{name}\"")?;
    Ok(ExitCode::SUCCESS)
}

fn check(name: &str) -> Result<(), NewError> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 64
        && name.chars().all(known);
    if good { Ok(()) } else { Err(NewError::Name(name.to_owned())) }
}

fn fill(template: &str, name: &str) -> String {
    let type_name: String = name
        .split(['-', '_'])
        .filter_map(|word| {
            let (first, rest) = word.split_at_checked(1)?;
            Some(first.to_ascii_uppercase() + rest)
        })
        .collect();
    template.replace("{{name}}", name).replace("{{Type}}", &type_name)
}

/// Writes all of them, or none where one is there already.
fn write(files: &[(PathBuf, String)]) -> Result<(), NewError> {
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(NewError::Exists(path.clone()));
    }
    for (path, text) in files {
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::OpenOptions::new().write(true).create_new(true).open(path))
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| NewError::Write { path: path.clone(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_no_crate_are_refused() {
        for name in ["", "Upper", "1st", "a/b", "..", "a b", "ä"] {
            assert!(matches!(check(name), Err(NewError::Name(_))), "{name}");
        }
        assert!(check("my-plugin_2").is_ok());
        assert_eq!(fill("{{Type}}", "my-plugin_2"), "MyPlugin2");
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources { working_dir: folder.path().to_owned(), ..Sources::default() };
        script("mine", &sources).unwrap();
        let path = folder.path().join("scripts/mine.test.rhai");
        fs::remove_file(folder.path().join("scripts/mine.rhai")).unwrap();
        fs::write(&path, "my own").unwrap();
        assert!(matches!(script("mine", &sources), Err(NewError::Exists(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "my own");
        assert!(!folder.path().join("scripts/mine.rhai").exists());
    }
}
