//! `conexus check`: the configuration is judged and nothing is started.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::config::{self, Sources};

pub(super) fn check(sources: &Sources) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match config::load(sources) {
        Ok(loaded) => {
            let files = match loaded.files.len() {
                1 => "1 file".to_owned(),
                count => format!("{count} files"),
            };
            let set = loaded.origins.values().filter(|origin| **origin != config::Origin::Default);
            let set = set.count();
            writeln!(
                out,
                "configuration is valid: {files}, {set} of {} keys set",
                config::KEYS.len()
            )?;
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
