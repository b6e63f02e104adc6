//! The metrics of a gateway as a scraper reads them, taken apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{PATIENCE, http, process::Process};

/// One answer of `/metrics`.
#[derive(Debug)]
pub(crate) struct Scrape {
    pub(crate) text: String,
    /// What each family is, by its name.
    pub(crate) types: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

/// One line of it.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    /// In Prometheus's own format.
    pub(crate) async fn of(gateway: &Process) -> Self {
        let (status, head, text) = http::get_raw(gateway.admin, "/metrics", &[]).await;
        assert_eq!(status, 200, "{text}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        Self::read(text)
    }

    /// The first one of which `condition` holds, for what announces itself in no other way.
    pub(crate) async fn once(
        gateway: &Process,
        what: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> Self {
        let began = std::time::Instant::now();
        loop {
            let scrape = Self::of(gateway).await;
            if condition(&scrape) {
                return scrape;
            }
            assert!(began.elapsed() < PATIENCE, "waited for {what}; last:\n{}", scrape.text);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn read(text: String) -> Self {
        let types = text.lines().filter_map(|line| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            Some((name.to_owned(), kind.to_owned()))
        });
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(Sample::read);
        Self { types: types.collect(), samples: samples.collect(), text }
    }

    /// The sum of all samples of that name that have these labels; 0 where there are none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        };
        let of_name = self.samples.iter().filter(|sample| sample.name == name);
        of_name.filter(|sample| has(sample)).map(|sample| sample.value).sum()
    }

    /// As [`Self::sum`], of something that is counted.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test's counts")]
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(sum >= 0.0 && sum.fract() == 0.0, "{name} {labels:?} is {sum}");
        sum as u64
    }

    pub(crate) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// The values of a label among the samples of that name.
    pub(crate) fn values_of(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let of_name = self.samples.iter().filter(|sample| sample.name == name);
        of_name.filter_map(|sample| sample.labels.get(label)).map(String::as_str).collect()
    }
}

impl Sample {
    /// None of our labels has a quotation mark, a brace or a backslash in its value.
    fn read(line: &str) -> Self {
        assert!(!line.contains('\\'), "{line}");
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').expect("the end of the labels");
        let pair = |pair: &str| {
            let (name, value) = pair.split_once("=\"").expect("a label");
            (name.to_owned(), value.to_owned())
        };
        let pairs = labels.trim_end_matches('"').split("\",").filter(|pair| !pair.is_empty());
        Self {
            name: name.to_owned(),
            labels: pairs.map(pair).collect(),
            value: value.parse().expect("a number"),
        }
    }
}
