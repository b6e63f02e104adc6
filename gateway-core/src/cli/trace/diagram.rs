//! A recorded exchange as a sequence diagram, in text.
//!
//! Each agent is a column, each event a row from top to bottom; times stand on the left, what came
//! of a message on the right. As many of the busiest agents have columns as the width allows; the
//! others share the last one.

use std::{collections::HashMap, fmt::Write as _};

use conexus_protocol::AgentKey;

use super::event::{Event, Message, clock, duration, short};
use crate::cli::terminal::harmless;

/// Where the times stand.
const LEFT: usize = 14;
/// Where stands what came of a message.
const RIGHT: usize = 26;
/// From column to column: an arrow with the longest of the types on it.
const STEP: usize = 20;
/// The longest type that is drawn on an arrow.
const LABEL: usize = STEP - 6;
/// Longer silences are shown as one.
const SILENCE_MS: i64 = 1000;
/// The longest DID in the legend.
const MAX_DID: usize = 100;
/// The longest note on the right.
const MAX_NOTE: usize = 60;

/// Draws events, no wider than `width` where that leaves room for two agents.
pub(super) fn draw(events: &[Event], width: usize) -> String {
    let cast = Cast::new(events, width);
    let mut diagram = Diagram { cast, text: String::new(), last_ms: None };
    diagram.legend();
    diagram.heads();
    for event in events {
        diagram.event(event);
    }
    diagram.lifelines("");
    diagram.text
}

/// An agent by its key, however it is spelled; what is no DID by its spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    Key(AgentKey),
    Text(String),
}

impl Name {
    fn of(did: &str) -> Self {
        AgentKey::parse_did(did).map_or_else(|_| Self::Text(did.to_owned()), Self::Key)
    }
}

/// Who has which column.
struct Cast {
    columns: HashMap<Name, usize>,
    /// The agents with a column of their own, as they were spelled first.
    shown: Vec<String>,
    /// How many share the last column.
    others: usize,
}

impl Cast {
    fn new(events: &[Event], width: usize) -> Self {
        let mut seen: Vec<(Name, String, usize)> = Vec::new();
        let mut places = HashMap::new();
        for did in events.iter().flat_map(dids) {
            let name = Name::of(did);
            let place = *places.entry(name.clone()).or_insert_with(|| {
                seen.push((name, did.to_owned(), 0));
                seen.len() - 1
            });
            seen[place].2 += 1;
        }
        let most = (width.saturating_sub(LEFT + RIGHT) / STEP + 1).max(2);
        let crowded = seen.len() > most;
        let mut by_events: Vec<_> = (0..seen.len()).collect();
        by_events.sort_by_key(|place| std::cmp::Reverse(seen[*place].2));
        by_events.truncate(if crowded { most - 1 } else { most });
        // In the order in which they came up.
        by_events.sort_unstable();
        let shown: Vec<_> = by_events.iter().map(|place| seen[*place].1.clone()).collect();
        let own: HashMap<_, _> =
            by_events.iter().enumerate().map(|(column, place)| (*place, column)).collect();
        let others = seen.len() - shown.len();
        let column = |place| own.get(&place).copied().unwrap_or(shown.len());
        let columns =
            seen.iter().enumerate().map(|(place, (name, ..))| (name.clone(), column(place)));
        Self { columns: columns.collect(), others, shown }
    }

    fn column(&self, did: &str) -> usize {
        self.columns.get(&Name::of(did)).copied().unwrap_or(0)
    }

    fn count(&self) -> usize {
        self.shown.len() + usize::from(self.others > 0)
    }

    /// What an agent is called in the diagram: A, B, … Z, A1, …
    fn alias(&self, column: usize) -> String {
        if column >= self.shown.len() {
            return "others".to_owned();
        }
        let letter = char::from(b'A' + u8::try_from(column % 26).unwrap_or(0));
        match column / 26 {
            0 => letter.to_string(),
            round => format!("{letter}{round}"),
        }
    }
}

fn dids(event: &Event) -> Vec<&str> {
    match event {
        Event::Message(message) => vec![&message.from, &message.to],
        Event::Session(session) => vec![&session.did],
        Event::Lagged(_) => Vec::new(),
    }
}

struct Diagram {
    cast: Cast,
    text: String,
    last_ms: Option<i64>,
}

impl Diagram {
    fn legend(&mut self) {
        for (column, did) in self.cast.shown.iter().enumerate() {
            let did: String = harmless(did).chars().take(MAX_DID).collect();
            let _ = writeln!(self.text, "{} = {did}", self.cast.alias(column));
        }
        if self.cast.others > 0 {
            let _ = writeln!(self.text, "others = {} more agents", self.cast.others);
        }
        self.text.push('\n');
    }

