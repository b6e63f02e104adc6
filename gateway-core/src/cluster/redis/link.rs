//! A link to Redis: what the cluster asks, as commands.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use conexus_plugin_api::{Agent, host::StateError};
use conexus_protocol::AgentKey;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    future::{BoxFuture, FutureExt as _, try_join_all},
    stream,
};
use redis::{Cmd, RedisError, ToRedisArgs, Value};
use tokio_util::task::AbortOnDropHandle;

use super::{
    answers, bans,
    checkup::read_clock,
    codec,
    fault::Fault,
    line::{Line, Shared},
    lines::Lines,
    names::Names,
    scripts::{self, Stored},
    state,
};
use crate::cluster::{
    backplane::{
        Announced, Away, BanList, BansAt, Claim, Claimed, Entry, Link, NodeInfo, Outcome, Release,
        Roster, SharedBan, StateReply, StateRequest,
    },
    ids::{Bucket, Epoch, MemberId},
};

/// Agents that are taken out by one call, so that no call keeps the engine busy for long.
const RELEASED_AT_ONCE: usize = 1000;
/// Calls of one operation that are under way at a time.
const CALLS_AT_ONCE: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct RedisLink {
    pub(super) names: Names,
    pub(super) lines: Lines,
    shared: Shared,
    _carrier: AbortOnDropHandle<()>,
}

impl RedisLink {
    pub(super) fn new(
        names: Names,
        lines: Lines,
        shared: Shared,
        carrier: AbortOnDropHandle<()>,
    ) -> Self {
        Self { names, lines, shared, _carrier: carrier }
    }

    /// Calls a script that writes: in time, or not at all.
    pub(super) async fn write(
        &self,
        line: &Line,
        script: &'static Stored,
        keys: &[String],
        arguments: impl ToRedisArgs,
    ) -> Result<Result<Value, RedisError>, Away> {
        // Known from the first answer on, and there was one before the link was.
        let not_after = line.clock.after(self.shared.patience).unwrap_or_default();
        let mut call = script.by_hash();
        call.arg(keys.len()).arg(keys).arg(not_after).arg(arguments);
        line.call(script, call).await
    }

    /// The same where the engine has no reason to refuse. The first key says where it is done.
    pub(super) async fn must(
        &self,
        script: &'static Stored,
        keys: &[String],
        arguments: impl ToRedisArgs,
    ) -> Result<(&Line, Value), Away> {
        let line = self.lines.to(keys.first().map_or("", String::as_str))?;
        match self.write(line, script, keys, arguments).await? {
            Ok(answer) => Ok((line, answer)),
            Err(error) => Err(line.fail(Fault::Script(script.name, error))),
        }
    }

    /// Listens on a channel from when it returns.
    pub(super) async fn listen(&self, channel: &str) -> Result<(), Away> {
        self.lines.to(channel)?.demand(command("SSUBSCRIBE", channel)).await.map(drop)
    }

    /// Puts agents down; with `all` of one part of the directory, takes the member's others out.
    async fn put(
        &self,
        member: MemberId,
        bucket: Bucket,
        all: bool,
        agents: &[(&Agent, Result<Epoch, Duration>)],
    ) -> Result<Vec<Claimed>, Away> {
        let part = self.names.part(bucket);
        let keys = [part.directory(), part.epoch(), part.of(member), part.changes()];
        let mut arguments = Vec::with_capacity(2 + 3 * agents.len());
        arguments.push(member.to_string().into_bytes());
        arguments.push(if all { "all" } else { "some" }.into());
        for (agent, epoch) in agents {
            arguments.push(agent.key.to_vec());
            arguments.push(match epoch {
                Ok(Epoch(epoch)) => format!("={epoch}").into_bytes(),
                Err(age) => format!("-{}", age.as_micros()).into_bytes(),
            });
            arguments.push(codec::write_agent(agent));
        }
        let (line, answer) = self.must(&scripts::PUT, &keys, arguments).await?;
        let claimed = answers::claimed(answer, agents.len());
        let claimed = claimed.ok_or_else(|| line.garbled("claims"))?;
        self.forget(member, &part.directory(), bucket, agents, &claimed).await?;
        Ok(claimed)
    }

    async fn take_out(
        &self,
        member: MemberId,
        bucket: Bucket,
        releases: Vec<&Release>,
    ) -> Result<(), Away> {
        let part = self.names.part(bucket);
        let keys = [part.directory(), part.of(member), part.changes()];
        let mut arguments = vec![member.to_string().into_bytes()];
        for Release { key, epoch, reason } in releases {
            arguments.push(key.as_bytes().to_vec());
            arguments.push(epoch.to_string().into_bytes());
            arguments.push(reason.as_bytes().to_vec());
        }
        self.must(&scripts::RELEASE, &keys, arguments).await.map(drop)
    }

