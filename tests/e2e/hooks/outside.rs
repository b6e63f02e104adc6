//! Plugins from outside of this workspace: one as an author makes it, built by its own cargo, and
//! the same built against another contract; and libraries that are none.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use conexus_gateway::{
    config::{HookSource, PluginSettings},
    hooks::Engine,
};
use conexus_plugin_api::{
    Agent, Metadata, Point,
    abi::{Descriptor, LAYOUT, MAGIC, MAJOR, MINOR},
    host::{Event, Register},
};
use conexus_protocol::RefusalReason;
use serde_json::json;
use tempfile::TempDir;

use super::{
    events::{Ruled, agent, decided},
    setup::Setup,
};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Third-party crates stay compiled from one run to the next.
const TARGET: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/outside");
const NAME: &str = "outsider";

fn library(crate_name: &str) -> String {
    format!("{DLL_PREFIX}{crate_name}{DLL_SUFFIX}")
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// A crate as `conexus new plugin` makes it, and what it was built to.
struct Outside {
    folder: TempDir,
}

impl Outside {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let api = Path::new(REPOSITORY).join("plugin-api");
        let mut new = Command::new(env!("CARGO_BIN_EXE_conexus"));
        new.args(["new", "plugin", NAME, "--path"]).arg(folder.path()).arg("--api").arg(api);
        run(new.current_dir(folder.path()));
        let this = Self { folder };
        // The versions that are here already, so that nothing is asked of the network.
        let lock = Path::new(REPOSITORY).join("Cargo.lock");
        fs::copy(lock, this.plugin().join("Cargo.lock")).unwrap();
        this
    }

    fn plugin(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    fn cargo(&self, arguments: &[&str]) -> String {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .current_dir(self.plugin())
            .args(["--offline", "--quiet"])
            .args(arguments)
            .env("CARGO_TARGET_DIR", TARGET)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_INCREMENTAL", "0")
            .env_remove("RUSTFLAGS");
        run(&mut command)
    }

    /// Builds it and keeps the library under a name of the build's own.
    fn build(&self, build: &str, arguments: &[&str]) -> PathBuf {
        self.cargo(arguments);
        let built = Path::new(TARGET).join("debug").join(library(NAME));
        let kept = self.folder.path().join(build).join(library(NAME));
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::copy(built, &kept).unwrap();
        kept
    }

    /// Builds it against a copy of the contract in which one text is another.
    fn build_against(&self, build: &str, file: &str, from: &str, to: &str) -> PathBuf {
        let workspace = self.folder.path().join(format!("api-{build}"));
        let api = workspace.join("plugin-api");
        copy_folder(&Path::new(REPOSITORY).join("plugin-api"), &api);
        let manifest = fs::read_to_string(Path::new(REPOSITORY).join("Cargo.toml")).unwrap();
        let manifest: Vec<_> = manifest
            .lines()
            .filter(|line| !line.starts_with("default-members"))
            .map(|line| {
                let members = line.starts_with("members");
                if members { r#"members = ["plugin-api"]"# } else { line }
            })
            .collect();
        fs::write(workspace.join("Cargo.toml"), manifest.join("\n")).unwrap();
        let path = api.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{file} has {from:?} once");
        fs::write(&path, text.replace(from, to)).unwrap();

        let manifest = self.plugin().join("Cargo.toml");
        let own = fs::read_to_string(&manifest).unwrap();
        let before = fs::canonicalize(REPOSITORY).unwrap().join("plugin-api");
        let changed = own.replace(before.to_str().unwrap(), api.to_str().unwrap());
        assert_ne!(changed, own);
        fs::write(&manifest, changed).unwrap();
        let library = self.build(build, &["build"]);
        fs::write(&manifest, own).unwrap();
        library
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let copy = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &copy);
        } else {
            fs::copy(entry.path(), copy).unwrap();
        }
    }
}

/// With that library as the one hook at on_register.
fn setup(path: &Path, crate_name: Option<&str>, sha256: Option<&str>) -> Setup {
    let mut setup = Setup::new();
    let plugin = PluginSettings {
        path: path.into(),
        sha256: sha256.map(str::to_owned),
        crate_name: crate_name.map(str::to_owned),
    };
    setup.settings.policies.plugins.insert(NAME.into(), plugin);
    let hook = setup.hook(NAME, HookSource::Plugin(NAME.into()));
    hook.config.insert("capability".into(), json!("chat"));
    setup.at(Point::Register, NAME);
    setup
}

fn registering(agent: Agent) -> Event {
    let agent = Arc::new(agent);
    Event::Register(Arc::new(Register {
        agent,
        credentials: None,
        renewal: false,
        connection: None,
    }))
}

