//! Loading: the layers are read, walked, laid over one another and made into [`Settings`].

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{Figment, providers::Serialized};
use toml_edit::Value;

use super::{
    compose::{Composed, compose},
    fault::{ConfigErrors, Fault, Origin},
    handed::to_json,
    kind::{Kind, secret_source},
    rules::{RULES, Rule, TOKENS, warnings},
    secret::{InFile, SecretSource},
    settings::{KEYS, Settings},
    walk::{Entry, Findings, Layer},
};

/// The file that is read from the working directory unless `--config` names another.
pub const DEFAULT_FILE: &str = "gateway.toml";

const ENV_PREFIX: &str = "CONEXUS_";

/// The members of an ICE server that are secrets.
const ICE_SECRETS: [&str; 2] = ["credential", "secret"];

/// What the configuration is made from. Later layers win: defaults, the file, `conf.d/*.toml`
/// beside it in the order of their names, the environment, `--set`. Not `Debug`, for the secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// `--config`: a file that must exist, relative to the working directory.
    pub config: Option<PathBuf>,
    /// Where `gateway.toml` is looked for and relative paths start that no file set.
    pub working_dir: PathBuf,
    /// The environment: `CONEXUS_SECTION__KEY`; other variables are for secrets to name.
    pub env: Vec<(String, String)>,
    /// `--set section.key=value`, in order.
    pub set: Vec<String>,
}

impl Sources {
    /// Where paths start that were written there.
    pub(super) fn folder_of(&self, origin: &Origin) -> PathBuf {
        match origin {
            Origin::File { path, .. } => self.working_dir.join(path.parent().unwrap_or(path)),
            _ => self.working_dir.clone(),
        }
    }

    /// The value of an environment variable.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

/// A valid configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Where each key was set, for every known key.
    pub origins: BTreeMap<&'static str, Origin>,
    /// Where the values of [`Policies`](super::Policies) and of tokens were set: `hook.members.use`,
    /// `chain.on_register`, `chain.on_register[0].mode`. What is not here is a default.
    pub policy_origins: BTreeMap<String, Origin>,
    /// Chains that replace one of an earlier layer whole, by key, and where that one is.
    pub replaced_chains: BTreeMap<String, Origin>,
    /// The files that were read, in their order.
    pub files: Vec<PathBuf>,
    /// The files of secrets that a reload takes over.
    pub secret_files: Vec<PathBuf>,
    /// What an operator may have overlooked, a line each.
    pub warnings: Vec<String>,
}

/// Reads and validates the configuration.
///
/// # Errors
/// All that is wrong with it, each fault with its place.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let (Findings { entries, drafts, mut faults }, files) = read(sources);
    let mut secret_files = Vec::new();
    let chosen = choose(entries, sources, &mut secret_files, &mut faults);
    let origin = |key: &str| chosen.get(key).map_or(Origin::Default, |entry| entry.origin.clone());

    let mut settings = assemble(&chosen, sources).unwrap_or_else(|errors| {
        faults.extend((*errors).into_iter().map(|error| undeserialized(&error, origin)));
        Settings::default()
    });
    let composed = compose(&drafts, &settings, sources, &mut faults);
    let Composed {
        policies, admin_tokens, origins: policy_origins, replaced: replaced_chains, ..
    } = composed;
    settings.admin_tokens = admin_tokens;
    faults.extend(breaches(&settings, &faults, origin));

    if let Some(errors) = ConfigErrors::from_faults(faults) {
        return Err(errors);
    }
    let mut warnings = warnings(&settings);
    warnings.extend(composed.warnings);
    settings.policies = policies;
    Ok(Loaded {
        settings,
        origins: KEYS.iter().map(|key| (key.path, origin(key.path))).collect(),
        policy_origins,
        replaced_chains,
        files,
        secret_files,
        warnings,
    })
}

