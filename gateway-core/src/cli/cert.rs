//! `conexus cert`: certificates for development, of an authority of one's own.
//!
//! The authority's key stays in the folder, so that clients' certificates can be made later on. For
//! anything that others are to trust, an authority that others run is the place to go.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use jiff::{ToSpan as _, Zoned, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::keyfile;

/// Chrome and Apple take no certificate that lasts for longer.
const LONGEST: u16 = 398;

/// The authority outlives what it issues.
const AUTHORITY_DAYS: i64 = 3650;

#[derive(clap::Args)]
pub(super) struct Options {
    /// The folder to write to; made if missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,

    /// A host name or IP address that the gateway is dialed by; may be repeated [default: localhost,
    /// 127.0.0.1 and ::1]
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,

    /// Make an agent's certificate of this name, instead of a gateway's; may be repeated
    #[arg(long = "client", value_name = "NAME", conflicts_with = "names", value_parser = file_name)]
    clients: Vec<String>,

    /// How long they are valid
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=i64::from(LONGEST)))]
    days: u16,

    /// Overwrite files that are there; the authority's stay
    #[arg(long)]
    force: bool,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    #[error("{} exists; --force overwrites it", .0.display())]
    Exists(PathBuf),
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} and {} belong together, and one of them is missing", .0.display(), .1.display())]
    HalfAnAuthority(PathBuf, PathBuf),
    #[error("{} is not of an authority that this command made", path.display())]
    Authority { path: PathBuf, source: rcgen::Error },
    #[error("{} is asked for twice", .0.display())]
    Twice(PathBuf),
    #[error("{name:?} is neither a host name nor an IP address")]
    Name { name: String, source: rcgen::Error },
    #[error("no certificate could be made")]
    Make(#[from] rcgen::Error),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// What is issued, and the files that it goes to.
struct Wanted {
    params: CertificateParams,
    certificate: PathBuf,
    key: PathBuf,
}

pub(super) fn cert(options: &Options) -> Result<ExitCode, CertError> {
    let out = &options.out;
    let wanted = wanted(options)?;
    let mut twice = wanted.iter().map(|wanted| &wanted.certificate).collect::<Vec<_>>();
    twice.sort();
    if let Some(pair) = twice.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(CertError::Twice(pair[0].clone()));
    }
    if !options.force {
        let paths = wanted.iter().flat_map(|wanted| [&wanted.certificate, &wanted.key]);
        if let Some(path) = paths.into_iter().find(|path| path.exists()) {
            return Err(CertError::Exists(path.clone()));
        }
    }
    let failed = |source| CertError::Write { path: out.clone(), source };
    fs::create_dir_all(out).map_err(failed)?;
    let issuer = authority(out)?;
    for Wanted { params, certificate, key } in &wanted {
        let pair = KeyPair::generate()?;
        let issued = params.signed_by(&pair, &issuer)?;
        write(key, &pair.serialize_pem(), 0o600)?;
        write(certificate, &issued.pem(), 0o644)?;
    }
    tell(options, &wanted)?;
    Ok(ExitCode::SUCCESS)
}

