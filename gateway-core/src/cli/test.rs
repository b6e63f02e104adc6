//! `conexus test`: the tests of scripts, run without a network.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::terminal::harmless;
use crate::{
    config::{self, Sources},
    script::{
        ScriptError, Scripts,
        tests::{self, Outcome, TestReport},
    },
};

/// The end of the names of files that have tests only.
const BESIDE: &str = ".test.rhai";

#[derive(clap::Args)]
pub(super) struct Options {
    /// Scripts, their NAME.test.rhai, or folders of them; without any, all of scripts.path
    files: Vec<PathBuf>,

    /// Run only tests whose file/name has this text in it
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,

    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Why no test was run, or the results are lost.
#[derive(Debug, thiserror::Error)]
pub enum TestCommandError {
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} cannot be written", path.display())]
    Junit { path: PathBuf, source: quick_junit::SerializeError },
    #[error("{} cannot be written", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// What came of a file.
struct Tested {
    /// As it is shown: from the working directory, where it lies below.
    name: String,
    result: Result<Vec<TestReport>, ScriptError>,
}

pub(super) fn test(options: &Options, sources: &Sources) -> Result<ExitCode, TestCommandError> {
    let settings = match config::load(sources) {
        Ok(loaded) => loaded.settings.scripts,
        Err(errors) => {
            writeln!(io::stderr(), "{errors}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let files = if options.files.is_empty() {
        found(&settings.path)?
    } else {
        let given = options.files.iter().map(|file| found(&sources.working_dir.join(file)));
        given.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect()
    };
    let scripts = Scripts::new(&settings);
    let began = Instant::now();
    let mut out = io::stdout().lock();
    let mut all = Vec::new();
    for path in files {
        let name = path.strip_prefix(&sources.working_dir).unwrap_or(&path).display().to_string();
        let mut result = tests::run_tests(&scripts, &path);
        if let (Ok(reports), Some(filter)) = (&mut result, &options.filter) {
            reports.retain(|report| format!("{name}/{}", report.name).contains(filter));
        }
        let tested = Tested { name, result };
        out.write_all(tested.text().as_bytes())?;
        all.push(tested);
    }
    let took = began.elapsed();
    if let Some(path) = &options.junit {
        junit(&all, took, path)?;
    }
    let (passed, failed) = (count(&all, Tested::passed), count(&all, Tested::failed));
    if passed + failed == 0 {
        writeln!(out, "no test was found")?;
        return Ok(ExitCode::FAILURE);
    }
    writeln!(out, "{passed} passed, {failed} failed, in {:.2} s", took.as_secs_f64())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The files that a path stands for: those of a folder; a script and what is beside it.
fn found(path: &Path) -> Result<BTreeSet<PathBuf>, TestCommandError> {
    let unread = |source| TestCommandError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(unread)?.is_dir() {
        return Ok(tests::files(path).map_err(unread)?.into_iter().collect());
    }
    let name = path.to_string_lossy();
    let beside = name
        .strip_suffix(".rhai")
        .filter(|_| !name.ends_with(BESIDE))
        .map(|name| PathBuf::from(format!("{name}{BESIDE}")));
    Ok([path.to_owned()].into_iter().chain(beside.filter(|beside| beside.is_file())).collect())
}

fn count(all: &[Tested], what: fn(&Tested) -> usize) -> usize {
    all.iter().map(what).sum()
}

impl Tested {
    fn passed(&self) -> usize {
        let passed = |report: &&TestReport| report.outcome == Outcome::Passed;
        self.result.as_ref().map_or(0, |reports| reports.iter().filter(passed).count())
    }

    /// Tests that failed; one where the file is no script.
    fn failed(&self) -> usize {
        self.result.as_ref().map_or(1, |reports| reports.len() - self.passed())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        match &self.result {
            Ok(reports) if reports.is_empty() => {}
            Ok(reports) => {
                text += &format!("{}\n", harmless(&self.name));
                for report in reports {
                    text += &lines(report);
                }
            }
            Err(error) => {
                text += &format!("{}\n  FAILED  it is no script that runs\n", harmless(&self.name));
                text += &indented(&error.to_string());
            }
        }
        text
    }
}

fn lines(report: &TestReport) -> String {
    let (word, why) = match &report.outcome {
        Outcome::Passed => ("ok    ", None),
        Outcome::Failed(why) => ("FAILED", Some(why)),
    };
    let took = report.duration.as_secs_f64() * 1000.0;
    let mut text = format!("  {word}  {} ({took:.1} ms)\n", report.name);
    if let Some(why) = why {
        text += &indented(why);
        for line in &report.log {
            text += &indented(&format!("log: {line}"));
        }
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("          {}\n", harmless(line))).collect()
}

fn junit(all: &[Tested], took: Duration, path: &Path) -> Result<(), TestCommandError> {
    let mut report = Report::new("conexus test");
    report.set_time(took);
    for tested in all {
        let mut suite = TestSuite::new(tested.name.as_str());
        match &tested.result {
            Ok(reports) if reports.is_empty() => continue,
            Ok(reports) => {
                suite.set_time(reports.iter().map(|report| report.duration).sum());
                suite.add_test_cases(reports.iter().map(|report| case(&tested.name, report)));
            }
            Err(error) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message("it is no script that runs").set_description(error.to_string());
                suite.add_test_case(TestCase::new("load", status));
            }
        }
        report.add_test_suite(suite);
    }
    let file = File::create(path)
        .map_err(|source| TestCommandError::Create { path: path.to_owned(), source })?;
    report
        .serialize(file)
        .map_err(|source| TestCommandError::Junit { path: path.to_owned(), source })
}

fn case(file: &str, report: &TestReport) -> TestCase {
    let status = match &report.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed(why) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status
                .set_message(why.lines().next().unwrap_or_default())
                .set_description(why.as_str());
            status
        }
    };
    let mut case = TestCase::new(report.name.as_str(), status);
    case.set_classname(file).set_time(report.duration);
    if !report.log.is_empty() {
        case.set_system_out(report.log.join("\n"));
    }
    case
}