/// `admin.listen` and `admin.tls` of a configuration that is faulty elsewhere: only where it is written and no fault
/// puts it in doubt. A file that cannot be read might set it, too, but not over a later layer.
pub(crate) fn admin_address(sources: &Sources) -> Option<(SocketAddr, bool)> {
    const KEY: &str = "admin.listen";
    let (Findings { entries, faults, .. }, _) = read(sources);
    let entry = entries.iter().rev().find(|entry| entry.key.path == KEY)?;
    let in_file = |origin: &Origin| matches!(origin, Origin::File { .. });
    let doubtful = |fault: &Fault| match fault.key.as_deref() {
        Some(key) => key == KEY || key == "admin",
        None => in_file(&entry.origin) || !in_file(&fault.origin),
    };
    if faults.iter().any(doubtful) {
        return None;
    }
    let tls = entries.iter().rev().find(|entry| entry.key.path == "admin.tls");
    let tls = tls.and_then(|entry| entry.value.as_bool()).unwrap_or_default();
    Some((entry.value.as_str()?.parse().ok()?, tls))
}

/// `server.listen`, and whether there is a certificate (`tls.certificate`), of a configuration that
/// may be faulty elsewhere.
pub(crate) fn public_listener(sources: &Sources) -> (SocketAddr, bool) {
    let (Findings { entries, .. }, _) = read(sources);
    let last = |path: &str| entries.iter().rev().find(|entry| entry.key.path == path);
    let address = last("server.listen").and_then(|entry| entry.value.as_str()?.parse().ok());
    (address.unwrap_or(Settings::default().server.listen), last("tls.certificate").is_some())
}

/// Walks over every layer in order.
fn read(sources: &Sources) -> (Findings, Vec<PathBuf>) {
    let mut findings = Findings::default();
    let mut files = Vec::new();
    for path in layer_files(sources, &mut findings.faults) {
        let shown = path.strip_prefix(&sources.working_dir).unwrap_or(&path);
        match fs::read_to_string(&path) {
            Ok(text) => {
                findings.walk_file(shown.to_owned(), text);
                files.push(path);
            }
            Err(error) => findings.faults.push(unreadable(shown, &error)),
        }
    }
    for (name, value) in &sources.env {
        let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
        // Kubernetes injects CONEXUS_PORT and the like for a service called conexus.
        if path.contains("__") {
            let path = path.to_ascii_lowercase().replace("__", ".");
            findings.assign(&path, value, Layer::Env(name.clone()));
        }
    }
    for assignment in &sources.set {
        match assignment.split_once('=') {
            Some((path, value)) => findings.assign(path.trim(), value, Layer::Set),
            // Not quoted: it may be a secret.
            None => findings.faults.push(Fault {
                origin: Origin::Set,
                key: None,
                problem: "no \"=\"; expected section.key=value".to_owned(),
                nearest: None,
            }),
        }
    }
    (findings, files)
}

/// The files to read, in order: the main one, then `conf.d/*.toml` beside it.
fn layer_files(sources: &Sources, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    let main = match &sources.config {
        Some(config) => sources.working_dir.join(config),
        None => sources.working_dir.join(DEFAULT_FILE),
    };
    let folder = main.with_file_name("conf.d");
    let mut files = match fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(found) => {
            found.into_iter().map(|entry| entry.path()).filter(|path| is_layer(path)).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            faults.push(unreadable(&folder, &error));
            Vec::new()
        }
    };
    files.sort();
    // What is there but unreadable is reported when it is read.
    let absent = fs::metadata(&main).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if sources.config.is_some() || !absent {
        files.insert(0, main);
    }
    files
}

/// Hidden files are editors' and mounts' business.
fn is_layer(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "toml")
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault {
        origin: Origin::File { path: path.to_owned(), position: None },
        key: None,
        problem: format!("cannot be read: {error}"),
        nearest: None,
    }
}

type Chosen = BTreeMap<&'static str, Entry>;

/// The last entry of each key, with its secret fetched or its path made absolute. A secret that
/// a later layer overrides is not fetched.
fn choose(
    entries: Vec<Entry>,
    sources: &Sources,
    secret_files: &mut Vec<PathBuf>,
    faults: &mut Vec<Fault>,
) -> Chosen {
    let mut chosen: Chosen = entries.into_iter().map(|entry| (entry.key.path, entry)).collect();
    chosen.retain(|_, entry| {
        if matches!(entry.key.kind, Kind::IceServers) {
            secret_files.extend(credential_files(&entry.value, &sources.folder_of(&entry.origin)));
        }
        match settle(entry, sources) {
            Ok(()) => true,
            Err(fault) => {
                faults.push(fault);
                false
            }
        }
    });
    chosen
}

