//! The metrics as text: in OpenMetrics where that is asked for, else in Prometheus's own format.
//!
//! The library writes OpenMetrics; [`classic`] turns its few differences back, since `promtool`
//! and older scrapers know the own format alone.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use super::{families, monitor::Monitor};

/// The content type of Prometheus's own format.
pub(crate) const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The content type of OpenMetrics.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a gateway.
pub(crate) struct Exposition(Registry);

impl Exposition {
    pub(crate) fn new(monitor: Arc<Monitor>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Gateway(monitor)));
        Self(registry)
    }

    /// As OpenMetrics.
    pub(crate) fn open_metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }

    /// In Prometheus's own format.
    pub(crate) fn classic(&self) -> Result<String, fmt::Error> {
        Ok(classic(&self.open_metrics()?))
    }
}

struct Gateway(Arc<Monitor>);

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateway")
    }
}

impl Collector for Gateway {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::write(&self.0, &mut Page(encoder))
    }
}

/// Where families of metrics are written to.
pub(super) struct Page<'a>(DescriptorEncoder<'a>);

/// Labels and their values.
pub(super) type Labels<'a> = Vec<(&'a str, &'a str)>;

/// A histogram with upper bounds in seconds, buckets not added up, the last one without a bound.
pub(super) struct HistogramRow<'a> {
    pub(super) labels: Labels<'a>,
    pub(super) sum_seconds: f64,
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Page<'_> {
    /// A counter without labels; `_total` is added to its name.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(Labels::new(), value)])
    }

    /// A family of counters; `_total` is added to its name.
    pub(super) fn counters<'b>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'b>, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            labelled(&mut family, &labels)?.encode_counter::<Labels<'_>, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    /// A counter of seconds; `_total` is added to its name.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<Labels<'_>, f64, f64>(&value, None)
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [(Labels::new(), value)])
    }

    /// A family of gauges.
    pub(super) fn gauges<'b>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'b>, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            labelled(&mut family, &labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A family of histograms.
    pub(super) fn histograms<'b>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = HistogramRow<'b>>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for HistogramRow { labels, sum_seconds, buckets } in rows {
            let count = buckets.iter().map(|(_, count)| count).sum();
            labelled(&mut family, &labels)?.encode_histogram::<Labels<'_>>(
                sum_seconds,
                count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

fn labelled<'s>(
    family: &'s mut MetricEncoder<'_>,
    labels: &'s Labels<'_>,
) -> Result<MetricEncoder<'s>, fmt::Error>
where
    for<'a> Labels<'a>: EncodeLabelSet,
{
    family.encode_family(labels)
}

/// OpenMetrics text in Prometheus's own format (text exposition format 0.0.4): a counter's family is
/// called as its samples are, and there is no mark at the end.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + open_metrics.len() / 16);
    let mut help = "";
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if line.starts_with("# HELP ") {
            // Its type comes next, and decides its name.
            help = line;
            continue;
        }
        let counter = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter"));
        let Some(name) = counter else {
            for line in [std::mem::take(&mut help), line].into_iter().filter(|l| !l.is_empty()) {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        };
        let about = std::mem::take(&mut help)
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.strip_prefix(name))
            .unwrap_or_default();
        // Writing to a text cannot fail.
        let _ = write!(text, "# HELP {name}_total{about}\n# TYPE {name}_total counter\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_called_as_their_samples_are_and_the_rest_stays() {
        let open_metrics = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# EOF\"} 1\n\
                            # HELP b_seconds Times.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\n\
                            b_seconds 2.5\n# EOF\n";
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# EOF\"} 1\n\
                        # HELP b_seconds Times.\n# TYPE b_seconds gauge\nb_seconds 2.5\n";
        assert_eq!(classic(open_metrics), expected);
    }
}
