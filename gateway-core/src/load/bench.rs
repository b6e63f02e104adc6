//! A run's course: agents are set up, the load runs and is measured, what is under way arrives.
//!
//! The modes say what is set up and what each does; this says when, and holds the watch.

use std::{
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use conexus_protocol::Identity;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    LoadError, Plan,
    board::{Board, Phase, Span},
    process::{Meter, Process},
    register::{Registered, SetupError, register},
    target::Target,
    workers::Workers,
};

/// How long messages under way may take to arrive after the measured time.
const DRAIN: Duration = Duration::from_secs(5);

/// A set-up that gets nowhere for so long is given up.
const STUCK: Duration = Duration::from_secs(30);

/// How often things that do not announce themselves are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How often processor time is read, so that threads that end lose little of theirs.
const SAMPLE: Duration = Duration::from_millis(100);

/// Memory that moves by less than this part of it is at rest.
const STILL: u64 = 1000;

/// Memory that is not at rest after so many times the time asked for is read all the same.
const RESTLESS: u32 = 5;

/// Open files beside the connections.
const OTHER_FILES: u64 = 64;

/// What the tasks on the workers share.
pub(super) struct Shared {
    /// The nodes of a cluster, or the one gateway.
    targets: Vec<Target>,
    pub(super) board: Arc<Board>,
    pub(super) plan: Plan,
    setups: Semaphore,
}

impl Shared {
    /// Registers an agent, when it is its turn; with several nodes at the one that is next.
    pub(super) async fn register(
        &self,
        number: usize,
        identity: &Identity,
    ) -> Result<Registered, SetupError> {
        // It is never closed.
        let _turn = self.setups.acquire().await;
        register(&self.targets[number % self.targets.len()], number, identity).await
    }

    /// Keeps to the rate, where there is one: waits until what has this number may begin. `false` when
    /// its turn would come after the end.
    pub(super) async fn at_its_turn(&self, number: usize) -> bool {
        if let (Some(per_second), Some(span)) = (self.plan.rate, self.board.span()) {
            let due = span.begin + Duration::from_secs_f64(number as f64 / per_second);
            if due >= span.until {
                return false;
            }
            sleep_until(due.into()).await;
        }
        true
    }
}

/// A run.
pub(super) struct Bench {
    pub(super) shared: Arc<Shared>,
    workers: Workers,
    servers: Vec<Process>,
    interrupt: CancellationToken,
    tasks: Mutex<Vec<AbortHandle>>,
    resident_before: Option<u64>,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) seconds: Duration,
    /// Of each process that was named.
    pub(super) server_cpu: Vec<Duration>,
    pub(super) own_cpu: Option<Duration>,
    pub(super) resident: Option<u64>,
    pub(super) resident_after_message: Option<u64>,
}

impl Bench {
    /// Looks for all that could be in the way, and registers one agent for a trial: it tells what
    /// is wrong, and what a server does only once is not on the bill.
    pub(super) async fn prepare(
        plan: Plan,
        interrupt: CancellationToken,
    ) -> Result<Self, LoadError> {
        let servers =
            plan.pids.iter().copied().map(Process::find).collect::<Result<Vec<_>, _>>()?;
        room(plan.connections())?;
        let audience = plan.audience.as_deref();
        let workers = Workers::start(plan.threads).map_err(LoadError::Threads)?;
        let mut targets = Vec::new();
        for url in [&plan.url].into_iter().chain(&plan.further) {
            let resolved = Target::resolve(url, audience, plan.protocol, plan.sources, &plan.tls);
            let target = resolved.await?;
            drop(register(&target, 0, &Identity::generate()).await.map_err(LoadError::Trial)?);
            targets.push(target);
        }
        let resident_before = resident(&servers);
        let setups = Semaphore::new(plan.concurrency);
        let board = Arc::new(Board::new(workers.count()));
        let shared = Arc::new(Shared { targets, board, plan, setups });
        let tasks = Mutex::new(Vec::new());
        Ok(Self { shared, workers, servers, interrupt, tasks, resident_before })
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.shared.board
    }

    pub(super) fn servers(&self) -> &[Process] {
        &self.servers
    }

    /// The servers' memory before anybody came.
    pub(super) const fn resident_before(&self) -> Option<u64> {
        self.resident_before
    }

    pub(super) fn workers(&self) -> usize {
        self.workers.count()
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.is_cancelled()
    }

    /// Resolves when somebody wants no more.
    pub(super) async fn interrupted(&self) {
        self.interrupt.cancelled().await;
    }

    /// Runs a task on that worker until the end of the run.
    pub(super) fn spawn(&self, worker: usize, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().push(self.workers.spawn(worker, task));
    }

    /// Runs a task for each number, the workers in turn.
    pub(super) fn spawn_each<F>(&self, count: usize, task: impl Fn(usize, usize) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        for number in 0..count {
            let worker = number % self.workers();
            self.spawn(worker, task(worker, number));
        }
    }

    /// Waits until as many are ready as ever will be, or the run is interrupted.
    pub(super) async fn set_up(&self, what: &str, count: usize) -> Result<(), LoadError> {
        let begun = Instant::now();
        let mut progress = Instant::now();
        let (mut seen, mut told) = (0, Instant::now());
        loop {
            let (ready, failed) = self.board().set_up();
            if ready + failed > seen {
                (seen, progress) = (ready + failed, Instant::now());
            }
            let hopeless = ready == 0 && failed >= self.plan().concurrency;
            if ready + failed >= count || hopeless || progress.elapsed() > STUCK {
                break;
            }
            if told.elapsed() > Duration::from_secs(1) {
                told = Instant::now();
                self.tell(&format!("{what}: {ready} of {count} set up, {failed} failed"));
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.interrupt.cancelled() => return Ok(()),
            }
        }
        let (ready, failed) = self.board().set_up();
        if ready == 0 {
            let example = self.board().total().errors.examples().first().cloned();
            return Err(LoadError::Nobody { why: example.unwrap_or_default() });
        }
        let took = begun.elapsed().as_secs_f64();
        self.tell(&format!("{what}: {ready} set up in {took:.1} s, {failed} failed"));
        Ok(())
    }

