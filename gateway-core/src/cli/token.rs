//! `conexus token`: makes a token for the admin API, and the lines of the configuration that know it.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};

use crate::{
    config::{Scope, is_name, taken_by_nobody},
    hooks::hexadecimal,
};

/// What every token begins with, so that scanners and people know one when they see it.
const PREFIX: &str = "cxa_";

#[derive(clap::Args)]
pub(super) struct Options {
    /// What it is good for: read, to see everything; operate, to change things, too
    #[arg(long, value_name = "SCOPE", default_value = "read", value_parser = scope)]
    scope: Scope,

    /// What the audit calls whoever has it
    #[arg(long, value_name = "NAME", default_value = "ops", value_parser = name)]
    name: String,
}

fn scope(text: &str) -> Result<Scope, String> {
    match text {
        "read" => Ok(Scope::Read),
        "operate" => Ok(Scope::Operate),
        _ => Err(format!("expected {}", Scope::WORDS.join(" or "))),
    }
}

fn name(text: &str) -> Result<String, String> {
    let form = r#"expected 1 to 64 of a-z, 0-9, "_" and "-""#;
    match taken_by_nobody(text) {
        Some(problem) => Err(problem.to_owned()),
        None if is_name(text) => Ok(text.to_owned()),
        None => Err(form.to_owned()),
    }
}

/// The token goes to standard output, alone in its line, so that it can be put into a file; what is to
/// be done with it to standard error.
pub(super) fn token(options: &Options) -> io::Result<ExitCode> {
    let token = generate();
    writeln!(io::stdout(), "{token}")?;
    let mut about = io::stderr().lock();
    writeln!(about, "This token is shown once. For gateway.toml, or a file in conf.d:\n")?;
    write!(about, "{}", lines(&token, options))?;
    Ok(ExitCode::SUCCESS)
}

fn generate() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn lines(token: &str, Options { scope, name }: &Options) -> String {
    let hash = hexadecimal(&Sha256::digest(token));
    format!("[admin_token.{name}]\nsha256 = \"{hash}\"\nscope = \"{}\"\n", scope.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, find_token, load};

    #[test]
    fn what_is_printed_makes_the_token_known() {
        let token = generate();
        assert_eq!(token.len(), PREFIX.len() + 43);
        let options = Options { scope: Scope::Operate, name: "night-shift".into() };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gateway.toml"), lines(&token, &options)).unwrap();
        let sources = Sources { working_dir: folder.path().to_owned(), ..Sources::default() };
        let tokens = load(&sources).unwrap().settings.admin_tokens;
        let (name, known) = find_token(&tokens, &token).unwrap();
        assert_eq!((name, known.scope), ("night-shift", Scope::Operate));
        assert_eq!(find_token(&tokens, &generate()), None);
    }
}
