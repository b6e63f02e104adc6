//! Text: patterns, encodings, hashes, JSON. Everything here takes time linear in its input.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use regex::{Regex, RegexBuilder};
use rhai::{Array, Blob, Dynamic, ImmutableString, NativeCallContext};
use sha2::{Digest, Sha256};

use crate::script::sources::hex;

use super::{
    Bindings, Fallible,
    values::{parse_json, to_json},
    with_call,
};

/// Compiled expressions of one instance. Patterns beyond these are compiled at every use.
const MAX_PATTERNS: usize = 256;
/// The longest pattern.
const MAX_PATTERN_BYTES: usize = 1024;
/// The largest compiled expression, which also bounds the work for each character of a text.
const MAX_COMPILED_BYTES: usize = 64 << 10;

/// Regular expressions by their text. Read without a lock, copied when one is added.
#[derive(Debug, Default)]
pub(crate) struct Patterns(ArcSwap<HashMap<ImmutableString, Regex>>);

impl Patterns {
    fn get(&self, pattern: &ImmutableString) -> Fallible<Regex> {
        if let Some(compiled) = self.0.load().get(pattern) {
            return Ok(compiled.clone());
        }
        let compiled = compile_pattern(pattern)?;
        self.0.rcu(|patterns| {
            if patterns.len() >= MAX_PATTERNS {
                return patterns.clone();
            }
            let mut more = HashMap::clone(patterns);
            more.insert(pattern.clone(), compiled.clone());
            Arc::new(more)
        });
        Ok(compiled)
    }
}

pub(crate) fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(format!("a pattern has at most {MAX_PATTERN_BYTES} bytes"));
    }
    let built = RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build();
    // The crate draws the pattern over several lines.
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("{pattern:?} is no regular expression: {last}")
    })
}

/// `*` stands for any characters, `?` for one.
fn glob(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) =
        (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut with) = (0, 0);
    // Where the last star stood, and from where it would take one character more.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(with) {
            Some('*') => {
                star = Some((with, at));
                with += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[at] => {
                at += 1;
                with += 1;
            }
            _ => match star {
                Some((stood, from)) => {
                    star = Some((stood, from + 1));
                    at = from + 1;
                    with = stood + 1;
                }
                None => return false,
            },
        }
    }
    pattern[with..].iter().all(|rest| *rest == '*')
}

fn each_text(array: &Array) -> impl Iterator<Item = Fallible<ImmutableString>> {
    array.iter().map(|item| {
        item.clone()
            .into_immutable_string()
            .map_err(|kind| format!("{kind} in place of a text").into())
    })
}

pub(super) fn bind(bindings: &mut Bindings) {
    bindings.function("glob", |text: &str, pattern: &str| glob(text, pattern));
    bindings.function("glob", |text: &str, patterns: Array| -> Fallible<bool> {
        for pattern in each_text(&patterns) {
            if glob(text, &pattern?) {
                return Ok(true);
            }
        }
        Ok(false)
    });
    bindings.function(
        "regex",
        |context: NativeCallContext, text: &str, pattern: ImmutableString| {
            with_call(&context, |call| Ok(call.held.patterns.get(&pattern)?.is_match(text)))
        },
    );
    bindings.function("base64_encode", |text: &str| STANDARD.encode(text));
    bindings.function("base64_encode", |bytes: Blob| STANDARD.encode(bytes));
    bindings.function("base64_decode", |text: &str| {
        let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        decoded.map_or(Dynamic::UNIT, Dynamic::from)
    });
    bindings.function("sha256", |text: &str| hex(&Sha256::digest(text)));
    bindings.function("sha256", |bytes: Blob| hex(&Sha256::digest(bytes)));
    bindings.function("json_parse", |text: &str| parse_json(text));
    bindings.function("json_text", |value: Dynamic| to_json(&value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_a_question_mark_for_one() {
        for (text, pattern, fits) in [
            ("agent-7", "agent-*", true),
            ("agent-7", "agent-?", true),
            ("agent-77", "agent-?", false),
            ("", "*", true),
            ("", "?", false),
            ("abcbc", "a*bc", true),
            ("abcb", "a*bc", false),
            ("größe", "gr??e", true),
            ("a*b", "a*b", true),
            ("ab", "ab**", true),
            ("ab", "", false),
        ] {
            assert_eq!(glob(text, pattern), fits, "{text:?} {pattern:?}");
        }
    }

    #[test]
    fn patterns_that_are_wrong_or_too_large_are_refused_in_one_line() {
        for pattern in ["(", "a{1000}{1000}", &"x".repeat(2000)] {
            let text = compile_pattern(pattern).unwrap_err();
            assert!(!text.contains('\n'), "{text}");
        }
    }
}
