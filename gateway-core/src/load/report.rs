//! What came of a run: as JSON for programs, as a table for people.

use std::{fmt, time::Duration};

use conexus_protocol::Subprotocol;
use serde::Serialize;

use super::{
    bench::{Bench, Measured},
    message::Signing,
    plan::{Mode, Plan},
    process::Process,
    tally::{Errors, Latencies, Tally},
};

/// One run. Its names are an interface: programs read them.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    mode: Mode,
    url: String,
    protocol: Subprotocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    pairs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    /// That ever registered for the load.
    agents: usize,
    seconds: f64,
    /// Cut short by a signal.
    interrupted: bool,
    /// Registrations, in `register`.
    messages: u64,
    per_second: f64,
    /// All messages of the load that were ever sent, warm-up included.
    sent: u64,
    latency_us: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    lateness_us: Option<Summary>,
    registrations: u64,
    connect_us: Summary,
    proof_us: Summary,
    signing_us: Summary,
    errors: Errors,
    server: Option<Server>,
    generator: Generator,
    #[serde(skip)]
    latency: Latencies,
}

/// Latencies, in microseconds.
#[derive(Debug, Serialize)]
struct Summary {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
    count: u64,
}

/// The process that was named; all of them together where there are several.
#[derive(Debug, Serialize)]
struct Server {
    pid: u32,
    cpu_us_per_message: Option<f64>,
    cpu_seconds: Option<f64>,
    rss_bytes_before: Option<u64>,
    rss_bytes: Option<u64>,
    rss_bytes_after_message: Option<u64>,
    bytes_per_agent: Option<f64>,
    bytes_per_agent_after_message: Option<f64>,
    /// Where there are several, in the order in which they were named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    processes: Vec<One>,
}

/// One of several.
#[derive(Debug, Serialize)]
struct One {
    pid: u32,
    cpu_us_per_message: Option<f64>,
    cpu_seconds: f64,
}

/// This process: whether it was the bottleneck.
#[derive(Debug, Serialize)]
struct Generator {
    threads: usize,
    cpu_us_per_message: Option<f64>,
    cpu_seconds: Option<f64>,
}

impl Report {
    pub(super) fn new(bench: &Bench, measured: &Measured) -> Self {
        let plan = bench.plan();
        let tally = bench.board().total();
        let agents = agents(bench, plan, &tally);
        let seconds = measured.seconds.as_secs_f64();
        // The message of `idle` comes after the measured time.
        let timed = seconds > 0.0 && plan.mode != Mode::Idle;
        let messages = tally.messages;
        let watches = !bench.servers().is_empty();
        let server = watches.then(|| Server::new(bench, measured, messages, agents));
        let pairs = matches!(plan.mode, Mode::Route | Mode::Rate).then_some(plan.pairs);
        let window = matches!(plan.mode, Mode::Route | Mode::Fanin).then_some(plan.window);
        let writes = match plan.mode {
            Mode::Register => false,
            Mode::Idle => plan.idle_message,
            Mode::Route | Mode::Rate | Mode::Fanin | Mode::Churn => true,
        };
        let own_cpu = measured.own_cpu.map(|cpu| cpu.as_secs_f64());
        Self {
            mode: plan.mode,
            url: plan.url.clone(),
            protocol: plan.protocol,
            pairs,
            window,
            bytes: writes.then_some(plan.bytes),
            signed: writes.then_some(plan.signing == Signing::Signed),
            rate: plan.rate,
            agents,
            seconds,
            interrupted: bench.is_interrupted(),
            messages,
            per_second: if timed { messages as f64 / seconds } else { 0.0 },
            sent: tally.sent,
            latency_us: Summary::of(&tally.latency),
            lateness_us: (plan.mode == Mode::Rate).then(|| Summary::of(&tally.lateness)),
            registrations: tally.registrations,
            connect_us: Summary::of(&tally.connect),
            proof_us: Summary::of(&tally.proof),
            signing_us: Summary::of(&tally.signing),
            errors: tally.errors,
            server,
            generator: Generator {
                threads: plan.threads,
                cpu_us_per_message: own_cpu.and_then(|cpu| each(cpu * 1e6, messages)),
                cpu_seconds: own_cpu,
            },
            latency: tally.latency,
        }
    }

