//! Where agents of other nodes are: what is remembered of them, else what the directory says.

use conexus_protocol::AgentKey;

use super::{Cluster, backplane::Away, places::Place};

/// Keys that the directory is asked for at once.
const BATCH: usize = 256;

impl Cluster {
    /// Where agents are, in the order of the keys; on nodes that count, and not on this one. What is
    /// remembered is taken for true, also while this node is apart.
    pub(crate) async fn find(&self, keys: &[AgentKey]) -> Result<Vec<Option<Place>>, Away> {
        let mut places: Vec<_> = keys.iter().map(|key| self.places.get(*key)).collect();
        let unknown: Vec<_> = (0..keys.len()).filter(|index| places[*index].is_none()).collect();
        self.tally.lookups.remembered.add((keys.len() - unknown.len()) as u64);
        for part in unknown.chunks(BATCH) {
            let asked: Vec<_> = part.iter().map(|index| keys[*index]).collect();
            for (index, place) in part.iter().zip(self.find_anew(&asked).await?) {
                places[*index] = place;
            }
        }
        Ok(places)
    }

    /// The same as the directory has it now, whatever is remembered.
    pub(crate) async fn find_anew(&self, keys: &[AgentKey]) -> Result<Vec<Option<Place>>, Away> {
        let found = async { self.joined()?.link.find(keys).await };
        let entries = found.await.inspect_err(|_| self.tally.lookups.failed.one())?;
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries {
            let place = match entry {
                Some(entry) if self.counts(entry.member).await => self.remember(entry),
                _ => None,
            };
            match place {
                Some(_) => self.tally.lookups.found.one(),
                None => self.tally.lookups.absent.one(),
            }
            places.push(place);
        }
        // Apart by now, it does not know who counts.
        self.joined()?;
        Ok(places)
    }
}
