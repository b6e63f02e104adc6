//! The table, and the file that a later run compares with.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use super::{row::Row, trial::Bench};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    profile: String,
    machine: String,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(bench: &Bench) -> Self {
        let build = if cfg!(debug_assertions) { ", a debug build" } else { "" };
        Self {
            profile: format!("{}{build}", bench.profile.name()),
            machine: machine(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn write(&self, path: &Path) {
        let text = serde_json::to_string_pretty(self).unwrap();
        fs::write(path, text + "\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The table, as Markdown that reads well as it is.
    pub(crate) fn print(&self, before: Option<&Self>) {
        let mut head: Vec<String> =
            ["case", "what", "gateway", "reference", "result", "spread", "target", ""]
                .map(Into::into)
                .into();
        let against = self.rows.iter().any(|row| row.against.is_some());
        if against {
            head.push("over the other".into());
        }
        if before.is_some() {
            head.push("over before".into());
        }
        let lines = self.rows.iter().map(|row| {
            let mut cells = row.cells();
            if against {
                cells.push(row.against.map_or_else(String::new, |it| {
                    format!("{:.3} ({:.3} … {:.3})", it.median, it.min, it.max)
                }));
            }
            if let Some(before) = before {
                let earlier = before.rows.iter().find(|it| it.name == row.name);
                cells.push(earlier.map_or_else(String::new, |it| {
                    format!("{:.3}", row.result.median / it.result.median)
                }));
            }
            cells
        });
        let lines: Vec<_> = std::iter::once(head).chain(lines).collect();
        println!("\nprofile {}; {}\n", self.profile, self.machine);
        print(&lines);
        for row in &self.rows {
            if let Some(note) = &row.note {
                println!("\n{}: {note}", row.name);
            }
        }
    }
}

fn print(lines: &[Vec<String>]) {
    let columns = lines[0].len();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:width$} "));
        println!("|{}|", cells.collect::<Vec<_>>().join("|"));
        if number == 0 {
            let rule = widths.iter().map(|width| format!(" {} ", "-".repeat((*width).max(3))));
            println!("|{}|", rule.collect::<Vec<_>>().join("|"));
        }
    }
}

/// What it ran on.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    format!("{cores} cores of {model}")
}
