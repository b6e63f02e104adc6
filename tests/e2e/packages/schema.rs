//! The JSON schema of the configuration, by another's validator: it refuses nothing that the gateway
//! takes, and takes nothing that the gateway refuses, but for what it cannot say.

use std::fs;

use conexus_gateway::config::{Fault, KEYS, Sources, load, schema, template};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use toml_edit::{DocumentMut, Item};

use super::python::{check, repository};

/// What the schema finds wrong with each text of TOML: where, and what.
async fn judged(texts: &[String]) -> Vec<Vec<(String, String)>> {
    let documents: Vec<_> = texts.iter().map(|text| as_json(text)).collect();
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let task = json!({ "schema": schema, "documents": documents });
    let said = check("schema.py", &[], &task.to_string()).await;
    serde_json::from_str(&said).unwrap()
}

fn as_json(text: &str) -> Value {
    let document: DocumentMut = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
    table_as_json(document.as_table())
}

fn table_as_json(table: &dyn toml_edit::TableLike) -> Value {
    let members = table.iter().map(|(name, item)| (name.to_owned(), item_as_json(item)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn item_as_json(item: &Item) -> Value {
    match item {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table_as_json(table)).collect(),
        Item::Table(table) => table_as_json(table),
        Item::Value(value) => value_as_json(value),
        Item::None => Value::Null,
    }
}

fn value_as_json(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::InlineTable(table) => table_as_json(table),
        toml_edit::Value::Array(list) => list.iter().map(value_as_json).collect(),
        toml_edit::Value::String(text) => json!(text.value()),
        toml_edit::Value::Integer(number) => json!(number.value()),
        toml_edit::Value::Float(number) => json!(number.value()),
        toml_edit::Value::Boolean(flag) => json!(flag.value()),
        // As editors have it.
        toml_edit::Value::Datetime(time) => json!(time.value().to_string()),
    }
}

/// What the gateway finds wrong with files that it reads from one folder.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("there.txt"), "there").unwrap();
        Self(folder)
    }

    fn faults(&self, text: &str) -> Vec<Fault> {
        fs::write(self.0.path().join("gateway.toml"), text).unwrap();
        let env = vec![("THERE".to_owned(), "there".to_owned())];
        let working_dir = self.0.path().to_owned();
        match load(&Sources { working_dir, env, ..Sources::default() }) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.faults().to_vec(),
        }
    }
}

fn uncommented(text: &str) -> String {
    let bare = |line: &str| {
        let rest = line.strip_prefix('#').filter(|rest| rest.starts_with(char::is_alphabetic));
        rest.unwrap_or(line).to_owned() + "\n"
    };
    text.lines().map(bare).collect()
}

