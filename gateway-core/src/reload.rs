//! Reload: the configuration is read again and becomes the next generation of hooks, or nothing
//! changes.
//!
//! Asked for by a signal, by the admin API, or by [`watch()`] when a file changes that the policy was
//! made from. Only what hooks are made of, and the certificate, is taken over while the gateway runs, and
//! what somebody [follows](Reloader::on_accepted); for other settings that differ it says that they need a
//! restart. Where nothing but the files of the certificate has changed, hooks are left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::{debug, info, warn};

use crate::{
    config::{self, KEYS, Key, Loaded, Settings, Sources},
    hooks::{Engine, ReloadError, hash_file},
    tls::{self, ServerTls},
};

/// See the [module](self).
pub struct Reloader {
    sources: Sources,
    engine: Arc<Engine>,
    running: Settings,
    /// What [`Self::effective`] told at the start.
    started: Map<String, Value>,
    accepted: ArcSwap<Loaded>,
    changes: watch::Sender<()>,
    /// Who takes over what is not hooks' own.
    followers: Mutex<Vec<Follower>>,
    /// Whether an accepted configuration had tokens.
    tokens_required: AtomicBool,
    /// The certificate of the listeners, where they speak TLS.
    tls: Option<Arc<ServerTls>>,
    seen: Mutex<Seen>,
}

/// Is given each configuration that is accepted. Called one after the other.
type Follower = Box<dyn Fn(&Settings) + Send>;

struct Seen {
    config_files: Vec<PathBuf>,
    secret_files: Vec<PathBuf>,
    /// The settings of the last attempt that came to hooks, whether it was refused or not.
    candidate: Settings,
    /// The settings that the certificate in use was read by. Where a reload turned TLS off, which takes a
    /// restart, these go on to be renewed.
    served: Settings,
    /// The hash of each file that mattered, as it was before it was read.
    hashes: BTreeMap<PathBuf, String>,
    /// The same of the files of the certificate.
    certificate: BTreeMap<PathBuf, String>,
}