fn settle(entry: &mut Entry, sources: &Sources) -> Result<(), Fault> {
    let folder = sources.folder_of(&entry.origin);
    let settled = match entry.key.kind {
        Kind::Secret => fetch(&mut entry.value, &folder, sources),
        Kind::IceServers => fetch_credentials(&mut entry.value, &folder, sources),
        Kind::Path => make_absolute(&mut entry.value, &folder),
        _ => Ok(()),
    };
    settled.map_err(|problem| Fault::of(entry.key.path, problem, entry.origin.clone()))
}

fn fetch(value: &mut Value, folder: &Path, sources: &Sources) -> Result<(), String> {
    let Some(source) = secret_source(value) else { return Ok(()) };
    let secret =
        source.read(folder, |name| sources.variable(name)).map_err(|error| error.to_string())?;
    *value = Value::from(secret.expose());
    Ok(())
}

fn fetch_credentials(value: &mut Value, folder: &Path, sources: &Sources) -> Result<(), String> {
    let servers = value.as_array_mut().into_iter().flat_map(toml_edit::Array::iter_mut);
    for server in servers.filter_map(Value::as_inline_table_mut) {
        for name in ICE_SECRETS {
            server.get_mut(name).map_or(Ok(()), |secret| fetch(secret, folder, sources))?;
        }
    }
    Ok(())
}

/// The files that secrets of ICE servers lie in.
fn credential_files(value: &Value, folder: &Path) -> Vec<PathBuf> {
    let servers = value.as_array().into_iter().flatten().filter_map(Value::as_inline_table);
    let secrets = servers.flat_map(|server| ICE_SECRETS.iter().filter_map(|name| server.get(name)));
    let files = secrets.filter_map(|secret| match secret_source(secret)? {
        SecretSource::File(InFile { file }) => Some(folder.join(file)),
        SecretSource::Text(_) | SecretSource::Env(_) => None,
    });
    files.collect()
}

fn make_absolute(value: &mut Value, folder: &Path) -> Result<(), String> {
    let path = folder.join(value.as_str().unwrap_or_default());
    *value = Value::from(path.to_str().ok_or("is in a folder whose name is not UTF-8")?);
    Ok(())
}

/// Lays the chosen values over the defaults.
fn assemble(chosen: &Chosen, sources: &Sources) -> Result<Settings, Box<figment::Error>> {
    let mut defaults = Settings::default();
    for path in [&mut defaults.server.identity, &mut defaults.scripts.path] {
        *path = sources.working_dir.join(&path);
    }
    let figment =
        chosen.values().fold(Figment::from(Serialized::defaults(defaults)), |figment, entry| {
            let (section, name) = entry.key.field();
            figment.merge((format!("{section}.{name}"), to_json(&entry.value)))
        });
    figment.extract().map_err(Box::new)
}

/// The walk accepts only what the types take; should they ever differ, the type has its say.
fn undeserialized(error: &figment::Error, origin: impl Fn(&str) -> Origin) -> Fault {
    let field = error.path.join(".");
    let known = KEYS.iter().find(|key| {
        let (section, name) = key.field();
        field == format!("{section}.{name}")
    });
    let key = known.map_or(field, |key| key.path.to_owned());
    Fault::of(key.as_str(), error.kind.to_string(), origin(&key))
}

/// The rules that are broken, but for those over a key that has a fault already: its value here
/// is not the one that was meant.
fn breaches(settings: &Settings, faults: &[Fault], origin: impl Fn(&str) -> Origin) -> Vec<Fault> {
    // A table of tokens is at fault as a whole.
    let is_about = |fault: &str, key: &str| {
        fault == key || key == TOKENS && fault.split('.').next() == Some(TOKENS)
    };
    let faulty = |key: &&str| {
        faults.iter().filter_map(|fault| fault.key.as_deref()).any(|fault| is_about(fault, key))
    };
    let judged = RULES.iter().filter(|rule| !rule.keys.iter().any(faulty));
    let breach = |rule: &Rule| {
        let problem = (rule.breach)(settings)?;
        let set = rule.keys.iter().find(|key| origin(key) != Origin::Default);
        let key = set.or(rule.keys.first())?;
        Some(Fault::of(*key, problem, origin(key)))
    };
    judged.filter_map(breach).collect()
}