#[tokio::test]
async fn every_default_and_every_sample_of_the_documentation_is_valid() {
    let mut texts = vec![template(), uncommented(&template())];
    for (key, example) in KEYS.iter().filter_map(|key| Some((key, key.example?))) {
        texts.push(format!("{} = {example}\n", key.path));
    }
    let mut pages = vec![repository("README.md")];
    for folder in ["docs", "scripts", "plugins", "deploy"] {
        let found = walk(&repository(folder));
        pages
            .extend(found.into_iter().filter(|path| path.extension().is_some_and(|it| it == "md")));
    }
    let before = texts.len();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        // The manifest of a plugin is another matter.
        let manifest = |text: &str| {
            ["[package]", "[lib]", "dependencies]"].iter().any(|table| text.contains(table))
        };
        texts.extend(blocks.filter(|block| !manifest(block)).map(whole));
    }
    assert!(texts.len() > before + 10, "{} samples in the documentation", texts.len() - before);
    let judged = judged(&texts).await.into_iter().zip(&texts);
    let wrong: Vec<_> = judged.filter(|(wrong, _)| !wrong.is_empty()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A sample with something in place of what it leaves out.
fn whole(sample: &str) -> String {
    sample.replace("sha256 = \"…\"", &format!("sha256 = \"{}\"", "0".repeat(64)))
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let folders = folders.into_iter().filter(|path| !path.ends_with("target"));
    files.into_iter().chain(folders.flat_map(|folder| walk(&folder))).collect()
}

/// Something of every form, right for some key and wrong for most.
const CANDIDATES: &[&str] = &[
    "true",
    "\"true\"",
    "0",
    "1",
    "-1",
    "7",
    "1000",
    "9999999999999",
    "1.5",
    "\"\"",
    "\"x\"",
    "\"X y\"",
    "\"0s\"",
    "\"5s\"",
    "\"5 s\"",
    "\"1m\"",
    "\"250ms\"",
    "\"5\"",
    "\"1.5s\"",
    "\"-1s\"",
    "\"5S\"",
    "\"0B\"",
    "\"64KiB\"",
    "\"64KB\"",
    "\"1 MiB\"",
    "\"1GiB\"",
    "\"public\"",
    "\"strict\"",
    "\"off\"",
    "\"required\"",
    "\"messages\"",
    "\"json\"",
    "\"1.3\"",
    "\"INFO\"",
    "\"inof\"",
    "\"info,conexus_gateway::session=debug\"",
    "\"info,[x]=debug\"",
    "\"a=nonsense\"",
    "\"127.0.0.1:80\"",
    "\"[::1]:80\"",
    "\"localhost:80\"",
    "\"127.0.0.1\"",
    "\"127.0.0.1:x\"",
    "\"http://127.0.0.1:4318\"",
    "\"https://a/b?c\"",
    "\"http://a/#x\"",
    "\"wss://a/ws\"",
    "\"ftp://a\"",
    "[]",
    "[\"wss://a/ws\"]",
    "[\"ws://a:1/ws?x=1\"]",
    "[\"http://a\"]",
    "[\"OFFER\"]",
    "[\"PING\"]",
    "[\"offer\"]",
    "[1]",
    "[\"https://app.example.com\"]",
    "[\"10.0.0.0/8\"]",
    "[\"10.0.0.1\"]",
    "[\"x y\"]",
    "[\"::1\"]",
    "[{ urls = [\"stun:a\"] }]",
    "[{ urls = [] }]",
    "[{ urls = [\"http:a\"] }]",
    "[{ username = \"x\" }]",
    "[{ urls = [\"turn:a\"], username = \"x\", credential = { env = \"THERE\" } }]",
    "[{ urls = [\"turn:a\"], credential = { env = \"THERE\", file = \"there.txt\" } }]",
    "[{ urls = [\"turn:a\"], password = \"x\" }]",
    "[{ urls = [\"turn:a\"], secret = \"x\" }]",
    "{ file = \"there.txt\" }",
    "{ env = \"THERE\" }",
    "{ env = 1 }",
    "{ token = \"x\" }",
    "{}",
    "{ a = 1 }",
    "\"script:a\"",
    "\"plugin:quota\"",
    "\"script:A\"",
    "\"rust:a\"",
    "\"enforce\"",
    "\"shadow\"",
    "\"closed\"",
    "\"operate\"",
    "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF\"",
];

/// What only the gateway can say: bounds of durations and sizes, what ties keys together, what is not
/// there.
const BEYOND_A_SCHEMA: &[&str] = &[
    "too short",
    "too long",
    "out of bounds; expected \"",
    "must be at ",
    "must be less than",
    "must be on loopback",
    "must be within",
    "needs ",
    "no [hook.",
    "is no ",
    "cannot be read",
    "without ",
    "has no effect",
];

/// A document in which every key has this value, with the path of each.
fn document(candidate: &'static str) -> (Vec<(String, &'static str)>, String) {
    let mut text = String::new();
    let mut paths = Vec::new();
    for key in KEYS {
        text += &format!("{} = {candidate}\n", key.path);
        paths.push((key.path.to_owned(), candidate));
    }
    let own = [
        ("hook", "use = \"script:a\"", &["use", "config", "blocking", "tick", "namespace"][..]),
        ("plugins", "path = \"a.so\"", &["path", "sha256", "crate"]),
        ("rate_class", "", &["messages_per_second", "message_burst"]),
        ("admin_token", "", &["sha256", "scope"]),
    ];
    for (table, needed, fields) in own {
        for field in fields {
            let needed = if needed.starts_with(field) { "" } else { needed };
            text += &format!("[{table}.{field}]\n{field} = {candidate}\n{needed}\n");
            paths.push((format!("{table}.{field}.{field}"), candidate));
        }
    }
    for (index, field) in ["mode", "on_error", "budget", "warn"].into_iter().enumerate() {
        text += &format!("[[chain.on_route]]\nhook = \"blocking\"\n{field} = {candidate}\n");
        paths.push((format!("chain.on_route[{index}].{field}"), candidate));
    }
    (paths, text)
}