/// A reload that took place.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Reloaded {
    /// The generation that judges now.
    pub generation: u64,
    /// Keys that were changed and need a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Reloader {
    /// Reloads for an engine that was built from these sources.
    pub fn new(sources: Sources, loaded: &Loaded, engine: Arc<Engine>) -> Self {
        let mut seen = Seen {
            config_files: loaded.files.clone(),
            secret_files: loaded.secret_files.clone(),
            candidate: loaded.settings.clone(),
            served: loaded.settings.clone(),
            hashes: BTreeMap::new(),
            certificate: BTreeMap::new(),
        };
        seen.hashes = hashes(&sources, &seen, &engine);
        seen.note_what_was_read(&engine);
        let accepted = ArcSwap::from_pointee(loaded.clone());
        Self {
            sources,
            engine,
            running: loaded.settings.clone(),
            started: loaded.effective(),
            accepted,
            changes: watch::Sender::default(),
            followers: Mutex::default(),
            tokens_required: AtomicBool::new(!loaded.settings.admin_tokens.is_empty()),
            tls: None,
            seen: Mutex::new(seen),
        }
    }

    /// Reloads this certificate as well.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<ServerTls>>) -> Self {
        self.tls = tls;
        self.seen.get_mut().certificate = self.certificate_read();
        self
    }

    /// The engine whose generations change.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The configuration that was accepted last. What needs a restart is in there, too, though it has
    /// not come into effect.
    pub fn accepted(&self) -> Arc<Loaded> {
        self.accepted.load_full()
    }

    /// Whether the admin API takes tokens: from the first one to a restart, since what made being on
    /// this machine enough (no proxy, say) may have changed with it.
    pub(crate) fn tokens_required(&self) -> bool {
        self.tokens_required.load(SeqCst)
    }

    /// Sees each time that another configuration is accepted from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Has each configuration that is accepted from now on handed to `follower`, which takes over what
    /// of it can change while the gateway runs and is not hooks' own.
    pub fn on_accepted(&self, follower: impl Fn(&Settings) + Send + 'static) {
        self.followers.lock().push(Box::new(follower));
    }

    /// The settings in effect with where each was set, secrets hidden: what needs a restart as it was
    /// at the start, the rest as it was accepted last.
    pub fn effective(&self) -> Map<String, Value> {
        let accepted = self.accepted();
        let mut keys = accepted.effective();
        let toggled = toggled(&self.running, &accepted.settings);
        for (path, started) in &self.started {
            let needs_restart =
                KEYS.iter().any(|key| key.path == path && needs_restart(key, toggled));
            if needs_restart {
                keys.insert(path.clone(), started.clone());
            }
        }
        keys
    }

    /// Reads everything again. Blocks for as long as it takes to read, compile and start.
    ///
    /// # Errors
    /// What is wrong, a line each; then everything runs on as it was.
    pub fn reload(&self) -> Result<Reloaded, Vec<String>> {
        self.reload_over(&mut self.seen.lock())
    }

    /// Brings the former generation back; its number. The files stay as they are: what they say
    /// counts again once one of them changes, or at the next reload.
    ///
    /// # Errors
    /// [`ReloadError::NoFormer`].
    pub fn roll_back(&self) -> Result<u64, ReloadError> {
        let mut seen = self.seen.lock();
        let generation = self.engine.roll_back()?;
        let known = std::mem::take(&mut seen.hashes);
        self.look_again(&mut seen, known);
        Ok(generation)
    }

    fn reload_over(&self, seen: &mut Seen) -> Result<Reloaded, Vec<String>> {
        // Before anything is read: what changes meanwhile is a change.
        let before = hashes(&self.sources, seen, &self.engine);
        let certificate = self.certificate_now(seen);
        let is_renewed = is_renewed(&seen.certificate, &certificate);
        let mut judged = false;
        let done = self.reload_now(seen, &mut judged);
        self.look_again(seen, before);
        // Another candidate may name other files.
        seen.certificate = self.certificate_now(seen);
        let read = if done.is_ok() && judged { self.certificate_read() } else { certificate };
        seen.certificate.extend(read);
        if done.is_ok() {
            seen.note_what_was_read(&self.engine);
        }
        if is_renewed && !judged {
            // Nobody would look at them again, and what is wrong elsewhere must not let them expire.
            let now = seen.certificate.clone();
            self.reload_certificate(seen, now);
        }
        done
    }

    /// The files of the certificate, with the hash of what was read of them.
    fn certificate_read(&self) -> BTreeMap<PathBuf, String> {
        self.tls.iter().flat_map(|tls| tls.files()).collect()
    }

    /// The files of the certificate as they are now: of the one in use, and of one that was refused since.
    fn certificate_now(&self, seen: &Seen) -> BTreeMap<PathBuf, String> {
        if self.tls.is_none() {
            return BTreeMap::new();
        }
        let paths = tls::named(&seen.served.tls).chain(tls::named(&seen.candidate.tls));
        paths.map(|path| (path.clone(), fingerprint(path))).collect()
    }

    /// Nothing else has changed.
    fn reload_certificate(&self, seen: &mut Seen, now: BTreeMap<PathBuf, String>) {
        let Some(tls) = &self.tls else { return };
        seen.certificate = now;
        match tls.prepare(&seen.served) {
            Ok(candidate) => {
                tls.commit(candidate);
                seen.certificate.extend(self.certificate_read());
            }
            Err(error) => tls.refuse(&error),
        }
    }

    /// Which files matter may be another matter now. What is known of one stays. One that has come to
    /// be meanwhile, and that nobody has read, is not known yet: the next look finds it.
    fn look_again(&self, seen: &mut Seen, known: BTreeMap<PathBuf, String>) {
        let mut hashes = hashes(&self.sources, seen, &self.engine);
        let read: BTreeSet<_> = self.engine.files().into_iter().map(|file| file.path).collect();
        hashes.retain(|path, hash| match known.get(path) {
            Some(known) => {
                hash.clone_from(known);
                true
            }
            None => read.contains(path) || !path.exists(),
        });
        seen.hashes = hashes;
    }

    /// `judged` is whether the files of the certificate were taken over or refused.
    fn reload_now(&self, seen: &mut Seen, judged: &mut bool) -> Result<Reloaded, Vec<String>> {
        let loaded = match config::load(&self.sources) {
            Ok(loaded) => loaded,
            Err(errors) => {
                let text = errors.to_string();
                self.engine.refuse(&text);
                return Err(text.lines().map(str::to_owned).collect());
            }
        };
        seen.config_files.clone_from(&loaded.files);
        seen.secret_files.clone_from(&loaded.secret_files);
        seen.candidate.clone_from(&loaded.settings);
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let certificate = match &self.tls {
            Some(tls) if loaded.settings.tls.is_on() => {
                let candidate = tls.prepare(&loaded.settings).map_err(|error| {
                    *judged = true;
                    tls.refuse(&error);
                    self.engine.refuse(&error.to_string());
                    vec![error.to_string()]
                })?;
                Some((tls, candidate))
            }
            _ => None,
        };
        let generation = self.engine.reload(&loaded.settings).map_err(|error| match error {
            ReloadError::Faulty(faults) => faults,
            error => vec![error.to_string()],
        })?;
        if let Some((tls, candidate)) = certificate {
            tls.commit(candidate);
            *judged = true;
            seen.served.clone_from(&loaded.settings);
        }
        let needs_restart = changed(&self.running, &loaded.settings);
        if !needs_restart.is_empty() {
            warn!(keys = needs_restart.join(", "), "changed settings need a restart");
        }
        self.note_tokens(&loaded.settings);
        for follow in self.followers.lock().iter() {
            follow(&loaded.settings);
        }
        self.accepted.store(Arc::new(loaded));
        self.changes.send_replace(());
        Ok(Reloaded { generation, needs_restart })
    }

    /// Before the configuration is accepted: at no moment is there a token and none is needed.
    fn note_tokens(&self, accepted: &Settings) {
        if !accepted.admin_tokens.is_empty() {
            self.tokens_required.store(true, SeqCst);
        } else if self.tokens_required() && self.running.admin.enabled {
            warn!(
                "no [admin_token.NAME] is left: nobody may ask the admin API until a reload brings \
                 one, or a restart"
            );
        }
    }

    /// Reloads if a file has changed since the last attempt; whether one had.
    fn reload_if_changed(&self) -> bool {
        let mut seen = self.seen.lock();
        let (policy, certificate) =
            (hashes(&self.sources, &seen, &self.engine), self.certificate_now(&seen));
        if policy == seen.hashes && certificate == seen.certificate {
            debug!("no file that matters has changed");
            return false;
        }
        debug!("files have changed");
        // They say themselves what came of it.
        if policy == seen.hashes && seen.candidate.tls == self.accepted().settings.tls {
            self.reload_certificate(&mut seen, certificate);
        } else {
            let _ = self.reload_over(&mut seen);
        }
        true
    }

    /// All files whose change matters.
    fn files(&self) -> BTreeSet<PathBuf> {
        let seen = self.seen.lock();
        let mut files = files_that_matter(&self.sources, &seen, &self.engine);
        files.extend(seen.certificate.keys().cloned());
        // Where there is no file yet, one may come to be.
        files.insert(main_file(&self.sources).with_file_name("conf.d").join("any.toml"));
        let scripts = &seen.candidate.scripts.path;
        files.insert(scripts.join("any.rhai"));
        files.insert(scripts.join("lib").join("any.rhai"));
        files
    }
}

