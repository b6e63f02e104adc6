//! What one hook at `on_route` adds to a message: a gateway with it, less one without.

use std::env::{
    consts::{DLL_PREFIX, DLL_SUFFIX},
    current_exe,
};

use super::{
    super::{
        load::Report,
        row::{Figures, Kind, Row, Target},
        server::Config,
        trial::Bench,
    },
    routing::{PAIRS, bare, offers},
};

/// The policy with three conditions of the benchmark of hooks.
const SCRIPT: &str = r#"fn on_route(event) {
    if event.type == "OFFER"
        && event.bytes > 256
        && event.from.label("region") != event.target.label("region")
    {
        return deny("denied", "regions do not mix");
    }
}"#;

/// The hook is at this one point.
const CHAIN: &str = "[[chain.on_route]]\nhook = \"measured\"\n";

pub(super) fn measure(bench: &Bench) -> Vec<Row> {
    let configs = [bare(), native(), script()];
    let gateways = configs.iter().flat_map(|config| bench.gateways(config));
    let gateways: Vec<_> = gateways.collect();
    let load = offers(bench, PAIRS, 1).flag("unsigned");
    let cpu: Vec<Vec<_>> = bench
        .turns("hooks", &gateways, &load)
        .iter()
        .map(|reports| reports.iter().map(Report::cpu).collect())
        .collect();
    // Of each configuration there is the gateway and, where there is one, the other.
    let each = gateways.len() / configs.len();
    let row = |number: usize, name, limit| {
        let of = |config: usize, other: usize| cpu[config * each + other].clone();
        let figures = Figures {
            gateway: of(number, 0),
            reference: of(0, 0),
            against: if each == 2 { of(number, 1) } else { Vec::new() },
        };
        let row = Row::new(5, name, "µs", Kind::Difference, &figures);
        row.target(Target::at_most(limit))
    };
    vec![
        row(1, "with a native hook that does nothing", 0.5),
        row(2, "with a script of three conditions", 6.0),
    ]
}

/// The fixture of the tests, which lies beside this executable.
fn native() -> Config {
    let library = format!("{DLL_PREFIX}probe{DLL_SUFFIX}");
    let library = current_exe().unwrap().with_file_name(library);
    assert!(library.is_file(), "{} is not built", library.display());
    let library = library.display();
    let file = format!(
        "[plugins.probe]\npath = '{library}'\n\
         [hook.measured]\nuse = \"plugin:probe\"\nconfig = {{ act = \"pass\" }}\n{CHAIN}"
    );
    Config { file, ..bare() }
}

fn script() -> Config {
    let file = format!("[hook.measured]\nuse = \"script:measured\"\n{CHAIN}");
    Config { file, script: Some(SCRIPT), ..bare() }
}