    /// Lets the load begin.
    pub(super) fn start(&self) -> Span {
        let plan = self.plan();
        let span = Span::new(plan.warmup, plan.seconds);
        self.board().start(span);
        span
    }

    /// Measures the load. Cut short when the run is interrupted, or nobody is left.
    pub(super) async fn measure(&self, span: Span) -> Measured {
        self.measure_all(span, std::future::ready(())).await
    }

    /// As [`measure`](Self::measure), for a load that has something to finish when its time is over.
    pub(super) async fn measure_all(
        &self,
        span: Span,
        finished: impl Future<Output = ()>,
    ) -> Measured {
        tokio::select! {
            () = sleep_until(span.from.into()) => {}
            () = self.interrupt.cancelled() => {}
        }
        let watched = self.servers.iter().cloned().chain(Process::own());
        let mut meters: Vec<_> = watched.map(Meter::start).collect();
        let began = Instant::now();
        self.board().enter(Phase::Measuring);
        self.watch(span.until, &mut meters).await;
        self.board().enter(Phase::Draining);
        let seconds = began.elapsed();
        let mut used = meters.iter_mut().map(Meter::read);
        let server_cpu = used.by_ref().take(self.servers.len()).collect();
        let own_cpu = used.next();
        let resident = resident(&self.servers);
        tokio::select! {
            _ = timeout(DRAIN, finished) => {}
            () = self.interrupt.cancelled() => {}
        }
        self.drained().await;
        Measured { seconds, server_cpu, own_cpu, resident, resident_after_message: None }
    }

    /// Reads processor time now and then, and tells how it goes.
    async fn watch(&self, until: Instant, meters: &mut [Meter]) {
        let second = Duration::from_secs(1);
        let mut told = (Instant::now(), 0);
        while Instant::now() < until && !self.is_interrupted() && !self.board().is_deserted() {
            let next = until.min(Instant::now() + SAMPLE);
            tokio::select! {
                () = sleep_until(next.into()) => {}
                () = self.interrupt.cancelled() => {}
            }
            for meter in meters.iter_mut() {
                meter.read();
            }
            let since = told.0.elapsed();
            if since >= second && !self.plan().quiet {
                let total = self.board().total();
                let rate = (total.messages - told.1) as f64 / since.as_secs_f64();
                let [p50, p99] = [0.5, 0.99].map(|quantile| total.latency.quantile(quantile));
                let errors = total.errors.total();
                self.tell(&format!(
                    "{rate:.0}/s, p50 {p50:.0} µs, p99 {p99:.0} µs, {errors} errors"
                ));
                told = (Instant::now(), total.messages);
            }
        }
    }

    /// Waits until nothing is under way any more, within reason.
    async fn drained(&self) {
        let end = Instant::now() + DRAIN;
        while self.board().counts().1 > 0 && Instant::now() < end {
            sleep(LOOK).await;
        }
    }

    /// The servers' memory, once it has been at rest for a while or is not going to be.
    pub(super) async fn resident_at_rest(&self) -> Option<u64> {
        let servers = &self.servers;
        let settle = self.plan().settle;
        let end = Instant::now() + RESTLESS * settle;
        let (mut last, mut since) = (resident(servers)?, Instant::now());
        while since.elapsed() < settle && Instant::now() < end && !self.is_interrupted() {
            self.pause(SAMPLE.min(settle)).await;
            let now = resident(servers)?;
            if now.abs_diff(last) > last / STILL {
                (last, since) = (now, Instant::now());
            }
        }
        resident(servers)
    }

    /// Ends all tasks, so that what they know is written down.
    pub(super) async fn end_tasks(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in &tasks {
            task.abort();
        }
        let end = Instant::now() + DRAIN;
        while !tasks.iter().all(AbortHandle::is_finished) && Instant::now() < end {
            sleep(LOOK).await;
        }
    }

    /// Waits, unless the run is interrupted.
    pub(super) async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = sleep(duration) => {}
            () = self.interrupt.cancelled() => {}
        }
    }

    /// A line for whoever watches.
    pub(super) fn tell(&self, line: &str) {
        if !self.plan().quiet {
            eprintln!("{line}");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for task in self.tasks.lock().iter() {
            task.abort();
        }
    }
}

/// What tasks hold clones of while they have something to finish, and a future for the end of the
/// last of them.
pub(super) fn attendance() -> (mpsc::Sender<()>, impl Future<Output = ()>) {
    let (present, mut all) = mpsc::channel(1);
    // Nothing is ever sent: it ends when nobody is left who could.
    (present, async move { while all.recv().await.is_some() {} })
}

/// Resident memory of all of them.
fn resident(servers: &[Process]) -> Option<u64> {
    (!servers.is_empty()).then(|| servers.iter().map(Process::resident).sum())?
}

/// Makes sure that so many connections can be open at once.
fn room(connections: usize) -> Result<(), LoadError> {
    let needed = connections as u64 + OTHER_FILES;
    let allowed = rlimit::increase_nofile_limit(u64::MAX)
        .or_else(|_| rlimit::Resource::NOFILE.get_soft())
        .map_err(|source: io::Error| LoadError::Limit { source })?;
    if allowed < needed {
        return Err(LoadError::OpenFiles { needed, allowed });
    }
    Ok(())
}
