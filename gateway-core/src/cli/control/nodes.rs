//! `conexus nodes`: who is in the cluster, as the node that is asked knows it.

use serde_json::Value;

use super::{text_of, when};
use crate::cli::terminal::{harmless, table};

/// The answer of `GET /api/v1/nodes`, for people.
pub(super) fn nodes(answer: &Value) -> String {
    station(&answer["cluster"]) + table(&rows(answer)).as_str()
}

/// What the node that answers is to its cluster.
fn station(cluster: &Value) -> String {
    if cluster.is_null() {
        return "this gateway is alone: cluster.redis.url is not set\n\n".to_owned();
    }
    let since = when(&cluster["since_ms"]);
    let told = match cluster["joined"].as_bool() {
        Some(true) => {
            let member = text_of(&cluster["member"]);
            format!("joined since {since} as member {member}{}\n", engine(&cluster["engine_us"]))
        }
        _ => format!("APART since {since}: {}\n", text_of(&cluster["why"])),
    };
    told + "\n"
}

fn engine(micros: &Value) -> String {
    match (micros["median"].as_u64(), micros["slowest"].as_u64()) {
        (Some(median), Some(slowest)) => {
            format!(", engine answers within {} (slowest {})", millis(median), millis(slowest))
        }
        _ => String::new(),
    }
}

fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

fn rows(answer: &Value) -> Vec<Vec<String>> {
    let header = [
        "NODE",
        "PHASE",
        "AGENTS",
        "LEASE",
        "UNDER WAY",
        "VERSION",
        "STARTED",
        "MEMBER",
        "REACHABLE",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for node in answer["nodes"].as_array().into_iter().flatten() {
        let this = node["this"].as_bool() == Some(true);
        let lease = node["lease_left_ms"].as_u64();
        rows.push(vec![
            format!("{}{}", text_of(&node["id"]), if this { " (this)" } else { "" }),
            text_of(&node["phase"]),
            node["agents"].to_string(),
            lease.map_or_else(
                || "-".to_owned(),
                |left| format!("{}.{} s", left / 1000, left % 1000 / 100),
            ),
            if this { "-".to_owned() } else { node["under_way"]["messages"].to_string() },
            text_of(&node["version"]),
            when(&node["started_ms"]),
            node["member"].as_str().map_or_else(|| "-".to_owned(), harmless),
            match node["why_not"].as_str() {
                Some(why) => format!("no: {}", harmless(why)),
                None => "yes".to_owned(),
            },
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(id: &str, this: bool) -> Value {
        json!({
            "id": id, "did": "did:key:z6Mk", "version": "0.1.0", "this": this, "phase": "running",
            "agents": 12, "started_ms": 1_700_000_000_000_i64, "member": null, "lease_left_ms": null,
            "reachable": true, "why_not": null, "under_way": { "messages": 0, "bytes": 0 },
        })
    }

    #[test]
    fn a_lone_gateway_is_one_row_and_says_so() {
        let answer = json!({ "nodes": [node("a", true)], "cluster": null });
        assert_eq!(
            nodes(&answer),
            "this gateway is alone: cluster.redis.url is not set\n\n\
             NODE      PHASE    AGENTS  LEASE  UNDER WAY  VERSION  STARTED                      MEMBER  REACHABLE\n\
             a (this)  running  12      -      -          0.1.0    2023-11-14T22:13:20.000000Z  -       yes\n"
        );
    }

    #[test]
    fn a_cluster_is_shown_with_leases_and_with_whom_cannot_be_reached() {
        let mut here = node("a", true);
        here["member"] = json!("00000000000000aa");
        here["lease_left_ms"] = json!(4321);
        let mut lost = node("b\u{1b}[2J", false);
        lost["lease_left_ms"] = json!(0);
        lost["why_not"] = json!("its lease is over");
        lost["under_way"]["messages"] = json!(7);
        let cluster = json!({
            "joined": true, "since_ms": 1_700_000_000_000_i64, "why": null,
            "member": "00000000000000aa", "engine_us": { "median": 210, "slowest": 12_345 },
        });
        let told = nodes(&json!({ "nodes": [here, lost], "cluster": cluster }));
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(
            lines[0],
            "joined since 2023-11-14T22:13:20.000000Z as member 00000000000000aa, engine answers within \
             0.21 ms (slowest 12.34 ms)"
        );
        assert!(lines[3].contains("4.3 s") && lines[3].ends_with("yes"), "{told}");
        assert!(lines[4].contains("0.0 s") && lines[4].contains(" 7 "), "{told}");
        assert!(lines[4].ends_with("no: its lease is over"), "{told}");
        assert!(!told.contains('\u{1b}'));
    }

    #[test]
    fn one_that_is_apart_says_why_first() {
        let cluster = json!({
            "joined": false, "since_ms": 1_700_000_000_000_i64, "why": "connection refused",
        });
        let told = nodes(&json!({ "nodes": [node("a", true)], "cluster": cluster }));
        assert!(
            told.starts_with("APART since 2023-11-14T22:13:20.000000Z: connection refused\n"),
            "{told}"
        );
    }
}
