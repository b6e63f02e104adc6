//! Server-sent events, as they come in pieces.

use super::TraceError;

/// No event of the gateway's is nearly as long.
const MAX_LINE: usize = 1 << 20;

/// What has come in of a line, and the name of the event that it belongs to.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    line: Vec<u8>,
    name: String,
}

impl Pieces {
    /// Takes the next piece; `event` gets the name and the data of each event that is complete.
    pub(super) fn take(
        &mut self,
        piece: &[u8],
        mut event: impl FnMut(&str, &str) -> Result<(), TraceError>,
    ) -> Result<(), TraceError> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() > MAX_LINE {
                return Err(TraceError::Stream("a line without end"));
            }
            if self.line.last() != Some(&b'\n') {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = std::str::from_utf8(&line).map_err(|_| TraceError::Stream("not UTF-8"))?;
            let line = line.trim_end_matches(['\r', '\n']);
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut self.name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                event(&self.name, data)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_wherever_they_are_cut() {
        let text = ": events\n\nevent: message\ndata: {\"a\":\"ü\"}\n\n:\n\nevent: lagged\r\ndata: 7\r\n\r\n";
        for size in 1..text.len() {
            let (mut pieces, mut events) = (Pieces::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                let taken = pieces.take(piece, |name, data| {
                    events.push(format!("{name} {data}"));
                    Ok(())
                });
                taken.unwrap();
            }
            assert_eq!(events, ["message {\"a\":\"ü\"}", "lagged 7"]);
        }
    }

    #[test]
    fn a_line_without_end_is_no_event() {
        let mut pieces = Pieces::default();
        let piece = vec![b'x'; MAX_LINE];
        pieces.take(&piece, |_, _| Ok(())).unwrap();
        assert!(pieces.take(b"x", |_, _| Ok(())).is_err());
        assert!(Pieces::default().take(b"data: \xff\n", |_, _| Ok(())).is_err());
    }
}
