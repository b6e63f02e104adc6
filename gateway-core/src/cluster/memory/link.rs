//! One member's link: what it asks of the engine, each as the engine is at that moment.

use super::*;

#[derive(Debug)]
pub(super) struct MemoryLink {
    pub(super) engine: MemoryEngine,
    pub(super) id: u64,
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.engine.0.lock().links.remove(&self.id);
    }
}

impl MemoryLink {
    /// Does something under the engine's lock, unless the link is cut.
    fn done<'a, T: Send + 'a>(
        &'a self,
        what: impl FnOnce(&mut Inner) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, Away>> {
        async move {
            let mut inner = self.engine.0.lock();
            if !inner.links.contains_key(&self.id) {
                return Err(Away("the link was cut".into()));
            }
            Ok(what(&mut inner))
        }
        .boxed()
    }

    fn written<'a, T: Send + 'a>(
        &'a self,
        what: impl FnOnce(&mut Inner) -> T + Send + 'a,
    ) -> BoxFuture<'a, Result<T, Away>> {
        self.done(|inner| {
            inner.writes += 1;
            what(inner)
        })
    }
}

impl Link for MemoryLink {
    fn renew<'a>(
        &'a self,
        member: MemberId,
        about: &'a NodeInfo,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Roster, Away>> {
        self.written(move |inner| {
            let now = Instant::now();
            let entered = inner.roster.insert(member, (about.clone(), now + lease)).is_none();
            let listed = |(member, (info, until)): (&MemberId, &(NodeInfo, Instant))| Listed {
                member: *member,
                info: info.clone(),
                left: until.saturating_duration_since(now),
            };
            let late = inner.unburied.iter().filter(|(_, until)| **until <= now);
            Roster {
                members: inner.roster.iter().map(listed).collect(),
                entered,
                unburied: late.map(|(member, _)| *member).collect(),
                now: Epoch(inner.micros()),
            }
        })
    }

    fn strike(&self, member: MemberId, within: Duration) -> BoxFuture<'_, Result<bool, Away>> {
        self.written(move |inner| {
            let now = Instant::now();
            let listed = inner.roster.get(&member).map(|(_, until)| *until);
            let until = listed.or_else(|| inner.unburied.get(&member).copied());
            let struck = until.is_some_and(|until| until <= now);
            if struck {
                inner.roster.remove(&member);
                inner.unburied.insert(member, now + within);
            }
            struck
        })
    }

    fn buried(&self, member: MemberId) -> BoxFuture<'_, Result<(), Away>> {
        self.written(move |inner| {
            inner.unburied.remove(&member);
        })
    }

    fn retire(&self, member: MemberId) -> BoxFuture<'_, Result<(), Away>> {
        self.written(move |inner| {
            inner.roster.remove(&member);
        })
    }

    fn claim<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Claimed, Away>> {
        self.written(|inner| {
            let knows_ages = inner.knows_ages();
            inner.put(claim.member, &claim.agent, Err(claim.age), knows_ages)
        })
    }

    fn release<'a>(
        &'a self,
        member: MemberId,
        releases: &'a [Release],
    ) -> BoxFuture<'a, Result<(), Away>> {
        self.written(move |inner| {
            for Release { key, epoch, reason } in releases {
                inner.remove(member, *key, *epoch, reason);
            }
        })
    }

    fn announce<'a>(
        &'a self,
        member: MemberId,
        bucket: Bucket,
        agents: &'a [Announced],
    ) -> BoxFuture<'a, Result<Vec<Outcome>, Away>> {
        self.written(move |inner| {
            let kept: BTreeSet<_> = agents.iter().map(|announced| announced.agent.key).collect();
            for entry in inner.of(member, bucket) {
                if !kept.contains(entry.key.as_bytes()) {
                    inner.remove(member, entry.key, entry.epoch, "gone");
                }
            }
            let knows_ages = inner.knows_ages();
            let put = |Announced { agent, epoch }: &Announced| Outcome {
                key: AgentKey::from_bytes(agent.key),
                claimed: inner.put(member, agent, *epoch, knows_ages),
            };
            agents.iter().map(put).collect()
        })
    }

    fn describe<'a>(
        &'a self,
        member: MemberId,
        epoch: Epoch,
        agent: &'a Agent,
    ) -> BoxFuture<'a, Result<(), Away>> {
        self.written(move |inner| {
            if let Some(entry) = inner.directory.get_mut(&AgentKey::from_bytes(agent.key))
                && (entry.member, entry.epoch) == (member, epoch)
            {
                entry.agent = Arc::new(agent.clone());
            }
        })
    }

    fn find<'a>(&'a self, keys: &'a [AgentKey]) -> BoxFuture<'a, Result<Vec<Option<Entry>>, Away>> {
        self.done(|inner| {
            assert!(!std::mem::take(&mut inner.breaks), "a test wants this lookup to break");
            keys.iter().map(|key| inner.directory.get(key).cloned()).collect()
        })
    }

    fn entries(&self, member: MemberId, bucket: Bucket) -> BoxFuture<'_, Result<Vec<Entry>, Away>> {
        self.done(move |inner| inner.of(member, bucket))
    }

    fn missing<'a>(
        &'a self,
        member: MemberId,
        _bucket: Bucket,
        agents: &'a [AgentKey],
    ) -> BoxFuture<'a, Result<Vec<usize>, Away>> {
        self.done(move |inner| {
            let is_down = |key| inner.directory.get(key).is_some_and(|it| it.member == member);
            let missing = agents.iter().enumerate().filter(|(_, key)| !is_down(key));
            missing.map(|(place, _)| place).collect()
        })
    }

    fn clear(
        &self,
        member: MemberId,
        bucket: Bucket,
        reason: &'static str,
    ) -> BoxFuture<'_, Result<(), Away>> {
        self.written(move |inner| {
            for entry in inner.of(member, bucket) {
                inner.remove(member, entry.key, entry.epoch, reason);
            }
        })
    }

    fn follow(&self, bucket: Bucket) -> BoxFuture<'_, Result<(), Away>> {
        self.done(move |inner| {
            if let Some(listener) = inner.links.get_mut(&self.id) {
                listener.followed.insert(bucket);
            }
        })
    }

    fn unfollow(&self, bucket: Bucket) -> BoxFuture<'_, Result<(), Away>> {
        self.done(move |inner| {
            if let Some(listener) = inner.links.get_mut(&self.id) {
                listener.followed.remove(&bucket);
            }
        })
    }

    fn unlisten(&self) -> BoxFuture<'_, Result<(), Away>> {
        self.done(move |inner| {
            if let Some(listener) = inner.links.get_mut(&self.id) {
                listener.listens = false;
                // Where there is no room, whoever waits for it does so in vain.
                let _ = listener.events.try_send(LinkEvent::Unlistened);
            }
        })
    }

    fn publish(&self, to: MemberId, frames: Bytes) -> BoxFuture<'_, Result<bool, Away>> {
        // At once, since the order of the calls counts.
        let mut inner = self.engine.0.lock();
        let heard = match inner.links.contains_key(&self.id) {
            true => Ok(inner.hand_out(
                |listener| listener.member == to && listener.listens,
                || LinkEvent::Frames(frames.clone()),
            )),
            false => Err(Away("the link was cut".into())),
        };
        std::future::ready(heard).boxed()
    }

    fn ban<'a>(
        &'a self,
        bans: &'a [SharedBan],
        lifted: &'a [AgentKey],
    ) -> BoxFuture<'a, Result<bool, Away>> {
        self.written(|inner| {
            let now = Instant::now();
            let mut after = inner.bans.clone();
            after.retain(|key, (_, until)| *until > now && !lifted.contains(key));
            after.extend(bans.iter().map(|ban| (ban.key, (ban.about.clone(), now + ban.left))));
            let fits = after.len() <= MAX_BANS;
            if fits {
                let BansAt { origin, version } = inner.bans_at;
                let origin = if origin == 0 { inner.micros() } else { origin };
                inner.bans_at = BansAt { origin, version: version + 1 };
                inner.bans = after;
            }
            fits
        })
    }

    fn bans(&self, known: Option<BansAt>) -> BoxFuture<'_, Result<Option<BanList>, Away>> {
        self.done(move |inner| {
            let (at, now) = (inner.bans_at, Instant::now());
            let ban = |(key, (about, until)): (&AgentKey, &(BanAbout, Instant))| SharedBan {
                key: *key,
                left: until.saturating_duration_since(now),
                about: about.clone(),
            };
            let bans = || inner.bans.iter().map(ban).filter(|ban| !ban.left.is_zero()).collect();
            (known != Some(at)).then(|| BanList { at, bans: bans() })
        })
    }

    fn state<'a>(
        &'a self,
        request: &'a StateRequest,
    ) -> BoxFuture<'a, Result<Result<StateReply, StateError>, Away>> {
        self.written(|inner| {
            let now = i64::try_from(inner.micros() / 1000).unwrap_or(i64::MAX);
            let StateRequest { namespace, key, operation } = request;
            let space = inner.state.namespace(namespace);
            Ok(match operation.clone() {
                StateOperation::Get => StateReply::Value(space.get(now, key)?),
                StateOperation::Set { value, ttl } => {
                    space.set(now, key, value, ttl).map(|()| StateReply::Done)?
                }
                StateOperation::Delete => StateReply::Flag(space.delete(now, key)?),
                StateOperation::Incr { by, ttl } => {
                    StateReply::Number(space.incr(now, key, by, ttl)?)
                }
                StateOperation::Cas { expected, value, ttl } => {
                    StateReply::Flag(space.cas(now, key, expected.as_ref(), value, ttl)?)
                }
                StateOperation::Expire { ttl } => StateReply::Flag(space.expire(now, key, ttl)?),
                StateOperation::RateLimit { count, per } => {
                    StateReply::Flag(space.rate_limit(now, key, count, per)?)
                }
            })
        })
    }
}
