//! `conexus reload`, `rollback`, `hooks` and `nodes`: a running gateway is asked on its admin listener.

mod nodes;

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use reqwest::{
    Method,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::Value;
use url::Url;

use super::{
    terminal::{harmless, table},
    tls_options::{Shown, TlsOptionsError, Trust},
};
use crate::{
    config::{self, ConfigErrors, Sources},
    http_client::{ClientError, direct_client},
};

/// A reload compiles and starts whatever has changed.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(clap::Args)]
pub(super) struct Options {
    /// The gateway's admin listener; without it, the address in the configuration
    #[arg(long, value_name = "URL", value_parser = admin_url)]
    admin: Option<Url>,

    /// A file with the token that the admin listener asks for; without it, the environment variable
    /// CONEXUS_ADMIN_TOKEN if it is set
    // Not an argument: it would show in the list of processes.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(flatten)]
    trust: Trust,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where a token is looked for without a file.
const TOKEN_VARIABLE: &str = "CONEXUS_ADMIN_TOKEN";

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) enum Wish {
    Reload,
    Rollback,
    Hooks,
    Nodes,
}

/// Why a gateway did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(
        "the admin listener at {url} cannot be asked; does the gateway run, with admin.enabled?"
    )]
    Request { url: Url, source: reqwest::Error },
    #[error("the admin listener at {url} answered {status}: {text}")]
    Status { url: Url, status: reqwest::StatusCode, text: String },
    #[error("{url} does not answer as a gateway's admin listener")]
    Answer { url: Url, source: serde_json::Error },
    #[error("{0} cannot be asked")]
    Url(Url),
    #[error("the token in {} cannot be read", path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the token is empty, or has characters that no token has")]
    Token,
    #[error("admin.listen ({0}) cannot be asked")]
    Address(std::net::SocketAddr),
    #[error(
        "{0}\nthe admin listener's address is not known; give it with --admin http://127.0.0.1:PORT"
    )]
    Unknown(ConfigErrors),
    #[error(transparent)]
    Tls(#[from] TlsOptionsError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

pub(super) async fn control(
    wish: Wish,
    options: &Options,
    sources: &Sources,
) -> Result<ExitCode, ControlError> {
    let (method, path) = match wish {
        Wish::Reload => (Method::POST, "api/v1/reload"),
        Wish::Rollback => (Method::POST, "api/v1/rollback"),
        Wish::Hooks => (Method::GET, "api/v1/hooks"),
        Wish::Nodes => (Method::GET, "api/v1/nodes"),
    };
    let base = options.admin.clone().map_or_else(|| configured(sources), Ok)?;
    let url = base.join(path).map_err(|_| ControlError::Url(base.clone()))?;
    let client = direct_client(PATIENCE, &options.trust.config(&Shown::default())?)?;
    let failed = |source| ControlError::Request { url: url.clone(), source };
    let mut request = client.request(method, url.clone());
    if let Some(token) = token(options.token_file.as_deref(), sources)? {
        request = request.header(AUTHORIZATION, token);
    }
    let answer = request.send().await.map_err(failed)?;
    let status = answer.status();
    let text = answer.text().await.map_err(failed)?;
    let json = serde_json::from_str::<Value>(&text);
    if status == reqwest::StatusCode::CONFLICT
        && let Ok(json) = &json
    {
        return Ok(print_refusal(json, options.json)?);
    }
    if !status.is_success() {
        let text = harmless(text.trim()).chars().take(500).collect();
        return Err(ControlError::Status { url, status, text });
    }
    let json = json.map_err(|source| ControlError::Answer { url, source })?;
    let mut out = io::stdout().lock();
    if options.json {
        writeln!(out, "{json:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    match wish {
        Wish::Hooks => out.write_all(hooks(&json).as_bytes())?,
        Wish::Nodes => out.write_all(nodes::nodes(&json).as_bytes())?,
        Wish::Reload | Wish::Rollback => {
            writeln!(out, "generation {} runs", json["generation"])?;
            for key in json["needs_restart"].as_array().into_iter().flatten() {
                writeln!(out, "warning: {} was changed and needs a restart", text_of(key))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The header that presents the token, if there is one.
pub(super) fn token(
    file: Option<&Path>,
    sources: &Sources,
) -> Result<Option<HeaderValue>, ControlError> {
    let token = match file {
        Some(path) => {
            let unread = |source| ControlError::TokenFile { path: path.to_owned(), source };
            Some(std::fs::read_to_string(path).map_err(unread)?)
        }
        None => sources.variable(TOKEN_VARIABLE),
    };
    let Some(token) = token else { return Ok(None) };
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ControlError::Token);
    }
    let header = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut header = header.map_err(|_| ControlError::Token)?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// A URL, or just an address.
pub(super) fn admin_url(text: &str) -> Result<Url, url::ParseError> {
    if text.contains("://") { text.parse() } else { format!("http://{text}").parse() }
}

/// The address in the configuration. Where that is faulty an address that is not certain is none:
/// another gateway may listen there.
pub(super) fn configured(sources: &Sources) -> Result<Url, ControlError> {
    let (mut address, tls) = match config::load(sources) {
        Ok(loaded) => (loaded.settings.admin.listen, loaded.settings.admin.tls),
        Err(errors) => config::admin_address(sources).ok_or(ControlError::Unknown(errors))?,
    };
    // Where it listens everywhere, it listens here as well.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{address}/").parse().map_err(|_| ControlError::Address(address))
}

fn print_refusal(json: &Value, as_json: bool) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{json:#}")?;
    } else {
        writeln!(out, "{}", text_of(&json["error"]))?;
        for reason in json["reasons"].as_array().into_iter().flatten() {
            writeln!(out, "{}", text_of(reason))?;
        }
    }
    Ok(ExitCode::FAILURE)
}

fn text_of(value: &Value) -> String {
    harmless(value.as_str().unwrap_or_default())
}

fn hooks(status: &Value) -> String {
    let mut text = about("generation", &status["generation"]);
    for file in status["generation"]["files"].as_array().into_iter().flatten() {
        let hash = text_of(&file["sha256"]);
        let hash = hash.get(..16).unwrap_or(&hash);
        text += &format!("  {hash:<16}  {}\n", text_of(&file["path"]));
    }
    if !status["former"].is_null() {
        text += &about("former generation", &status["former"]);
    }
    if let Some(reasons) = status["refusal"]["reasons"].as_array() {
        text += &format!("last candidate refused {}:\n", when(&status["refusal"]["at_ms"]));
        text.extend(reasons.iter().map(|reason| format!("  {}\n", text_of(reason))));
    }
    text += &trouble(status);
    text + "\n" + table(&rows(status)).as_str()
}

/// What should be nothing and is not.
fn trouble(status: &Value) -> String {
    let counts = [
        ("threads lost to calls that did not return", &status["pool"]["lost"]),
        ("calls waiting for a thread", &status["pool"]["waiting"]),
        ("events that observers were not told", &status["observers_dropped"]),
        ("decisions that were not recorded", &status["decisions_dropped"]),
        ("refusals since the state is full", &status["state"]["refusals"]),
    ];
    let counted = counts.iter().filter_map(|(what, count)| Some((what, count.as_u64()?)));
    counted.filter(|(_, count)| *count > 0).map(|(what, n)| format!("{n} {what}\n")).collect()
}

fn about(what: &str, generation: &Value) -> String {
    format!("{what} {} since {}\n", generation["number"], when(&generation["since_ms"]))
}

fn when(at_ms: &Value) -> String {
    let at = at_ms.as_i64().unwrap_or_default();
    conexus_protocol::Timestamp::from_unix_millis(at).to_string()
}

fn rows(status: &Value) -> Vec<Vec<String>> {
    let header = [
        "POINT", "HOOK", "USE", "MODE", "BREAKER", "CALLS", "VERDICTS", "FAULTS", "P50 US",
        "P99 US",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (point, hooks) in status["chains"].as_object().into_iter().flatten() {
        for hook in hooks.as_array().into_iter().flatten() {
            let counts = &hook["counts"];
            let words = ["hook", "source", "mode", "breaker"].map(|name| text_of(&hook[name]));
            let [name, source, mut mode, breaker] = words;
            if let Some(configured) = hook["configured_mode"].as_str() {
                mode += &format!(" (configured: {})", harmless(configured));
            }
            rows.push(vec![
                harmless(point),
                name,
                source,
                mode,
                breaker,
                counts["calls"].to_string(),
                counted(&counts["verdicts"]),
                counted(&counts["faults"]),
                counts["p50_us"].to_string(),
                counts["p99_us"].to_string(),
            ]);
        }
    }
    rows
}

fn counted(counts: &Value) -> String {
    let counts = counts.as_object().into_iter().flatten();
    let counts: Vec<_> = counts.map(|(name, n)| format!("{}:{n}", harmless(name))).collect();
    if counts.is_empty() { "-".into() } else { counts.join(",") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What would be asked with this file, variables and `--set`.
    fn asked(file: Option<&str>, env: &[(&str, &str)], set: &[&str]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        if let Some(text) = file {
            std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
        }
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sources = Sources {
            config: None,
            working_dir: folder.path().to_owned(),
            env: env.collect(),
            set: set.iter().map(|text| (*text).to_owned()).collect(),
        };
        configured(&sources).map(String::from).map_err(|error| error.to_string())
    }

    #[test]
    fn a_listener_everywhere_or_with_tls_is_asked_as_it_can_be() {
        const FAULTY: &str = "[log]\nnonsense = 1\n";
        for (admin, url) in [
            ("listen = \"0.0.0.0:9177\"\ntls = true\n", "https://127.0.0.1:9177/"),
            ("listen = \"[::]:9177\"\n", "http://[::1]:9177/"),
            ("listen = \"127.0.0.1:9177\"\ntls = true\n", "https://127.0.0.1:9177/"),
        ] {
            let file = format!("{FAULTY}[admin]\n{admin}");
            assert_eq!(asked(Some(&file), &[], &[]), Ok(url.to_owned()), "{admin}");
        }
    }

    #[test]
    fn a_faulty_configuration_leads_to_no_other_gateway() {
        const FAULTY: &str = "[log]\nnonsense = 1\n";
        const TORN: &str = "[admin]\nlisten = \"127.0.0.1:1\"\n[log\n";
        let known = |port: u16| Ok(format!("http://127.0.0.1:{port}/"));
        let with_address = format!("{FAULTY}[admin]\nlisten = \"127.0.0.1:9177\"\n");
        assert_eq!(asked(None, &[], &[]), known(9100));
        assert_eq!(asked(Some(&with_address), &[], &[]), known(9177));
        assert_eq!(asked(Some(TORN), &[], &["admin.listen=127.0.0.1:2"]), known(2));
        assert_eq!(asked(Some(TORN), &[("CONEXUS_ADMIN__LISTEN", "127.0.0.1:3")], &[]), known(3));
        let misspelt = "[admin]\nlistne = \"127.0.0.1:1\"\n";
        let untyped = "admin = 1\n";
        for (file, set) in [
            (FAULTY, None),
            (TORN, None),
            (misspelt, None),
            (untyped, None),
            (with_address.as_str(), Some("admin.listen=nowhere")),
            (with_address.as_str(), Some("admin.listen")),
        ] {
            let refused = asked(Some(file), &[], set.as_slice()).unwrap_err();
            assert!(refused.contains("give it with --admin http://127.0.0.1:PORT"), "{refused}");
            assert!(refused.lines().count() > 1, "the faults are listed: {refused}");
        }
    }

    #[test]
    fn an_admin_listener_is_named_by_a_url_or_an_address() {
        for (text, url) in [
            ("127.0.0.1:9177", "http://127.0.0.1:9177/"),
            ("localhost:9177", "http://localhost:9177/"),
            ("http://[::1]:9177", "http://[::1]:9177/"),
        ] {
            assert_eq!(admin_url(text).unwrap().as_str(), url);
        }
    }

    #[test]
    fn hooks_are_shown_with_what_runs_and_why_a_candidate_was_refused() {
        let status = json!({
            "generation": {
                "number": 3, "since_ms": 1_700_000_000_000_i64,
                "files": [{ "path": "scripts/a.rhai", "sha256": "00112233445566778899" }],
            },
            "former": null,
            "refusal": { "at_ms": 1_700_000_001_000_i64, "reasons": ["a.rhai:1:2: oops"] },
            "chains": { "on_route": [{
                "hook": "a", "source": "script:a", "mode": "enforce", "breaker": "closed",
                "counts": {
                    "calls": 7, "verdicts": { "continue": 6, "deny": 1 }, "faults": {},
                    "p50_us": 2, "p99_us": 5,
                },
            }, {
                "hook": "b", "source": "script:b", "mode": "off", "breaker": "closed",
                "configured_mode": "enforce",
                "counts": {
                    "calls": 0, "verdicts": {}, "faults": {}, "p50_us": 0, "p99_us": 0,
                },
            }]},
        });
        assert_eq!(
            hooks(&status),
            "generation 3 since 2023-11-14T22:13:20.000000Z\n  \
             0011223344556677  scripts/a.rhai\n\
             last candidate refused 2023-11-14T22:13:21.000000Z:\n  a.rhai:1:2: oops\n\n\
             POINT     HOOK  USE       MODE                       BREAKER  CALLS  VERDICTS           FAULTS  P50 US  P99 US\n\
             on_route  a     script:a  enforce                    closed   7      continue:6,deny:1  -       2       5\n\
             on_route  b     script:b  off (configured: enforce)  closed   0      -                  -       0       0\n"
        );
    }
}
