//! Nodes whose clocks are wrong: whatever is compared across nodes is by Redis' clock.

use super::nodes::{Cluster, Setup};
use super::talking::says;
use conexus_protocol::Identity;

/// `libfaketime`, which tests/run installs, as a library to load before others.
fn clock(ahead: &str) -> Vec<(String, String)> {
    let library = std::env::var("CONEXUS_TEST_FAKETIME").expect("tests/run says where it is");
    [("LD_PRELOAD", &*library), ("FAKETIME", ahead), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_hours_apart_change_nothing() {
    let environment = |node| match node {
        0 => clock("+2h"),
        1 => clock("-3h"),
        _ => Vec::new(),
    };
    let mut cluster = Cluster::with(3, Setup { environment, ..Setup::default() }).await;
    let mut others = Vec::new();
    for node in &cluster.nodes {
        others.push(node.agent().await);
    }
    let me = Identity::generate();
    let mut agent = cluster.nodes[2].agent_of(&me).await;
    for turn in [0, 1, 2, 1, 0, 2] {
        let newer = cluster.nodes[turn].agent_of(&me).await;
        let mut older = std::mem::replace(&mut agent, newer);
        assert_eq!(older.close().await.0, 4003);
        for other in &mut others {
            says(other, &mut agent).await;
            says(&mut agent, other).await;
        }
    }
    cluster.lists(others.iter().chain([&agent])).await;
    // Leases are no different: those that live are kept, those that do not are not.
    cluster.nodes[1].kill().await;
    others.remove(1);
    let took = cluster.lists(others.iter().chain([&agent])).await;
    println!("the agents of a killed node were gone after {took:?}");
    for other in &mut others {
        says(other, &mut agent).await;
    }
}
