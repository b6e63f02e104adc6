//! `conexus check`, and a start with a policy that does not pass it.

use super::{failed, printed, says};
use crate::support::process::folder_with;

const CONFIG: &str = r#"
[hook.members]
use    = "script:members"
config = { file = "agents.txt" }

[hook.idle]
use = "script:members"
config = { file = "agents.txt" }

[[chain.on_register]]
hook = "members"

[[chain.on_route]]
hook = "members"
mode = "shadow"
"#;

const SCRIPT: &str = r#"
fn on_start() { throw "started"; }
fn on_register(event) { if event.agent.did in lines("file") { allow() } }
fn on_route(event) { }
"#;

#[tokio::test]
async fn check_builds_what_a_start_would_and_starts_nothing() {
    let folder = folder_with(&[
        ("gateway.toml", CONFIG),
        ("scripts/members.rhai", SCRIPT),
        ("agents.txt", ""),
    ]);
    let shown = printed(folder.path(), &["check"]).await;
    says(
        &shown,
        &[
            "settings are valid: 1 file, ",
            "policy: 2 hooks, 2 chains, ",
            "hook.members: script:members, asked at on_register, on_route (shadow)\n",
            "hook.idle: script:members, in no chain\n",
            "\nconfiguration and policy are valid\n",
        ],
    );
    let left: Vec<_> = folder.path().read_dir().unwrap().collect();
    assert_eq!(left.len(), 3, "nothing was made: {left:?}");
}

/// What is wrong, the files of it, and what has to be said.
type Faulty = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const FAULTY: [Faulty; 7] = [
    (
        "scripts and chains",
        &[
            (
                "gateway.toml",
                "[hook.a]\nuse = \"script:a\"\n[hook.b]\nuse = \"script:b\"\n[hook.c]\nuse = \"script:c\"\n\
                 [[chain.on_connect]]\nhook = \"c\"\n",
            ),
            ("scripts/a.rhai", "fn on_route(event) {\n    event.from ++ 1\n}\n"),
            ("scripts/c.rhai", "fn on_route(event) { }\n"),
        ],
        &[
            "hook.a: a.rhai:2:",
            "hook.b: ",
            "b.rhai",
            "chain.on_connect: c (script:c) has no on_connect; it has on_route",
        ],
    ),
    (
        "a module",
        &[
            ("gateway.toml", "[hook.a]\nuse = \"script:a\"\n"),
            ("scripts/a.rhai", "import \"lib/x\" as x;\nfn on_route(event) { }\n"),
            ("scripts/lib/x.rhai", "\n\nlet y = 1;\n"),
        ],
        &["lib/x.rhai:3:"],
    ),
    (
        "a list",
        &[
            ("gateway.toml", "[hook.a]\nuse = \"script:a\"\nconfig = { file = \"gone.txt\" }\n"),
            ("scripts/a.rhai", "fn on_route(event) { }\n"),
        ],
        &["hook.a: ", "gone.txt"],
    ),
    (
        "a plugin",
        &[
            ("gateway.toml", "[plugins.p]\npath = \"p.so\"\n[hook.a]\nuse = \"plugin:p\"\n"),
            ("p.so", "no library"),
        ],
        &["hook.a: ", "p.so"],
    ),
    (
        "a plugin's configuration",
        &[("gateway.toml", "[hook.a]\nuse = \"plugin:quota\"\nconfig = { defalt = {} }\n")],
        &["hook.a: ", "defalt"],
    ),
    (
        "the configuration itself",
        &[("gateway.toml", "[hook.a]\nuse = \"script:a\"\nbloking = true\n")],
        &["gateway.toml:3:1", "blocking"],
    ),
    (
        "a scope without a cluster",
        &[
            ("gateway.toml", "[hook.a]\nuse = \"script:a\"\nscope = \"cluster\"\n"),
            ("scripts/a.rhai", "fn on_route(event) { }\n"),
        ],
        &["gateway.toml:3:9: hook.a.scope: ", "cluster.redis.url"],
    ),
];

#[tokio::test]
async fn check_and_a_start_name_every_fault_with_its_place() {
    for (what, files, parts) in FAULTY {
        let folder = folder_with(files);
        let checked = failed(folder.path(), &["check"]).await;
        says(&checked.out, parts);
        let ports = ["--set", "server.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0"];
        let started = failed(folder.path(), &ports).await;
        says(&started.err, parts);
        says(&started.err, &["error: the "]);
        assert_eq!(started.out, "", "{what}");
        // Each of them once.
        let error = started.err.split("error: the ").nth(1).unwrap();
        assert_eq!(error.matches(parts[0]).count(), 1, "{what}: {}", started.err);
    }
}