/// Whether a place is this key, or a part of its value.
fn is_within(place: &str, path: &str) -> bool {
    place.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[tokio::test]
async fn the_schema_and_the_gateway_agree_on_every_value_of_every_key() {
    let (paths, documents): (Vec<_>, Vec<_>) = CANDIDATES.iter().map(|it| document(it)).unzip();
    let desk = Desk::new();
    let (mut accepted, mut apart) = (0, Vec::new());
    for ((paths, text), wrong) in paths.iter().zip(&documents).zip(judged(&documents).await) {
        let faults = desk.faults(text);
        for (path, candidate) in paths {
            let wrong = wrong.iter().find(|(place, _)| is_within(place, path));
            let fault = faults.iter().find(|fault| fault.key.as_deref() == Some(path));
            let problem = fault.map(|fault| fault.problem.as_str());
            let unsayable = |problem: &str| BEYOND_A_SCHEMA.iter().any(|it| problem.contains(it));
            match (wrong, problem) {
                (None, None) => accepted += 1,
                (None, Some(problem)) if unsayable(problem) => {}
                (Some(_), Some(_)) => {}
                (wrong, problem) => apart.push(format!(
                    "{path} = {candidate}: the schema says {wrong:?}, the gateway {problem:?}"
                )),
            }
        }
    }
    assert!(apart.is_empty(), "{apart:#?}");
    assert!(accepted > KEYS.len(), "{accepted} values were right");
}

#[tokio::test]
async fn what_nobody_knows_is_refused_by_schema_and_gateway() {
    let desk = Desk::new();
    let texts = [
        "[presense]\ntimeout = \"1s\"",
        "[presence]\ntimeot = \"1s\"",
        "listen = \"127.0.0.1:1\"",
        "log = \"debug\"",
        "[hook.Members]\nuse = \"script:a\"",
        "[hook.a]\nuse = \"script:a\"\nbudget = \"1s\"",
        "hook = 1",
        "[hook]\na = 1",
        "[[chain.on_tea]]\nhook = \"a\"",
        "[[chain.on_start]]\nhook = \"a\"",
        "[hook.a]\nuse = \"script:a\"\n[[chain.on_route]]\nmode = \"shadow\"",
        "[hook.a]\nuse = \"script:a\"\n[[chain.on_route]]\nhook = \"a\"\nmod = \"shadow\"",
        "[chain]\non_route = \"a\"",
        "[chain]\non_route = [\"a\"]",
        "[rate_class.x]\nburst = 1",
        "[admin_token.x]\nsha256 = \"abc\"",
        "[cluster]\nredis = \"redis://a\"",
        "[cluster.redis]\nulr = \"redis://a\"",
        "[cluster.reddis]\nurl = \"redis://a\"",
        "[redis]\nurl = \"redis://a\"",
    ]
    .map(str::to_owned);
    for (text, wrong) in texts.iter().zip(judged(&texts).await) {
        assert!(!wrong.is_empty(), "the schema takes {text}");
        assert!(!desk.faults(text).is_empty(), "the gateway takes {text}");
    }
}
