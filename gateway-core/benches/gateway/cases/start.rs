//! What it takes to have a gateway at all.

use std::{fs, path::Path};

use object::{Object as _, ObjectSegment as _};

use super::super::{
    options::Profile,
    row::{Figures, Kind, Row, Target},
    server::{Config, Server, Subject},
    trial::Bench,
};

const STARTS: usize = 11;

pub(super) fn measure(bench: &Bench) -> Vec<Row> {
    vec![start(bench), size(bench)]
}

/// With the key made anew, as on the first start.
fn start(bench: &Bench) -> Row {
    let starts = if bench.profile == Profile::Smoke { 1 } else { STARTS };
    let gateways = bench.gateways(&Config::default());
    let mut figures = Figures::default();
    for _ in 0..starts {
        figures.gateway.push(took(&gateways[0]));
        figures.against.extend(gateways.get(1).map(took));
    }
    let row = Row::new(11, "from start to listening", "ms", Kind::Absolute, &figures);
    row.target(Target::at_most(50.0))
}

fn took(gateway: &Subject) -> f64 {
    Server::start(gateway).started_in.as_secs_f64() * 1000.0
}

fn size(bench: &Bench) -> Row {
    let figures = Figures {
        gateway: vec![stripped(bench.binary())],
        against: bench.other().map(|it| stripped(it)).into_iter().collect(),
        ..Figures::default()
    };
    let row = Row::new(11, "size of the binary, stripped", "MB", Kind::Absolute, &figures);
    row.target(Target::at_most(25.0))
}

/// What is left of a binary without symbols and debug information: all up to the end of what is
/// loaded.
fn stripped(binary: &Path) -> f64 {
    let content = fs::read(binary).unwrap();
    let file = object::File::parse(&*content).unwrap();
    let ends = file.segments().map(|segment| {
        let (start, length) = segment.file_range();
        start + length
    });
    ends.max().expect("segments") as f64 / 1e6
}