impl Seen {
    /// Of what the running generation was made, its own word counts: a file may have changed
    /// between that and the first look at it here.
    fn note_what_was_read(&mut self, engine: &Engine) {
        for file in engine.files() {
            self.hashes.insert(file.path, file.sha256);
        }
    }
}

/// Whether a file of the certificate is another one than it was.
fn is_renewed(before: &BTreeMap<PathBuf, String>, now: &BTreeMap<PathBuf, String>) -> bool {
    now.iter().any(|(path, hash)| before.get(path) != Some(hash))
}

/// The certificate is taken over, but to turn TLS on or off takes a restart.
fn needs_restart(key: &Key, tls_toggled: bool) -> bool {
    !key.is_hot() || (key.section() == "tls" && tls_toggled)
}

/// Whether TLS was turned on or off.
fn toggled(running: &Settings, loaded: &Settings) -> bool {
    running.tls.is_on() != loaded.tls.is_on()
}

fn changed(running: &Settings, loaded: &Settings) -> Vec<&'static str> {
    let toggled = toggled(running, loaded);
    KEYS.iter()
        .filter(|key| needs_restart(key, toggled) && running.value(key) != loaded.value(key))
        .map(|key| key.path)
        .collect()
}

fn main_file(sources: &Sources) -> PathBuf {
    let name = sources.config.as_deref().unwrap_or(Path::new(config::DEFAULT_FILE));
    sources.working_dir.join(name)
}

/// Files whose content the policy is made from, or was to be made from.
fn files_that_matter(sources: &Sources, seen: &Seen, engine: &Engine) -> BTreeSet<PathBuf> {
    let scripts = &seen.candidate.scripts.path;
    let mut files = BTreeSet::from([main_file(sources)]);
    files.extend(in_folder(&main_file(sources).with_file_name("conf.d"), "toml"));
    files.extend(seen.config_files.iter().chain(&seen.secret_files).cloned());
    files.extend(in_folder(scripts, "rhai"));
    files.extend(in_folder(&scripts.join("lib"), "rhai"));
    let policies = &seen.candidate.policies;
    files.extend(policies.hooks.values().flat_map(|hook| hook.files.iter().cloned()));
    files.extend(policies.plugins.values().map(|plugin| plugin.path.clone()));
    files.extend(engine.files().into_iter().map(|file| file.path));
    files
}