async fn decides(engine: &Engine) {
    let stranger = decided(engine, registering(agent(1))).await;
    assert_eq!(stranger.refusal(), Some(RefusalReason::Denied));
    let capabilities = vec!["chat".to_owned()];
    let metadata = Metadata { capabilities, ..Metadata::default() };
    let member = decided(engine, registering(Agent { metadata, ..agent(1) })).await;
    let Ruled::Admission(Ok(admission)) = member else { panic!("{member:?}") };
    assert_eq!(admission.labels["member"], "yes");
}

/// What is not to be loaded, and what is said of it.
struct Refused {
    path: PathBuf,
    crate_name: Option<String>,
    sha256: Option<String>,
    because: String,
}

impl Refused {
    fn new(path: PathBuf, because: impl Into<String>) -> Self {
        Self { path, crate_name: None, sha256: None, because: because.into() }
    }

    /// Neither at the start nor at a reload, which leaves what runs as it is.
    async fn check(&self, engine: &Engine) {
        let setup = setup(&self.path, self.crate_name.as_deref(), self.sha256.as_deref());
        let file = self.path.display().to_string();
        for error in [setup.start().err(), engine.reload(&setup.settings).err()] {
            let error = error.unwrap_or_else(|| panic!("{file} was loaded: {}", self.because));
            let error = error.to_string();
            assert!(error.starts_with(&format!("hook.{NAME}: {file}: ")), "{error}");
            assert!(error.contains(&self.because), "{error}\nlacks: {}", self.because);
        }
        let status = engine.status();
        let reasons = status.refusal.expect("noted").reasons.join("\n");
        assert!(reasons.contains(&self.because) && reasons.contains(&file), "{reasons}");
        assert_eq!(status.generation.number, 1);
        decides(engine).await;
    }
}

/// The magic bytes as a number, in the order of this machine.
fn magic() -> u64 {
    u64::from_ne_bytes(MAGIC)
}

/// Two halves of eight bytes, in the order of this machine.
fn halves(first: u32, second: u32) -> u64 {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first);
    bytes[4..].copy_from_slice(&second);
    u64::from_ne_bytes(bytes)
}

/// One library with many exports whose descriptors are wrong, each in another way.
fn garbage(folder: &Path) -> Vec<Refused> {
    let size = size_of::<Descriptor>() as u64;
    let head = |version, size, layout, panic, needs| {
        [magic(), size, version, layout, halves(0, panic), needs]
    };
    let (here, good) = (halves(MAJOR, MINOR), "[t(), t(), t(), t()]");
    let ours = head(here, size, LAYOUT, 1, 0);
    let cases = [
        ("wild_bytes", [0xa5a5_5a5a_dead_beef; 6], good, "it is no Conexus plugin".to_owned()),
        (
            "newer",
            head(halves(MAJOR, MINOR + 1), size, LAYOUT, 1, 0),
            good,
            format!("built for ABI {MAJOR}.{}, this gateway speaks {MAJOR}.{MINOR}", MINOR + 1),
        ),
        (
            "wild_version",
            head(halves(0xdead, 0xbeef), 7, 9, 9, 9),
            good,
            format!("built for ABI 57005.48879, this gateway speaks {MAJOR}.{MINOR}"),
        ),
        (
            "wild_size",
            head(here, u64::MAX, LAYOUT, 1, 0),
            good,
            format!("says that it has {} bytes", u64::MAX),
        ),
        (
            "wild_layout",
            head(here, size, 0x1234, 1, 0),
            good,
            format!("layout 0000000000001234, this gateway's layout is {LAYOUT:016x}"),
        ),
        ("wild_panic", head(here, size, LAYOUT, 77, 0), good, "(strategy 77)".to_owned()),
        (
            "wild_needs",
            head(here, size, LAYOUT, 1, 0xfff0),
            good,
            "it needs 0xfff0 (unknown here)".to_owned(),
        ),
        (
            "wild_points",
            [magic(), size, here, LAYOUT, halves(u32::MAX, 1), 0],
            good,
            "points that this gateway does not know".to_owned(),
        ),
        (
            "wild_text",
            ours,
            "[t(), Text(8 as *const u8, usize::MAX / 2), t(), t()]",
            "its version is no text".to_owned(),
        ),
        (
            "no_text",
            ours,
            "[Text(BYTES.as_ptr(), 4), t(), t(), t()]",
            "its name is no text".to_owned(),
        ),
        ("no_functions", ours, good, "its function `create` is missing".to_owned()),
    ];
    let mut source = String::from(
        "#![allow(non_upper_case_globals)]\n\
         #[repr(C)] pub struct Text(*const u8, usize);\n\
         #[repr(C)] pub struct D { head: [u64; 6], texts: [Text; 4], functions: [usize; 5] }\n\
         unsafe impl Sync for D {}\n\
         static BYTES: [u8; 4] = [0xff, 0xfe, 0xfd, 0xfc];\n\
         const fn t() -> Text { Text(b\"x\".as_ptr(), 1) }\n\
         #[unsafe(no_mangle)] pub extern \"C\" fn conexus_plugin_null() -> usize { 0 }\n\
         #[unsafe(no_mangle)] pub extern \"C\" fn conexus_plugin_odd() -> usize { 1 }\n\
         #[unsafe(no_mangle)] pub static conexus_plugin_data: [u64; 6] = [7; 6];\n",
    );
    for (name, head, texts, _) in &cases {
        source.push_str(&format!(
            "static {name}: D = D {{ head: {head:?}, texts: {texts}, functions: [0; 5] }};\n\
             #[unsafe(no_mangle)] pub extern \"C\" fn conexus_plugin_{name}() -> *const D {{ \
             &raw const {name} }}\n"
        ));
    }
    let (file, built) = (folder.join("garbage.rs"), folder.join(library("garbage")));
    fs::write(&file, source).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "--crate-type", "cdylib", "-o"]).arg(&built).arg(&file);
    run(&mut command);
    let pointers = [
        ("null", "a pointer to nothing (0x0)"),
        ("odd", "a pointer to nothing (0x1)"),
        ("data", "does not export conexus_plugin_data"),
    ];
    let pointers = pointers.map(|(name, because)| (name, because.to_owned()));
    let described = cases.into_iter().map(|(name, _, _, because)| (name, because));
    let refused = |(name, because): (&str, String)| Refused {
        crate_name: Some(name.to_owned()),
        ..Refused::new(built.clone(), because)
    };
    described.chain(pointers).map(refused).collect()
}

