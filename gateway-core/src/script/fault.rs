//! Errors of scripts, with their place and the script's own stack.

use std::{fmt, io, path::Path};

use rhai::{EvalAltResult, ParseError, Position};

use super::meter::{MEMORY_BYTES, Stopped};
use crate::hooks::HookFault;

/// One thing that is wrong with a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptFault {
    /// `allowlist.rhai`, relative to the scripts folder; or the path of what could not be read.
    pub file: String,
    /// From 1; 0 where no place is known.
    pub line: usize,
    /// From 1; 0 where no place is known.
    pub column: usize,
    /// What is wrong.
    pub text: String,
}

impl ScriptFault {
    pub(super) fn new(file: &str, position: Position, text: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: position.line().unwrap_or(0),
            column: position.position().unwrap_or(0),
            text: text.into(),
        }
    }
}

impl fmt::Display for ScriptFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, text } = self;
        if *line == 0 {
            write!(f, "{file}: {text}")
        } else {
            write!(f, "{file}:{line}:{column}: {text}")
        }
    }
}

/// Why a script is refused: everything that was found, each with its place, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    faults: Vec<ScriptFault>,
}

impl ScriptError {
    /// What was found; never empty.
    #[must_use]
    pub fn faults(&self) -> &[ScriptFault] {
        &self.faults
    }

    pub(super) fn all(faults: Vec<ScriptFault>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(Self { faults }) }
    }

    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        ScriptFault::new(&path.display().to_string(), Position::NONE, error.to_string()).into()
    }

    pub(super) fn parse(file: &str, error: &ParseError) -> Self {
        ScriptFault::new(file, error.position(), error.err_type().to_string()).into()
    }

    pub(super) fn run(file: &str, error: EvalAltResult) -> Self {
        let trace = Trace::of(error, file, "the top level");
        Self { faults: vec![trace.fault] }
    }
}

impl From<ScriptFault> for ScriptError {
    fn from(fault: ScriptFault) -> Self {
        Self { faults: vec![fault] }
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ScriptError {}

/// A verdict that has no meaning, thrown by the function that was to make it.
#[derive(Debug, Clone)]
pub(super) struct BadVerdict(pub(super) String);

/// An error taken apart.
pub(super) struct Trace {
    fault: ScriptFault,
    stack: Vec<String>,
    kind: Kind,
}

enum Kind {
    Failed,
    Stopped(Stopped),
    BadVerdict,
}

impl Trace {
    /// Of an error that came out of `entry` in `file`.
    pub(super) fn of(error: EvalAltResult, file: &str, entry: &str) -> Self {
        let (mut error, mut file, mut name) = (error, file.to_owned(), entry.to_owned());
        let mut stack = Vec::new();
        // Rhai nests from the outside in, each layer with where the next was called.
        loop {
            let (callee, source, inner, position) = match error {
                EvalAltResult::ErrorInFunctionCall(callee, source, inner, position) => {
                    (callee, source, inner, position)
                }
                EvalAltResult::ErrorInModule(module, inner, position) => {
                    (format!("module {module}"), module, inner, position)
                }
                innermost => {
                    error = innermost;
                    break;
                }
            };
            stack.push(frame(&name, &file, position));
            name = callee;
            if !source.is_empty() {
                file = source;
            }
            error = *inner;
        }
        let position = error.position();
        stack.push(frame(&name, &file, position));
        stack.reverse();
        let (kind, text) = innermost(error);
        Self { fault: ScriptFault::new(&file, position, text), stack, kind }
    }

    /// `file:line:col: text, in f (file:line:col), in on_route (file:line:col)`.
    fn text(&self) -> String {
        // One frame says no more than the place does.
        let frames = if self.stack.len() > 1 { self.stack.as_slice() } else { &[] };
        let mut text = self.fault.to_string();
        for frame in frames {
            text.push_str(", in ");
            text.push_str(frame);
        }
        text
    }

    pub(super) fn into_hook_fault(self) -> HookFault {
        match self.kind {
            Kind::Stopped(Stopped::Deadline) => HookFault::TimedOut,
            Kind::BadVerdict => HookFault::BadReturn(self.text()),
            Kind::Failed | Kind::Stopped(_) => HookFault::Failed(self.text()),
        }
    }

    /// What was thrown or went wrong, without its place.
    pub(super) fn into_reason(self) -> String {
        self.fault.text
    }

    /// For a policy test: the text whatever the kind.
    pub(super) fn into_text(self) -> String {
        self.text()
    }
}

fn frame(name: &str, file: &str, position: Position) -> String {
    let name = if name.starts_with("anon$") { "a closure" } else { name };
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => format!("{name} ({file}:{line}:{column})"),
        _ => format!("{name} ({file})"),
    }
}

fn innermost(mut error: EvalAltResult) -> (Kind, String) {
    error.clear_position();
    match error {
        EvalAltResult::ErrorTerminated(token, _) => match token.try_cast::<Stopped>() {
            Some(stopped) => (Kind::Stopped(stopped), stopped_text(stopped)),
            None => (Kind::Failed, "stopped".to_owned()),
        },
        EvalAltResult::ErrorRuntime(thrown, _) => match thrown.try_cast_result::<BadVerdict>() {
            Ok(BadVerdict(text)) => (Kind::BadVerdict, text),
            Err(thrown) => (Kind::Failed, thrown_text(&thrown)),
        },
        EvalAltResult::ErrorParsing(kind, _) => (Kind::Failed, kind.to_string()),
        other => (Kind::Failed, other.to_string()),
    }
}

/// What was thrown may be long, and lands in logs.
fn thrown_text(thrown: &rhai::Dynamic) -> String {
    let mut text = thrown.to_string();
    if text.len() > 1000 {
        let end = (0..=1000).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    if text.is_empty() { "thrown without a text".to_owned() } else { text }
}

fn stopped_text(stopped: Stopped) -> String {
    match stopped {
        Stopped::Operations(max) => format!("more than {max} operations"),
        Stopped::Deadline => "no answer within its budget".to_owned(),
        Stopped::Memory => format!("more than {} MiB of memory", MEMORY_BYTES >> 20),
    }
}