    fn heads(&mut self) {
        let mut line = Line::default();
        for column in 0..self.cast.count() {
            let mut head = self.cast.alias(column);
            if let Some(did) = self.cast.shown.get(column) {
                head = format!("{head} {}", short(did));
            }
            // An alias stands above its line.
            line.put(at(column), &head);
        }
        self.row("", line, "");
        self.lifelines("");
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Message(message) => {
                let time = self.time(message.at_ms);
                self.message(&time, message);
            }
            Event::Session(session) => {
                let time = self.time(session.at_ms);
                let column = self.cast.column(&session.did);
                let mut line = self.lines();
                let mark = if matches!(&*session.kind, "left" | "refused") { "x" } else { "o" };
                line.put(at(column), mark);
                let note = format!("{} {}", self.cast.alias(column), session.words());
                self.row(&time, line, &note);
            }
            Event::Lagged(lagged) => {
                let note = format!("up to {} events are missing", lagged.missed);
                let line = self.lines();
                self.row("?", line, &note);
            }
        }
    }

    fn message(&mut self, time: &str, message: &Message) {
        let (from, to) = (self.cast.column(&message.from), self.cast.column(&message.to));
        let kind: String = harmless(&message.kind).chars().take(LABEL).collect();
        let mut line = self.lines();
        if from == to {
            line.put(at(from), &format!("|-- {kind} --+"));
        } else {
            line.put(at(from.min(to)) + 1, &arrow(&kind, &message.outcome, from, to));
        }
        let mut note = message.outcome();
        if from == to && from < self.cast.shown.len() {
            note = format!("to itself, {note}");
        }
        self.row(time, line, &note);
    }

    /// The first time in full, then how much later; a long silence has a row of its own.
    fn time(&mut self, at_ms: i64) -> String {
        let Some(last) = self.last_ms.replace(at_ms) else { return clock(at_ms) };
        let later = at_ms.saturating_sub(last);
        if later >= SILENCE_MS {
            let mut line = Line::default();
            for column in 0..self.cast.count() {
                line.put(at(column), ":");
            }
            self.row("", line, "");
        }
        let micros = u64::try_from(later).unwrap_or(0).saturating_mul(1000);
        if later <= 0 { "+0".to_owned() } else { format!("+{}", duration(micros)) }
    }

    fn lines(&self) -> Line {
        let mut line = Line::default();
        for column in 0..self.cast.count() {
            line.put(at(column), "|");
        }
        line
    }

    fn lifelines(&mut self, note: &str) {
        let line = self.lines();
        self.row("", line, note);
    }

    fn row(&mut self, time: &str, line: Line, note: &str) {
        let mut row = format!("{time:>width$}", width = LEFT - 2);
        row.push_str("  ");
        row.extend(line.0);
        if !note.is_empty() {
            let end = LEFT + at(self.cast.count() - 1) + 4;
            let length = row.chars().count();
            row.extend(std::iter::repeat_n(' ', end.saturating_sub(length).max(1)));
            row.extend(note.chars().take(MAX_NOTE));
        }
        let _ = writeln!(self.text, "{}", row.trim_end());
    }
}

const fn at(column: usize) -> usize {
    column * STEP
}

/// What lies between two lifelines: whole, dotted for what is held, broken off before the other end
/// for what was refused.
fn arrow(kind: &str, outcome: &str, from: usize, to: usize) -> String {
    let length = from.abs_diff(to) * STEP - 1;
    let (dash, tip, gap) = match outcome {
        "refused" => ('-', 'x', 4),
        "held" => ('.', '>', 0),
        _ => ('-', '>', 0),
    };
    let rightwards = from < to;
    let tip = if rightwards || tip == 'x' { tip } else { '<' };
    let label = format!(" {kind} ");
    let label_length = label.chars().count();
    // A long name leaves less of a gap, and never reaches the other end's line.
    let gap = gap.min(length.saturating_sub(label_length + 1));
    let dashes = (length - gap - 1).saturating_sub(label_length);
    let run = |count: usize| std::iter::repeat_n(dash, count).collect::<String>();
    let shaft = format!("{}{label}{}", run(dashes / 2), run(dashes - dashes / 2));
    let gap = " ".repeat(gap);
    if rightwards { format!("{shaft}{tip}{gap}") } else { format!("{gap}{tip}{shaft}") }
}

/// A line that is written to here and there.
#[derive(Debug, Default)]
struct Line(Vec<char>);

impl Line {
    fn put(&mut self, at: usize, text: &str) {
        for (offset, char) in text.chars().enumerate() {
            let place = at + offset;
            if self.0.len() <= place {
                self.0.resize(place + 1, ' ');
            }
            self.0[place] = char;
        }
    }
}

