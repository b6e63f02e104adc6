//! Text for a terminal.

/// A text that a peer chose, without what a terminal would obey: control characters, and the
/// marks that turn the direction of writing round.
pub(super) fn harmless(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// Rows in columns, each as wide as its widest cell. No row may have more cells than the first.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_of_peers_do_not_reach_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\n\u{202e}ü"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}ü");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [["DID", "NAME"], ["did:key:z6Mk", "ü"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "DID           NAME\ndid:key:z6Mk  ü\n");
    }
}
