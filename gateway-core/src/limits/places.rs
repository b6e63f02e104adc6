//! Open connections, by network.
//!
//! A network is known while it has a connection open, so that there are never more of them than
//! connections. The hash is keyed, since addresses are chosen by whoever connects.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use ahash::RandomState;
use parking_lot::Mutex;

use super::network::Network;

/// Below this a table is not worth making smaller.
const SMALL: usize = 1024;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    open: Mutex<HashMap<Network, usize, RandomState>>,
}

/// A connection's place among those of its address.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    places: Arc<Places>,
    network: Network,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    /// A place, if the network has one left.
    pub(crate) fn take(self: &Arc<Self>, network: Network) -> Option<AddressPlace> {
        let mut open = self.open.lock();
        let count = open.entry(network).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(AddressPlace { places: Arc::clone(self), network })
    }

    pub(crate) fn networks(&self) -> usize {
        self.open.lock().len()
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = self.places.open.lock();
        if let Entry::Occupied(mut entry) = open.entry(self.network) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        if open.capacity() > SMALL && open.len() < open.capacity() / 4 {
            let twice = open.len() * 2;
            open.shrink_to(twice);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn network(n: u32) -> Network {
        Network::of(Ipv4Addr::from_bits(n).into())
    }

    #[test]
    fn each_network_has_its_places_and_leaves_nothing_behind() {
        let places = Arc::new(Places::new(2));
        let one = places.take(network(1));
        let two = places.take(network(1));
        assert!(one.is_some() && two.is_some() && places.take(network(1)).is_none());
        assert!(places.take(network(2)).is_some(), "another network has places of its own");
        drop(one);
        let again = places.take(network(1));
        assert!(again.is_some());
        drop((two, again));
        assert_eq!(places.networks(), 0);
    }

    #[test]
    fn a_crowd_that_has_left_keeps_no_memory() {
        let places = Arc::new(Places::new(1));
        let crowd: Vec<_> = (0..50_000).map(|n| places.take(network(n)).unwrap()).collect();
        assert_eq!(places.networks(), 50_000);
        drop(crowd);
        assert!(places.open.lock().capacity() <= SMALL * 2);
    }
}
