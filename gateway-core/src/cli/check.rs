//! `conexus check`: the configuration and the policy are judged and nothing is started.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::{
    cluster::redis::RedisBackplane,
    config::{self, Mode, Policies, Sources},
    hooks::{CheckedHook, Engine},
    tls::ServerTls,
};

pub(super) fn check(sources: &Sources) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match config::load(sources) {
        Ok(loaded) => {
            let files = counted(loaded.files.len(), "file");
            let set = loaded.origins.values().filter(|origin| **origin != config::Origin::Default);
            let set = set.count();
            writeln!(out, "settings are valid: {files}, {set} of {} keys set", config::KEYS.len())?;
            writeln!(out, "policy: {}", summary(&loaded.settings.policies))?;
            for warning in &loaded.warnings {
                writeln!(out, "warning: {warning}")?;
            }
            for hint in config::hints(&loaded.settings) {
                writeln!(out, "hint: {hint}")?;
            }
            match ServerTls::load(&loaded.settings) {
                Ok(None) => {}
                Ok(Some(tls)) => {
                    writeln!(out, "certificate: {}", tls.facts())?;
                    for warning in tls.warnings() {
                        writeln!(out, "warning: {warning}")?;
                    }
                }
                Err(error) => {
                    writeln!(out, "the certificate is of no use:\n{error}")?;
                    return Ok(ExitCode::FAILURE);
                }
            }
            if let Err(error) = RedisBackplane::configured(&loaded.settings) {
                writeln!(out, "the cluster is of no use:\n{error}")?;
                return Ok(ExitCode::FAILURE);
            }
            match Engine::check(&loaded.settings) {
                Ok(hooks) => {
                    for hook in &hooks {
                        writeln!(out, "{}", line(hook))?;
                    }
                    writeln!(out, "configuration and policy are valid")?;
                    Ok(ExitCode::SUCCESS)
                }
                Err(error) => {
                    writeln!(out, "the policy is faulty:\n{}", error)?;
                    Ok(ExitCode::FAILURE)
                }
            }
        }
        Err(errors) => {
            writeln!(out, "{errors}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// `hook.members: script:allowlist, asked at on_register (shadow)`.
fn line(hook: &CheckedHook) -> String {
    let uses = hook.asked.iter().map(|(point, mode)| match mode {
        Mode::Shadow => format!("{point} (shadow)"),
        Mode::Enforce | Mode::Off => (*point).to_owned(),
    });
    let uses = uses.collect::<Vec<_>>().join(", ");
    let uses = if uses.is_empty() { "in no chain".to_owned() } else { format!("asked at {uses}") };
    format!("hook.{}: {}, {uses}", hook.hook, hook.source)
}

/// How much policy there is. Chains without a hook count for nothing.
fn summary(policies: &Policies) -> String {
    let chains = policies.chains.values().filter(|entries| !entries.is_empty()).count();
    format!(
        "{}, {}, {}, {}",
        counted(policies.hooks.len(), "hook"),
        counted(chains, "chain"),
        counted(policies.plugins.len(), "plugin"),
        match policies.rate_classes.len() {
            1 => "1 rate class".to_owned(),
            count => format!("{count} rate classes"),
        }
    )
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_counted() {
        assert_eq!(summary(&Policies::default()), "0 hooks, 0 chains, 0 plugins, 0 rate classes");
    }
}
