//! `GET /agents` as a search: by capability, name and label, and a cursor that holds while agents
//! come and go.

use std::collections::BTreeSet;

use conexus_gateway::hooks::Admission;
use conexus_protocol::{Identity, Metadata, Subprotocol};

use crate::support::{
    agent::Agent,
    gateway::TestGateway,
    policy::{Changing, Closures},
};

async fn publishing(gateway: &TestGateway, name: &str, capabilities: &[&str]) -> Agent {
    let mut agent = Agent::connect(gateway, Subprotocol::V1_1).await;
    let capabilities = capabilities.iter().map(|&capability| capability.to_owned()).collect();
    let metadata = Metadata { name: Some(name.into()), capabilities, ..Metadata::default() };
    let register = agent.with_metadata(metadata);
    agent.register_with(register).await;
    agent
}

/// The DIDs that a question finds on its first page.
async fn found(gateway: &TestGateway, question: &str) -> BTreeSet<String> {
    let (status, page) = gateway.get(&format!("/agents?{question}")).await;
    assert_eq!(status, 200, "{question}: {page}");
    let agents = page["agents"].as_array().unwrap();
    assert_eq!(page["count"].as_u64(), Some(agents.len() as u64), "{question}");
    agents.iter().map(|agent| agent["did"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn agents_are_found_by_all_that_is_asked_for_at_once() {
    // Labels are policy's: here the team that an agent's name ends in.
    let policy = Changing::new(Closures {
        register: Some(Box::new(|event| {
            let name = event.agent.metadata.name.clone().unwrap_or_default();
            let team = name.rsplit(' ').next().unwrap_or_default().to_owned();
            let labels = [("team".to_owned(), team), ("secret".to_owned(), "x".to_owned())];
            Ok(Admission { labels: labels.into(), ..Admission::default() })
        })),
        ..Closures::default()
    });
    let gateway = TestGateway::start_with_policy(policy, |s| {
        s.http.agents_labels = vec!["team".into()];
    })
    .await;
    let one = publishing(&gateway, "one red", &["chat", "sum up"]).await;
    let two = publishing(&gateway, "two red", &["chat"]).await;
    let three = publishing(&gateway, "three b:lue", &["chat"]).await;
    let dids = |agents: &[&Agent]| agents.iter().map(|agent| agent.did()).collect();
    for (question, expected) in [
        ("capability=chat", dids(&[&one, &two, &three])),
        ("capability=sum%20up", dids(&[&one])),
        ("capability=Chat", dids(&[])),
        ("name=two+red", dids(&[&two])),
        ("label=team:red", dids(&[&one, &two])),
        ("label=team:b:lue", dids(&[&three])),
        ("label=team:", dids(&[])),
        ("label=team:red&capability=sum%20up", dids(&[&one])),
        ("label=team:red&name=three+b:lue", dids(&[])),
    ] {
        assert_eq!(found(&gateway, question).await, expected, "{question}");
    }
    // A label that may not be searched by is refused like one that does not exist.
    let mut refusals = BTreeSet::new();
    for question in ["label=secret:x", "label=nothing:x", "label=:red", "label=Team:red"] {
        let (status, body) = gateway.get(&format!("/agents?{question}")).await;
        assert_eq!(status, 400, "{question}");
        refusals.insert(body["error"].as_str().unwrap().to_owned());
    }
    assert_eq!(refusals.len(), 1);
    assert!(refusals.first().unwrap().starts_with("label: "), "{refusals:?}");
    for bad in ["label=team", "label=", "label=team:red&label=team:blue", "labels=team:red"] {
        let (status, body) = gateway.get(&format!("/agents?{bad}")).await;
        assert_eq!(status, 400, "{bad}");
        assert!(body["error"].as_str().unwrap().contains("label"), "{bad}: {body}");
    }
    let (_, page) = gateway.get("/agents?label=team:red").await;
    assert!(!page.to_string().contains("secret"), "labels are not shown");
}

#[tokio::test]
async fn unless_the_operator_says_so_nobody_searches_by_label() {
    let gateway = TestGateway::start().await;
    let (status, body) = gateway.get("/agents?label=team:red").await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("http.agents_labels"), "{body}");
}

#[tokio::test]
async fn whoever_stays_is_listed_exactly_once_however_others_come_and_go_between_pages() {
    let gateway = TestGateway::start().await;
    let mut stay = Vec::new();
    let mut moving = Vec::new();
    for _ in 0..20 {
        stay.push(Agent::v1(&gateway).await);
        moving.push(Agent::v1(&gateway).await);
    }
    let mut seen = Vec::new();
    let mut path = "/agents?limit=3".to_owned();
    loop {
        let (status, page) = gateway.get(&path).await;
        assert_eq!(status, 200);
        let dids = page["agents"].as_array().unwrap();
        seen.extend(dids.iter().map(|agent| agent["did"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/agents?limit=3&cursor={cursor}");
        // Among those that go is, sooner or later, the very one that the cursor names.
        let last = seen.last().unwrap();
        let index = moving.iter().position(|agent| agent.did() == *last).unwrap_or(0);
        drop(moving.remove(index));
        moving.push(Agent::registered_as(&gateway, Subprotocol::V1, Identity::generate()).await);
        gateway.has_agents(40).await;
    }
    for agent in &stay {
        assert_eq!(seen.iter().filter(|did| **did == agent.did()).count(), 1);
    }
    let distinct: BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "nobody is listed twice");
}

#[tokio::test]
async fn the_sdk_finds_agents_page_by_page_and_hears_why_not() {
    use conexus_client::{AgentQuery, Client, FindError};
    use futures_util::{StreamExt as _, pin_mut};

    let gateway = TestGateway::start_with(|s| {
        s.http.agents = conexus_gateway::config::AgentsAccess::Token;
        s.http.agents_token = Some(conexus_gateway::config::Secret::new("s3cret"));
    })
    .await;
    let mut agents = Vec::new();
    for _ in 0..5 {
        agents.push(publishing(&gateway, "one", &["chat"]).await);
    }
    let _other = Agent::v1(&gateway).await;
    let client = Client::builder(gateway.url(), Identity::generate()).build().unwrap();
    let query = AgentQuery {
        capability: Some("chat".into()),
        limit: Some(2),
        token: Some("s3cret".into()),
        ..AgentQuery::default()
    };
    let page = client.find(&query).await.unwrap();
    assert_eq!((page.agents.len(), page.count), (2, 5));
    assert_eq!(page.agents[0].metadata.capabilities, ["chat"]);
    let found = client.find_all(query.clone());
    pin_mut!(found);
    let mut dids = BTreeSet::new();
    while let Some(agent) = crate::support::soon("an agent", found.next()).await {
        assert!(dids.insert(agent.unwrap().did));
    }
    assert_eq!(dids, agents.iter().map(Agent::did).collect());
    let wrong = AgentQuery { label: Some(("team".into(), "red".into())), ..query.clone() };
    let FindError::Refused { status, said } = client.find(&wrong).await.unwrap_err() else {
        panic!("not refused")
    };
    assert_eq!(status, 400);
    assert!(said.contains("http.agents_labels"), "{said}");
    let unknown = AgentQuery { token: None, ..query };
    let refused = client.find(&unknown).await.unwrap_err();
    assert!(matches!(refused, FindError::Refused { status: 401, .. }), "{refused:?}");
}
