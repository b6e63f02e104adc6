//! Lists that a configuration names: read once, looked up at once however long they are.

use std::{collections::HashSet, path::Path, sync::Arc};

use rhai::{Dynamic, ImmutableString, NativeCallContext};
use serde_json::{Map as Config, Value as Json};

use super::{Bindings, Fallible, with_call};
use crate::hooks::SourceFile;
use crate::script::{fault::ScriptError, sources::read_list};

/// The lines of a file, or the texts of an array.
#[derive(Debug, Clone)]
pub(crate) struct Lines(Arc<Listed>);

#[derive(Debug)]
struct Listed {
    in_order: Vec<ImmutableString>,
    set: HashSet<ImmutableString>,
}

impl Lines {
    fn of(texts: impl Iterator<Item = ImmutableString>) -> Self {
        let in_order: Vec<_> = texts.collect();
        let set = in_order.iter().cloned().collect();
        Self(Arc::new(Listed { in_order, set }))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        Self::of(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into))
    }
}

impl IntoIterator for Lines {
    type Item = ImmutableString;
    type IntoIter = LinesIter;

    fn into_iter(self) -> LinesIter {
        LinesIter { lines: self, next: 0 }
    }
}

pub(crate) struct LinesIter {
    lines: Lines,
    next: usize,
}

impl Iterator for LinesIter {
    type Item = ImmutableString;

    fn next(&mut self) -> Option<ImmutableString> {
        let line = self.lines.0.in_order.get(self.next).cloned();
        self.next += 1;
        line
    }
}

/// Lists by their keys, with the files that they were read from.
pub(crate) type Configured = (Vec<(String, Lines)>, Vec<SourceFile>);

/// Reads every list that a configuration names: the text at a key `file` or `…_file`, at any depth,
/// is a path. Arrays of texts at other keys are lists too, without a file. By their keys with dots
/// between them.
pub(crate) fn configured(config: &Config<String, Json>) -> Result<Configured, ScriptError> {
    let (mut lists, mut files) = (Vec::new(), Vec::new());
    walk("", config, &mut lists, &mut files)?;
    Ok((lists, files))
}

fn walk(
    prefix: &str,
    config: &Config<String, Json>,
    lists: &mut Vec<(String, Lines)>,
    files: &mut Vec<SourceFile>,
) -> Result<(), ScriptError> {
    for (key, value) in config {
        let full = format!("{prefix}{key}");
        match value {
            Json::Object(inner) => walk(&format!("{full}."), inner, lists, files)?,
            Json::String(path) if key == "file" || key.ends_with("_file") => {
                let path = Path::new(path);
                let (text, file) =
                    read_list(path).map_err(|error| ScriptError::unreadable(path, &error))?;
                lists.push((full, Lines::parse(&text)));
                files.push(file);
            }
            Json::Array(items) if items.iter().all(Json::is_string) => {
                lists
                    .push((full, Lines::of(items.iter().filter_map(Json::as_str).map(Into::into))));
            }
            _ => {}
        }
    }
    Ok(())
}

fn lines(context: &NativeCallContext<'_>, key: &str) -> Fallible<Lines> {
    with_call(context, |call| match call.held.lines.get(key) {
        Some(lines) => Ok(lines.clone()),
        None => Err(format!(
            "the configuration has no list {key:?}: neither a file (at a key that is \"file\" or \
             ends in \"_file\") nor an array of texts"
        )
        .into()),
    })
}

pub(super) fn bind(bindings: &mut Bindings) {
    bindings.named::<Lines>("lines");
    bindings.module().set_iterable::<Lines>();
    bindings.function("lines", |context: NativeCallContext, key: &str| lines(&context, key));
    bindings.function("contains", |lines: &mut Lines, text: ImmutableString| {
        lines.0.set.contains(&text)
    });
    // `() in lines`: something absent is in no list.
    bindings.function("contains", |_lines: &mut Lines, _nothing: ()| false);
    bindings.function("len", |lines: &mut Lines| count(lines));
    bindings.field("len", |lines: &mut Lines| count(lines));
    bindings.function("is_empty", |lines: &mut Lines| lines.0.in_order.is_empty());
    bindings.field("is_empty", |lines: &mut Lines| lines.0.in_order.is_empty());
    bindings.function("to_array", |lines: &mut Lines| -> rhai::Array {
        lines.0.in_order.iter().cloned().map(Dynamic::from).collect()
    });
}

fn count(lines: &Lines) -> i64 {
    i64::try_from(lines.0.in_order.len()).unwrap_or(i64::MAX)
}