fn in_folder(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn hashes(sources: &Sources, seen: &Seen, engine: &Engine) -> BTreeMap<PathBuf, String> {
    let files = files_that_matter(sources, seen, engine).into_iter();
    files
        .map(|path| {
            let hash = fingerprint(&path);
            (path, hash)
        })
        .collect()
}

/// Of a file that cannot be read, why.
fn fingerprint(path: &Path) -> String {
    hash_file(path).unwrap_or_else(|fault| fault)
}

/// A change is looked at when nothing more has happened for this long.
const SETTLED: Duration = Duration::from_millis(200);
/// A stream of changes is looked at after this long.
const AT_LAST: Duration = Duration::from_secs(2);

/// Reloads whenever a file changes, until dropped. Returns only if files cannot be watched.
pub async fn watch(reloader: Arc<Reloader>) {
    let (events, mut touched) = mpsc::channel(1);
    let handler = move |event: notify::Result<notify::Event>| {
        match event {
            Ok(event) if event.kind.is_access() => return,
            Ok(_) => {}
            Err(error) => warn!(%error, "watching files"),
        }
        // One that waits stands for all.
        let _ = events.try_send(());
    };
    let mut watcher = match notify::recommended_watcher(handler) {
        Ok(watcher) => watcher,
        Err(error) => {
            warn!(%error, "files are not watched; reload by signal or command");
            return;
        }
    };
    let mut watched = BTreeSet::new();
    loop {
        let looking = Arc::clone(&reloader);
        let files = tokio::task::spawn_blocking(move || looking.files()).await;
        watch_folders(&mut watcher, &mut watched, &files.unwrap_or_default());
        // What happened before a folder was watched is not missed either.
        let reloading = Arc::clone(&reloader);
        match tokio::task::spawn_blocking(move || reloading.reload_if_changed()).await {
            // Other files may matter now. Not at once: one may be half written just then.
            Ok(true) => {
                tokio::time::sleep(SETTLED).await;
                continue;
            }
            Ok(false) => {}
            Err(_) => warn!("a reload panicked"),
        }
        if touched.recv().await.is_none() {
            return;
        }
        let settle = async { while let Ok(Some(())) = timeout(SETTLED, touched.recv()).await {} };
        let _ = timeout(AT_LAST, settle).await;
    }
}

fn watch_folders(
    watcher: &mut RecommendedWatcher,
    watched: &mut BTreeSet<PathBuf>,
    files: &BTreeSet<PathBuf>,
) {
    let wanted: BTreeSet<_> = files.iter().flat_map(|file| folders_of(file)).collect();
    for folder in watched.difference(&wanted) {
        let _ = watcher.unwatch(folder);
    }
    watched.retain(|folder| wanted.contains(folder));
    for folder in &wanted {
        // One that was replaced has to be watched anew, and to watch one twice does no harm.
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                if watched.insert(folder.clone()) {
                    debug!(folder = %folder.display(), "watching");
                }
            }
            Err(error) => {
                let absent = matches!(error.kind, notify::ErrorKind::PathNotFound);
                if !absent && watched.remove(folder) {
                    info!(folder = %folder.display(), %error, "not watched any more");
                }
            }
        }
    }
}

/// The folders in which something happens when a file changes: its own, and the ones that hold a
/// symbolic link on the way to it (mounted config maps are swapped so).
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut pending = vec![file.to_owned()];
    // Links may lead in circles.
    for _ in 0..16 {
        let Some(path) = pending.pop() else { break };
        folders.extend(path.parent().map(Path::to_owned));
        for part in path.ancestors() {
            let Ok(target) = std::fs::read_link(part) else { continue };
            let Some(parent) = part.parent() else { continue };
            folders.push(parent.to_owned());
            let rest = path.strip_prefix(part).unwrap_or(Path::new(""));
            pending.push(if rest.as_os_str().is_empty() {
                parent.join(target)
            } else {
                parent.join(target).join(rest)
            });
        }
    }
    folders.retain(|folder| !folder.as_os_str().is_empty());
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn folders_of_a_swapped_link_are_found() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        std::fs::create_dir(root.join("..v1")).unwrap();
        std::fs::write(root.join("..v1/a.toml"), "").unwrap();
        std::os::unix::fs::symlink("..v1", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.toml", root.join("a.toml")).unwrap();
        let folders = folders_of(&root.join("a.toml"));
        assert!(folders.contains(&root.to_owned()), "{folders:?}");
        assert!(folders.contains(&root.join("..v1")), "{folders:?}");
    }
}