fn wanted(options: &Options) -> Result<Vec<Wanted>, CertError> {
    let in_folder = |name: String| options.out.join(name);
    if !options.clients.is_empty() {
        let client = |name: &String| {
            let mut params = params(name, options.days.into());
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = in_folder(format!("{name}.pem"));
            Wanted { params, certificate, key: in_folder(format!("{name}.key.pem")) }
        };
        return Ok(options.clients.iter().map(client).collect());
    }
    let local = || ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let names = if options.names.is_empty() { local() } else { options.names.clone() };
    let mut params = params(&names[0], options.days.into());
    for name in &names {
        let named = CertificateParams::new(vec![name.clone()])
            .map_err(|source| CertError::Name { name: name.clone(), source })?;
        params.subject_alt_names.extend(named.subject_alt_names);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (certificate, key) = (in_folder("cert.pem".to_owned()), in_folder("key.pem".to_owned()));
    Ok(vec![Wanted { params, certificate, key }])
}

/// For so many days from now. It begins a day early, for clocks that are behind.
fn params(name: &str, days: i64) -> CertificateParams {
    let today = Zoned::now().with_time_zone(TimeZone::UTC).date();
    let midnight = |date: Date| {
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = midnight(today.saturating_sub(1.day()));
    params.not_after = midnight(today.saturating_add((days + 1).days()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The folder's authority, which is made if there is none.
fn authority(out: &Path) -> Result<Issuer<'static, KeyPair>, CertError> {
    let (path, key_path) = (out.join("ca.pem"), out.join("ca.key.pem"));
    match (path.exists(), key_path.exists()) {
        (false, false) => {
            let mut params = params("Conexus development authority", AUTHORITY_DAYS);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let key = KeyPair::generate()?;
            let certificate = params.self_signed(&key)?;
            write(&key_path, &key.serialize_pem(), 0o600)?;
            write(&path, &certificate.pem(), 0o644)?;
            Ok(Issuer::new(params, key))
        }
        (true, true) => {
            let read = |path: &Path| {
                let failed = |source| CertError::Read { path: path.to_owned(), source };
                fs::read_to_string(path).map_err(failed)
            };
            let wrong = |path: &Path| {
                let path = path.to_owned();
                move |source| CertError::Authority { path, source }
            };
            let key = KeyPair::from_pem(&read(&key_path)?).map_err(wrong(&key_path))?;
            Issuer::from_ca_cert_pem(&read(&path)?, key).map_err(wrong(&path))
        }
        _ => Err(CertError::HalfAnAuthority(path, key_path)),
    }
}

fn write(path: &Path, content: &str, mode: u32) -> Result<(), CertError> {
    keyfile::replace(path, content, mode)
        .map_err(|source| CertError::Write { path: path.to_owned(), source })
}

fn tell(options: &Options, wanted: &[Wanted]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let shown = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let ca = shown(&options.out.join("ca.pem"));
    if options.clients.is_empty() {
        for Wanted { certificate, key, .. } in wanted {
            writeln!(
                out,
                "# For {} days, and for development alone. In gateway.toml:",
                options.days
            )?;
            writeln!(out, "[tls]")?;
            writeln!(out, "certificate = {:?}", shown(certificate))?;
            writeln!(out, "key = {:?}", shown(key))?;
        }
        writeln!(out, "\n# Agents trust it by its authority:")?;
        writeln!(out, "#   conexus listen --ca {} --url wss://localhost:8000/ws", ca.display())?;
        writeln!(
            out,
            "#   Client::builder(url, identity).root_certificate_pem(fs::read({ca:?})?)"
        )?;
    } else {
        writeln!(out, "# The gateway asks for them with, in gateway.toml:")?;
        writeln!(out, "[tls]")?;
        writeln!(out, "client_ca = {ca:?}")?;
        writeln!(out, "client_auth = \"required\"")?;
        for Wanted { certificate, key, .. } in wanted {
            let (certificate, key) = (shown(certificate), shown(key));
            writeln!(
                out,
                "\n#   conexus listen --ca {} --client-cert {} --client-key {}",
                ca.display(),
                certificate.display(),
                key.display()
            )?;
        }
    }
    out.flush()
}

/// A name that is a file's, too, and not one of the authority's or the gateway's.
fn file_name(text: &str) -> Result<String, &'static str> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-@".contains(letter);
    match text {
        "ca" | "cert" | "key" | "ca.key" => Err("the gateway's own files are called so"),
        // NAME.pem would be the key of another.
        _ if text.ends_with(".key") => Err("the files of keys are called so"),
        _ if text.is_empty() || text.starts_with('.') || !text.chars().all(plain) => {
            Err("expected letters, digits, \".\", \"_\", \"-\" and \"@\"")
        }
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn run(folder: &Path, line: &str) -> Result<(), String> {
        let out = folder.to_str().unwrap();
        let words =
            ["cert", "--out", out].into_iter().chain(line.split(' ').filter(|w| !w.is_empty()));
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        cert(&line.options).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn no_file_is_asked_for_twice_or_named_as_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(folder.path(), "--client a --client a.key").unwrap_err();
        assert!(error.contains("the files of keys are called so"), "{error}");
        let error = run(folder.path(), "--client a --client b --client a").unwrap_err();
        assert!(error.ends_with("a.pem is asked for twice"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
    }

    #[test]
    fn files_are_made_for_their_owner_and_never_overwritten_unawares() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        run(&folder, "").unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let mode =
            |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("key.pem"), mode("ca.key.pem"), mode("cert.pem")), (0o600, 0o600, 0o644));
        let (ca, cert) = (read("ca.pem"), read("cert.pem"));
        let error = run(&folder, "").unwrap_err();
        assert!(error.contains("cert.pem exists; --force overwrites it"), "{error}");
        run(&folder, "--force --name gateway.example").unwrap();
        assert_eq!(read("ca.pem"), ca, "those who trust it go on doing so");
        assert_ne!(read("cert.pem"), cert);
        run(&folder, "--client agent-7 --client agent-8").unwrap();
        assert_eq!(mode("agent-7.key.pem"), 0o600);
        assert!(run(&folder, "--client agent-8").unwrap_err().contains("agent-8.pem exists"));
        fs::remove_file(folder.join("ca.key.pem")).unwrap();
        assert!(run(&folder, "--client x").unwrap_err().contains("one of them is missing"));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for line in ["--client ../x", "--client ca", "--client .x", "--days 0", "--days 399"] {
            assert!(run(folder.path(), line).is_err(), "{line}");
        }
        let error = run(folder.path(), "--name ä").unwrap_err();
        assert!(error.contains("neither a host name nor an IP address"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is half made");
    }
}