    /// Lets the sets of the members that agents came from be without them.
    async fn forget(
        &self,
        member: MemberId,
        directory: &str,
        bucket: Bucket,
        agents: &[(&Agent, Result<Epoch, Duration>)],
        claimed: &[Claimed],
    ) -> Result<(), Away> {
        let mut moved = BTreeMap::<MemberId, Vec<&[u8]>>::new();
        for ((agent, _), claimed) in agents.iter().zip(claimed) {
            if let Claimed::Won { before: Some((from, _)), .. } = claimed
                && *from != member
            {
                moved.entry(*from).or_default().push(&agent.key);
            }
        }
        for (from, agents) in moved {
            let keys = [directory.to_owned(), self.names.part(bucket).of(from)];
            self.must(&scripts::FORGET, &keys, (from.to_string(), agents)).await?;
        }
        Ok(())
    }
}

fn command(name: &str, argument: impl ToRedisArgs) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(argument);
    command
}

impl Link for RedisLink {
    fn renew<'a>(
        &'a self,
        member: MemberId,
        about: &'a NodeInfo,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Roster, Away>> {
        async move {
            let about = serde_json::to_vec(about).unwrap_or_default();
            let keys = [self.names.roster(), self.names.nodes(), self.names.unburied()];
            let arguments = (member.to_string(), about, micros(lease));
            let (line, answer) = self.must(&scripts::RENEW, &keys, arguments).await?;
            let roster = answers::roster(answer).ok_or_else(|| line.garbled("a renewal"))?;
            line.clock.told(roster.now.0);
            let others = self.lines.all().iter().filter(|other| !std::ptr::eq(*other, line));
            try_join_all(others.map(read_clock)).await?;
            Ok(roster)
        }
        .boxed()
    }

    fn strike(&self, member: MemberId, within: Duration) -> BoxFuture<'_, Result<bool, Away>> {
        async move {
            let keys = [self.names.roster(), self.names.nodes(), self.names.unburied()];
            let arguments = (member.to_string(), micros(within));
            match self.must(&scripts::STRIKE, &keys, arguments).await? {
                (_, Value::Int(flag @ 0..=1)) => Ok(flag == 1),
                (line, _) => Err(line.garbled("a strike")),
            }
        }
        .boxed()
    }

    fn buried(&self, member: MemberId) -> BoxFuture<'_, Result<(), Away>> {
        async move {
            let unburied = self.names.unburied();
            let mut done = command("ZREM", &unburied);
            // Too late it does no harm: nobody is called like that again.
            done.arg(member.to_string());
            self.lines.to(&unburied)?.demand(done).await.map(drop)
        }
        .boxed()
    }

    fn retire(&self, member: MemberId) -> BoxFuture<'_, Result<(), Away>> {
        async move {
            let keys = [self.names.roster(), self.names.nodes()];
            self.must(&scripts::RETIRE, &keys, member.to_string()).await.map(drop)
        }
        .boxed()
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Claimed, Away>> {
        async move {
            let bucket = Bucket::of(AgentKey::from_bytes(claim.agent.key));
            let agent = [(&*claim.agent, Err(claim.age))];
            let mut claimed = self.put(claim.member, bucket, false, &agent).await?;
            // As many as were asked for.
            claimed.pop().ok_or_else(|| Away("no answer to a claim".into()))
        }
        .boxed()
    }

    fn release<'a>(
        &'a self,
        member: MemberId,
        releases: &'a [Release],
    ) -> BoxFuture<'a, Result<(), Away>> {
        async move {
            let mut parts = BTreeMap::<Bucket, Vec<&Release>>::new();
            for release in releases {
                parts.entry(Bucket::of(release.key)).or_default().push(release);
            }
            let mut calls = Vec::new();
            for (bucket, releases) in parts {
                for some in releases.chunks(RELEASED_AT_ONCE) {
                    calls.push(self.take_out(member, bucket, some.to_vec()));
                }
            }
            let done = stream::iter(calls).buffer_unordered(CALLS_AT_ONCE);
            done.try_for_each(|()| std::future::ready(Ok(()))).await
        }
        .boxed()
    }

    fn announce<'a>(
        &'a self,
        member: MemberId,
        bucket: Bucket,
        agents: &'a [Announced],
    ) -> BoxFuture<'a, Result<Vec<Outcome>, Away>> {
        async move {
            let put: Vec<_> =
                agents.iter().map(|Announced { agent, epoch }| (&**agent, *epoch)).collect();
            let claimed = self.put(member, bucket, true, &put).await?;
            let outcome = |(announced, claimed): (&Announced, _)| Outcome {
                key: AgentKey::from_bytes(announced.agent.key),
                claimed,
            };
            Ok(agents.iter().zip(claimed).map(outcome).collect())
        }
        .boxed()
    }

    fn describe<'a>(
        &'a self,
        member: MemberId,
        epoch: Epoch,
        agent: &'a Agent,
    ) -> BoxFuture<'a, Result<(), Away>> {
        async move {
            let part = self.names.part(Bucket::of(AgentKey::from_bytes(agent.key)));
            let about = codec::write_agent(agent);
            let arguments = (member.to_string(), epoch.0, agent.key.as_slice(), about);
            self.must(&scripts::DESCRIBE, &[part.directory()], arguments).await.map(drop)
        }
        .boxed()
    }

    fn find<'a>(&'a self, keys: &'a [AgentKey]) -> BoxFuture<'a, Result<Vec<Option<Entry>>, Away>> {
        async move {
            let mut parts = BTreeMap::<Bucket, Vec<usize>>::new();
            for (index, key) in keys.iter().enumerate() {
                parts.entry(Bucket::of(*key)).or_default().push(index);
            }
            let asked = parts.into_iter().map(|(bucket, indices)| async move {
                let directory = self.names.part(bucket).directory();
                let line = self.lines.to(&directory)?;
                let mut get = command("HMGET", directory);
                for index in &indices {
                    get.arg(keys[*index].as_bytes());
                }
                let answer = line.ask_again(&get).await?;
                let answer = answer.map_err(|error| line.fail(Fault::from(error)))?;
                let found = answers::found(answer, indices.iter().map(|index| keys[*index]));
                let found = found.ok_or_else(|| line.garbled("a search"))?;
                Ok::<_, Away>(indices.into_iter().zip(found))
            });
            let mut found = vec![None; keys.len()];
            let mut answered = stream::iter(asked).buffer_unordered(CALLS_AT_ONCE);
            while let Some(some) = answered.try_next().await? {
                for (index, entry) in some {
                    found[index] = entry;
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn entries(&self, member: MemberId, bucket: Bucket) -> BoxFuture<'_, Result<Vec<Entry>, Away>> {
        async move {
            let part = self.names.part(bucket);
            let keys = [part.directory(), part.of(member)];
            let (line, answer) = self.must(&scripts::ENTRIES, &keys, member.to_string()).await?;
            answers::entries(answer).ok_or_else(|| line.garbled("entries"))
        }
        .boxed()
    }

    fn missing<'a>(
        &'a self,
        member: MemberId,
        bucket: Bucket,
        agents: &'a [AgentKey],
    ) -> BoxFuture<'a, Result<Vec<usize>, Away>> {
        async move {
            let keys = [self.names.part(bucket).directory()];
            let mut arguments = vec![member.to_string().into_bytes()];
            arguments.extend(agents.iter().map(|key| key.as_bytes().to_vec()));
            let (line, answer) = self.must(&scripts::MISSING, &keys, arguments).await?;
            let missing = answers::missing(answer, agents.len());
            missing.ok_or_else(|| line.garbled("the missing"))
        }
        .boxed()
    }

    fn clear(
        &self,
        member: MemberId,
        bucket: Bucket,
        reason: &'static str,
    ) -> BoxFuture<'_, Result<(), Away>> {
        async move {
            let part = self.names.part(bucket);
            let keys = [part.directory(), part.of(member), part.changes()];
            self.must(&scripts::CLEAR, &keys, (member.to_string(), reason)).await.map(drop)
        }
        .boxed()
    }

    fn follow(&self, bucket: Bucket) -> BoxFuture<'_, Result<(), Away>> {
        async move { self.listen(&self.names.part(bucket).changes()).await }.boxed()
    }

    fn unfollow(&self, bucket: Bucket) -> BoxFuture<'_, Result<(), Away>> {
        async move {
            let channel = self.names.part(bucket).changes();
            self.shared.inbox.leave(&channel);
            self.lines.to(&channel)?.demand(command("SUNSUBSCRIBE", &channel)).await.map(drop)
        }
        .boxed()
    }

    fn unlisten(&self) -> BoxFuture<'_, Result<(), Away>> {
        async move {
            let channel = self.shared.inbox.frames();
            self.shared.inbox.leave(channel);
            self.lines.to(channel)?.demand(command("SUNSUBSCRIBE", channel)).await.map(drop)
        }
        .boxed()
    }

    fn publish(&self, to: MemberId, frames: Bytes) -> BoxFuture<'_, Result<bool, Away>> {
        let channel = self.names.member(to);
        let line = match self.lines.to(&channel) {
            Ok(line) => line,
            Err(why) => return std::future::ready(Err(why)).boxed(),
        };
        let mut publish = command("SPUBLISH", channel);
        publish.arg(&*frames);
        let publishing = line.demand(publish);
        async move {
            match publishing.await? {
                Value::Int(listeners) => Ok(listeners > 0),
                _ => Err(line.garbled("SPUBLISH")),
            }
        }
        .boxed()
    }

    fn ban<'a>(
        &'a self,
        bans: &'a [SharedBan],
        lifted: &'a [AgentKey],
    ) -> BoxFuture<'a, Result<bool, Away>> {
        bans::ban(self, bans, lifted).boxed()
    }

    fn bans(&self, known: Option<BansAt>) -> BoxFuture<'_, Result<Option<BanList>, Away>> {
        bans::bans(self, known).boxed()
    }

    fn state<'a>(
        &'a self,
        request: &'a StateRequest,
    ) -> BoxFuture<'a, Result<Result<StateReply, StateError>, Away>> {
        state::state(self, request).boxed()
    }

    fn latency(&self) -> Option<(Duration, Duration)> {
        self.shared.latency.look()
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
