//! `conexus check`: the configuration is judged and nothing is started.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::config::{self, Policies, Sources};

pub(super) fn check(sources: &Sources) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match config::load(sources) {
        Ok(loaded) => {
            let files = counted(loaded.files.len(), "file");
            let set = loaded.origins.values().filter(|origin| **origin != config::Origin::Default);
            let set = set.count();
            writeln!(
                out,
                "configuration is valid: {files}, {set} of {} keys set",
                config::KEYS.len()
            )?;
            writeln!(out, "policy: {}", summary(&loaded.settings.policies))?;
            for warning in &loaded.warnings {
                writeln!(out, "warning: {warning}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            writeln!(out, "{errors}")?;
            Ok(ExitCode::FAILURE)
        }
    }
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