    pub(super) fn latency(&self) -> &Latencies {
        &self.latency
    }

    /// What the plot is of.
    pub(super) fn title(&self) -> String {
        let Self { mode, protocol, pairs, window, bytes, signed, rate, agents, .. } = self;
        let mut parts = vec![format!("{} on {protocol}", mode.name())];
        match pairs {
            Some(1) => parts.push("1 pair".to_owned()),
            Some(pairs) => parts.push(format!("{pairs} pairs")),
            None => parts.push(format!("{agents} agents")),
        }
        parts.extend(window.map(|window| format!("window {window}")));
        parts.extend(rate.map(|rate| format!("{rate} per second asked for")));
        parts.extend(bytes.map(|bytes| format!("{bytes} bytes")));
        parts.extend(signed.map(|signed| if signed { "signed" } else { "unsigned" }.to_owned()));
        parts.join(", ")
    }
}

/// How many agents there were. Those that come and go are as many as there are keys.
fn agents(bench: &Bench, plan: &Plan, tally: &Tally) -> usize {
    match plan.mode {
        Mode::Route | Mode::Rate => 2 * bench.board().set_up().0,
        Mode::Idle => bench.board().set_up().0,
        Mode::Fanin => bench.board().set_up().0,
        Mode::Register => plan.agents().min(tally.registrations as usize),
        Mode::Churn => 2 * plan.agents().div_ceil(2),
    }
}

impl Server {
    fn new(bench: &Bench, measured: &Measured, messages: u64, agents: usize) -> Self {
        let (plan, before) = (bench.plan(), bench.resident_before());
        let cpu = (!measured.server_cpu.is_empty())
            .then(|| measured.server_cpu.iter().sum::<Duration>().as_secs_f64());
        let of_agents = |resident: Option<u64>| {
            let grown = resident? as f64 - before? as f64;
            (plan.mode == Mode::Idle).then(|| each(grown, agents as u64))?
        };
        let counted = if plan.mode == Mode::Idle { 0 } else { messages };
        let one = |(process, cpu): (&Process, &Duration)| One {
            pid: process.pid(),
            cpu_us_per_message: each(cpu.as_secs_f64() * 1e6, counted),
            cpu_seconds: cpu.as_secs_f64(),
        };
        let processes: Vec<_> = bench.servers().iter().zip(&measured.server_cpu).map(one).collect();
        Self {
            pid: bench.servers().first().map_or(0, Process::pid),
            cpu_us_per_message: cpu.and_then(|cpu| each(cpu * 1e6, counted)),
            cpu_seconds: cpu,
            rss_bytes_before: before,
            rss_bytes: measured.resident,
            rss_bytes_after_message: measured.resident_after_message,
            bytes_per_agent: of_agents(measured.resident),
            bytes_per_agent_after_message: of_agents(measured.resident_after_message),
            processes: if processes.len() > 1 { processes } else { Vec::new() },
        }
    }
}

fn each(amount: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| amount / count as f64)
}

impl Summary {
    fn of(latencies: &Latencies) -> Self {
        Self {
            mean: latencies.mean(),
            p50: latencies.quantile(0.5),
            p90: latencies.quantile(0.9),
            p99: latencies.quantile(0.99),
            p99_9: latencies.quantile(0.999),
            max: latencies.max(),
            count: latencies.count(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean, p50, p90, p99, p99_9, max, count: _ } = self;
        write!(
            f,
            "mean {}, p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            Time(*mean),
            Time(*p50),
            Time(*p90),
            Time(*p99),
            Time(*p99_9),
            Time(*max)
        )
    }
}

/// Microseconds in the unit that suits them.
pub(super) struct Time(pub(super) f64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            micros if micros >= 1e6 => (micros / 1e6, "s"),
            micros if micros >= 1e3 => (micros / 1e3, "ms"),
            micros => (micros, "µs"),
        };
        let digits = if value >= 100.0 || value == 0.0 { 0 } else { 1 };
        write!(f, "{value:.digits$} {unit}")
    }
}