fn no_libraries(folder: &Path, good: &Path) -> Vec<Refused> {
    let text = folder.join(library("text"));
    fs::write(&text, "#!/bin/sh\n").unwrap();
    let cut = folder.join("cut").join(library(NAME));
    fs::create_dir_all(cut.parent().unwrap()).unwrap();
    let whole = fs::read(good).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let pinned = "0".repeat(64);
    vec![
        Refused::new(text, "not a library"),
        // A library's table of contents is at its end.
        Refused::new(cut, "not a library"),
        Refused::new(folder.join("missing.so"), "No such file"),
        Refused {
            sha256: Some(pinned.clone()),
            ..Refused::new(good.into(), format!("the configuration pins {pinned}"))
        },
        Refused {
            crate_name: Some("insider".into()),
            ..Refused::new(good.into(), format!("it is the plugin of the crate {NAME}"))
        },
    ]
}

#[tokio::test]
async fn a_plugin_from_outside_loads_and_what_was_built_for_another_gateway_does_not() {
    let outside = Outside::new();
    let good = outside.build("good", &["build"]);
    let told = outside.cargo(&["test", "--lib"]);
    assert!(told.contains("3 passed"), "{told}");
    let engine = setup(&good, None, None).engine();
    decides(&engine).await;

    let types = "src/abi/types.rs";
    let major = |major| format!("pub const MAJOR: u32 = {major};");
    let newer = outside.build_against("major", types, &major(MAJOR), &major(MAJOR + 1));
    // The same members, the other way round.
    let laid_out = outside.build_against(
        "layout",
        types,
        "pub text: Slice,\n    /// How long to hold or extend, in nanoseconds.\n    pub nanos: u64,",
        "pub nanos: u64,\n    /// Elsewhere.\n    pub text: Slice,",
    );
    let aborting = outside.build("abort", &["rustc", "--lib", "--", "-C", "panic=abort"]);

    let speaks =
        format!("built for ABI {}.{MINOR}, this gateway speaks {MAJOR}.{MINOR}", MAJOR + 1);
    let layout = format!("this gateway's layout is {LAYOUT:016x}");
    let mut refused = vec![
        Refused::new(newer, speaks),
        Refused::new(laid_out.clone(), format!("built for ABI {MAJOR}.{MINOR} with layout ")),
        Refused::new(laid_out, layout),
        Refused::new(aborting, r#"built with panic = "abort""#),
    ];
    refused.append(&mut no_libraries(outside.folder.path(), &good));
    refused.append(&mut garbage(outside.folder.path()));
    for case in refused {
        case.check(&engine).await;
    }
}