#[cfg(test)]
mod tests {
    use conexus_protocol::Identity;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_arrow_fills_what_lies_between_two_lines_and_no_more() {
        for kind in ["PING", "ICE_CANDIDATE", "EXEC_RESPONSE"] {
            for outcome in ["delivered", "held", "refused"] {
                for (from, to) in [(0, 1), (1, 0), (0, 3)] {
                    let arrow = arrow(kind, outcome, from, to);
                    let length = from.abs_diff(to) * STEP - 1;
                    assert_eq!(arrow.chars().count(), length, "{kind} {outcome}: {arrow}");
                    assert!(arrow.contains(kind), "{arrow}");
                }
            }
        }
    }

    fn did(seed: u8) -> String {
        Identity::from_seed(&[seed; 32]).did().to_owned()
    }

    fn event(json: Value) -> Event {
        serde_json::from_value(json).unwrap()
    }

    fn message(at_ms: i64, from: &str, to: &str, kind: &str, fate: (&str, Option<&str>)) -> Event {
        let (outcome, reason) = fate;
        let latency_us = (outcome == "delivered").then_some(212);
        event(json!({
            "topic": "message", "at_ms": at_ms.saturating_add(1_760_000_000_000), "trace": "0", "type": kind,
            "from": from, "to": to, "outcome": outcome, "reason": reason, "latency_us": latency_us,
        }))
    }

    fn session(at_ms: i64, did: &str, kind: &str, reason: Option<&str>) -> Event {
        event(json!({
            "topic": "session", "at_ms": at_ms.saturating_add(1_760_000_000_000), "did": did, "kind": kind,
            "reason": reason,
        }))
    }

    const DELIVERED: (&str, Option<&str>) = ("delivered", None);

    #[test]
    fn an_exchange_is_drawn_as_it_happened() {
        let (a, b, c) = (did(1), did(2), did(3));
        let events = [
            session(0, &a, "registered", None),
            message(7, &a, &b, "OFFER", DELIVERED),
            message(19, &b, &a, "ANSWER", DELIVERED),
            message(20, &b, &a, "ICE_CANDIDATE", DELIVERED),
            message(2520, &a, &c, "EXEC_REQUEST", ("refused", Some("queue_full"))),
            message(2520, &c, &a, "INTENT", ("refused", Some("denied"))),
            message(2600, &a, &c, "OFFER", ("held", None)),
            message(2601, &a, &a, "OFFER", DELIVERED),
            event(json!({ "topic": "lagged", "missed": 3 })),
            session(9000, &a, "left", Some("closed")),
        ];
        let expected = format!(
            "\
A = {a}
B = {b}
C = {c}

              A {}         B {}         C {}
              |                   |                   |
08:53:20.000  o                   |                   |   A registered
     +7.0 ms  |----- OFFER ------>|                   |   delivered in 212 µs
    +12.0 ms  |<----- ANSWER -----|                   |   delivered in 212 µs
     +1.0 ms  |<- ICE_CANDIDATE --|                   |   delivered in 212 µs
              :                   :                   :
      +2.5 s  |---------- EXEC_REQUEST ----------x    |   refused: queue_full
          +0  |    x------------- INTENT -------------|   refused: denied
    +80.0 ms  |............... OFFER ................>|   held
     +1.0 ms  |-- OFFER --+       |                   |   to itself, delivered in 212 µs
           ?  |                   |                   |   up to 3 events are missing
              :                   :                   :
      +6.3 s  x                   |                   |   A left (closed)
              |                   |                   |
",
            short(&a),
            short(&b),
            short(&c)
        );
        let drawn = draw(&events, 100);
        assert_eq!(drawn, expected, "\n{drawn}");
    }

    #[test]
    fn more_agents_than_there_is_room_for_share_a_column() {
        let events: Vec<_> = (2..9)
            .flat_map(|seed| {
                let busy = message(1, &did(1), &did(2), "OFFER", DELIVERED);
                [busy, message(1, &did(1), &did(seed), "OFFER", DELIVERED)]
            })
            .collect();
        let drawn = draw(&events, 80);
        assert!(drawn.contains("others = 6 more agents"), "{drawn}");
        assert!(drawn.lines().skip(4).all(|line| line.chars().count() <= 80), "{drawn}");
        assert_eq!(draw(&events, 0), draw(&events, 60), "two agents are the least");
    }

    #[test]
    fn names_that_are_no_names_do_no_harm() {
        let hostile = "\u{1b}[31m\n\u{202e}".repeat(1000);
        let kind = "\u{1b}]0;title\u{7}".repeat(1000);
        let drawn = draw(
            &[
                message(i64::MAX, &hostile, &did(1), &kind, ("refused", Some(&hostile))),
                message(i64::MIN, &did(1), &hostile, "OFFER", (&kind, None)),
            ],
            100,
        );
        assert!(!drawn.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'));
        assert_eq!(drawn.lines().count(), 8, "{drawn}");
        assert!(drawn.lines().all(|line| line.chars().count() <= 120), "{drawn}");
    }
}