/// Bytes in the unit that suits them.
struct Bytes(f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes.abs() >= 1024.0 * 1024.0 => write!(f, "{:.1} MiB", bytes / 1_048_576.0),
            bytes if bytes.abs() >= 1024.0 => write!(f, "{:.1} KiB", bytes / 1024.0),
            bytes => write!(f, "{bytes:.0} B"),
        }
    }
}

/// As a table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        writeln!(f, "{}", self.url)?;
        if self.interrupted {
            writeln!(f, "interrupted: this is how far it came")?;
        }
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<15} {value}");
        let what = if self.mode == Mode::Register { "registrations" } else { "messages" };
        if self.per_second > 0.0 {
            let (count, seconds, rate) = (self.messages, self.seconds, self.per_second);
            row(what, format!("{count} in {seconds:.1} s, {rate:.0} per second"))?;
        } else {
            row(what, self.messages.to_string())?;
        }
        if self.latency_us.count > 0 {
            row("latency", self.latency_us.to_string())?;
        }
        if let Some(lateness) = self.lateness_us.as_ref().filter(|it| it.count > 0) {
            row("sent late by", lateness.to_string())?;
        }
        let registers = matches!(self.mode, Mode::Register | Mode::Churn);
        if registers && self.connect_us.count > 0 {
            row("connect", self.connect_us.to_string())?;
            row("proof", self.proof_us.to_string())?;
            row("  our signing", self.signing_us.to_string())?;
        }
        row("errors", self.errors.summary())?;
        for example in self.errors.examples() {
            row("", example.clone())?;
        }
        if let Some(server) = &self.server {
            server.rows(&mut row, self.seconds)?;
        }
        if let Some(cpu) = self.generator.cpu_seconds.filter(|_| self.seconds > 0.0) {
            row("generator cpu", format!("{:.0} % of a core", 100.0 * cpu / self.seconds))?;
        }
        Ok(())
    }
}

impl Server {
    fn rows(&self, row: &mut dyn FnMut(&str, String) -> fmt::Result, seconds: f64) -> fmt::Result {
        if let Some(cpu) = self.cpu_seconds.filter(|_| seconds > 0.0) {
            let of_a_core = format!("{:.0} % of a core", 100.0 * cpu / seconds);
            match self.cpu_us_per_message {
                Some(micros) => row("server cpu", format!("{micros:.1} µs each, {of_a_core}"))?,
                None => row("server cpu", of_a_core)?,
            }
        }
        for One { pid, cpu_seconds, .. } in self.processes.iter().filter(|_| seconds > 0.0) {
            row("", format!("process {pid}: {:.0} % of a core", 100.0 * cpu_seconds / seconds))?;
        }
        let memory = |resident: Option<u64>, per_agent: Option<f64>| {
            let resident = Bytes(resident? as f64);
            Some(match per_agent {
                Some(bytes) => format!("{resident}, {} per agent", Bytes(bytes)),
                None => resident.to_string(),
            })
        };
        let rows = [
            ("server memory", memory(self.rss_bytes_before, None).map(|it| it + " before")),
            ("", memory(self.rss_bytes, self.bytes_per_agent)),
            (
                "",
                memory(self.rss_bytes_after_message, self.bytes_per_agent_after_message)
                    .map(|it| it + ", after a message"),
            ),
        ];
        for (name, text) in rows {
            if let Some(text) = text {
                row(name, text)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_told_in_the_unit_that_suits_them() {
        for (micros, text) in [
            (0.0, "0 µs"),
            (31.25, "31.2 µs"),
            (999.0, "999 µs"),
            (1_500.0, "1.5 ms"),
            (2e6, "2.0 s"),
        ] {
            assert_eq!(Time(micros).to_string(), text);
        }
        for (bytes, text) in [(12.0, "12 B"), (9_318.4, "9.1 KiB"), (3e6, "2.9 MiB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert_eq!(each(5.0, 0), None);
        assert_eq!(each(5.0, 2), Some(2.5));
    }
}
