//! The state as hooks meet it, against a simple model, and from many threads.

use std::{collections::BTreeMap, thread};

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn limits(max_entries: usize, max_bytes: usize) -> StateSettings {
    StateSettings { max_entries, max_bytes, max_key_bytes: 16, max_value_bytes: 32 }
}

fn roomy() -> Store {
    Store::new(&limits(10_000, 1 << 20))
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

const fn ms(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

#[test]
fn a_value_is_there_until_its_time_is_over() {
    let kv = roomy().namespace("a");
    kv.set(1000, "k", text("v"), ms(10)).unwrap();
    assert_eq!(kv.get(1009, "k"), Ok(Some(text("v"))));
    assert_eq!(kv.get(1010, "k"), Ok(None));
    kv.set(1000, "k", text("v"), None).unwrap();
    assert_eq!(kv.get(i64::MAX, "k"), Ok(Some(text("v"))));
    assert_eq!((kv.delete(0, "k"), kv.delete(0, "k")), (Ok(true), Ok(false)));
}

#[test]
fn no_time_at_all_leaves_nothing_and_part_of_a_millisecond_is_one() {
    let store = roomy();
    let kv = store.namespace("a");
    kv.set(5, "k", text("v"), None).unwrap();
    kv.set(5, "k", text("v"), Some(Duration::ZERO)).unwrap();
    assert_eq!(kv.get(5, "k"), Ok(None));
    assert_eq!(kv.incr(5, "n", 3, Some(Duration::ZERO)), Ok(3));
    assert_eq!(store.usage(), Usage::default());
    kv.set(5, "k", text("v"), Some(Duration::from_nanos(1))).unwrap();
    assert!(kv.get(5, "k").unwrap().is_some());
    assert_eq!((kv.expire(5, "k", Some(Duration::ZERO)), kv.get(5, "k")), (Ok(true), Ok(None)));
}

#[test]
fn names_have_keys_of_their_own_and_the_same_name_has_the_same() {
    let store = roomy();
    store.namespace("a").set(0, "k", text("a"), None).unwrap();
    store.namespace("b").set(0, "k", text("b"), None).unwrap();
    assert_eq!(store.namespace("a").get(0, "k"), Ok(Some(text("a"))));
    assert_eq!(store.clone().namespace("b").get(0, "k"), Ok(Some(text("b"))));
    assert_eq!(store.namespace("c").get(0, "k"), Ok(None));
}

#[test]
fn a_counter_with_a_time_is_a_window_from_its_first_count() {
    let kv = roomy().namespace("a");
    assert_eq!(kv.incr(0, "n", 1, ms(100)), Ok(1));
    assert_eq!(kv.incr(99, "n", 1, ms(100)), Ok(2));
    assert_eq!(kv.incr(100, "n", 1, ms(100)), Ok(1));
    assert_eq!(kv.expire(150, "n", None), Ok(true));
    assert_eq!(kv.incr(10_000, "n", 1, ms(100)), Ok(2));
}

#[test]
fn only_numbers_are_counted_and_only_within_their_range() {
    let kv = roomy().namespace("a");
    kv.set(0, "t", text("1"), None).unwrap();
    assert_eq!(kv.incr(0, "t", 1, None), Err(StateError::NotANumber));
    kv.set(0, "n", Value::Int(i64::MAX), None).unwrap();
    assert_eq!(kv.incr(0, "n", 1, None), Err(StateError::Overflow));
    assert_eq!(kv.get(0, "n"), Ok(Some(Value::Int(i64::MAX))));
    assert_eq!(kv.incr(0, "n", -1, None), Ok(i64::MAX - 1));
}

#[test]
fn a_swap_happens_if_the_present_value_is_the_expected_one() {
    let kv = roomy().namespace("a");
    assert_eq!(kv.cas(0, "k", Some(&text("x")), text("y"), None), Ok(false));
    assert_eq!(kv.cas(0, "k", None, text("x"), ms(10)), Ok(true));
    assert_eq!(kv.cas(9, "k", None, text("y"), None), Ok(false));
    assert_eq!(kv.cas(9, "k", Some(&Value::Json("x".into())), text("y"), None), Ok(false));
    assert_eq!(kv.cas(9, "k", Some(&text("x")), text("y"), ms(10)), Ok(true));
    assert_eq!(kv.get(18, "k"), Ok(Some(text("y"))));
    assert_eq!(kv.cas(19, "k", None, text("z"), None), Ok(true));
}

#[test]
fn keys_and_values_beyond_their_bounds_are_refused() {
    let kv = roomy().namespace("a");
    let (long, large) = ("k".repeat(17), text(&"v".repeat(33)));
    assert_eq!(kv.get(0, &long), Err(StateError::TooLong));
    assert_eq!(kv.incr(0, &long, 1, None), Err(StateError::TooLong));
    assert_eq!(kv.rate_limit(0, &long, 1, Duration::from_secs(1)), Err(StateError::TooLong));
    assert_eq!(kv.set(0, "k", large.clone(), None), Err(StateError::TooLong));
    assert_eq!(kv.cas(0, "k", None, large, None), Err(StateError::TooLong));
    assert_eq!(kv.get(0, "k"), Ok(None));
}

#[test]
fn at_the_bound_nothing_is_evicted_and_what_is_there_can_change_unless_it_grows() {
    let store = Store::new(&limits(2, 30));
    let kv = store.namespace("a");
    kv.set(0, "a", text("0123456789"), None).unwrap();
    kv.set(0, "b", Value::Int(1), None).unwrap();
    assert_eq!(kv.set(0, "c", Value::Int(1), None), Err(StateError::Full));
    assert_eq!(kv.incr(0, "c", 1, None), Err(StateError::Full));
    assert_eq!(kv.rate_limit(0, "c", 1, Duration::from_secs(1)), Err(StateError::Full));
    assert_eq!(kv.set(0, "a", text(&"x".repeat(21)), None), Err(StateError::Full));
    assert_eq!(store.usage(), Usage { entries: 2, bytes: 20, refusals: 4 });
    assert_eq!(kv.get(0, "a"), Ok(Some(text("0123456789"))));
    assert_eq!(kv.incr(0, "b", 1, None), Ok(2));
    kv.set(0, "a", text("01234567890123456789"), None).unwrap();
    kv.set(0, "a", text("x"), None).unwrap();
    assert_eq!(store.usage().bytes, 11);
    kv.delete(0, "b").unwrap();
    kv.set(0, "c", Value::Int(1), None).unwrap();
}

#[test]
fn what_expired_anywhere_makes_room_before_anything_is_refused() {
    let store = Store::new(&limits(1000, 1 << 20));
    let (kv, other) = (store.namespace("a"), store.namespace("b"));
    for index in 0..1000 {
        kv.set(0, &format!("k{index}"), Value::Int(1), ms(10)).unwrap();
    }
    assert_eq!(other.set(9, "k", Value::Int(1), None), Err(StateError::Full));
    for index in 0..1000 {
        other.set(10, &format!("k{index}"), Value::Int(1), None).unwrap();
    }
    assert_eq!(store.usage(), Usage { entries: 1000, bytes: store.usage().bytes, refusals: 1 });
}

#[test]
fn operations_give_back_the_room_of_what_expired() {
    let store = Store::new(&limits(100_000, 1 << 24));
    let kv = store.namespace("a");
    for index in 0..20_000 {
        kv.set(0, &format!("k{index}"), Value::Int(1), ms(10)).unwrap();
    }
    for index in 0..20_000 {
        kv.incr(10, &format!("n{index}"), 1, None).unwrap();
    }
    let entries = store.usage().entries;
    assert!((20_000..21_000).contains(&entries), "{entries}");
    store.sweep(10);
    assert_eq!(store.usage().entries, 20_000);
}

#[test]
fn a_rate_limit_takes_an_entry_until_its_burst_is_whole_again() {
    let store = roomy();
    let kv = store.namespace("a");
    let per = Duration::from_secs(1);
    kv.set(0, "k", text("beside it"), None).unwrap();
    let admitted: Vec<_> = (0..4).map(|_| kv.rate_limit(0, "k", 3, per).unwrap()).collect();
    assert_eq!(admitted, [true, true, true, false]);
    assert_eq!(kv.get(0, "k"), Ok(Some(text("beside it"))));
    store.sweep(999);
    assert_eq!(store.usage().entries, 2);
    store.sweep(1000);
    assert_eq!(store.usage().entries, 1);
    for (count, per) in [(0, per), (1, Duration::ZERO)] {
        assert_eq!(kv.rate_limit(0, "k", count, per), Err(StateError::BadRate));
    }
}

#[test]
fn a_clock_that_goes_back_harms_nothing() {
    let store = roomy();
    let kv = store.namespace("a");
    kv.set(1_000_000, "k", text("v"), ms(10)).unwrap();
    assert_eq!(kv.rate_limit(1_000_000, "r", 1, Duration::from_secs(1)), Ok(true));
    assert_eq!(kv.get(0, "k"), Ok(Some(text("v"))));
    assert_eq!(kv.rate_limit(0, "r", 1, Duration::from_secs(1)), Ok(false));
    assert_eq!(kv.rate_limit(1000, "r", 1, Duration::from_secs(1)), Ok(true));
    assert_eq!(kv.get(i64::MIN, "k"), Ok(Some(text("v"))));
    assert_eq!(kv.get(1_000_010, "k"), Ok(None));
}

#[test]
fn counts_from_many_threads_add_up() {
    let store = roomy();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let kv = store.namespace("a");
                for round in 0..2000 {
                    kv.incr(0, "shared", 1, None).unwrap();
                    kv.incr(0, &format!("n{}", round % 16), 1, None).unwrap();
                }
            });
        }
    });
    let kv = store.namespace("a");
    assert_eq!(kv.get(0, "shared"), Ok(Some(Value::Int(16_000))));
    assert_eq!(kv.get(0, "n7"), Ok(Some(Value::Int(1000))));
    assert_eq!(store.usage().entries, 17);
}

#[test]
fn of_many_threads_that_swap_one_wins() {
    let kv = roomy().namespace("a");
    for round in 0..200 {
        let swap = |me: i64| {
            let expected = (round > 0).then_some(Value::Int(-1));
            kv.cas(0, "k", expected.as_ref(), Value::Int(me), None).unwrap()
        };
        let winners: Vec<i64> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|me| scope.spawn(move || swap(me).then_some(me))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1);
        assert_eq!(kv.get(0, "k"), Ok(Some(Value::Int(winners[0]))));
        kv.set(0, "k", Value::Int(-1), None).unwrap();
    }
}

#[test]
fn the_bounds_hold_under_many_threads_and_everything_is_given_back() {
    let store = Store::new(&limits(50, 2000));
    thread::scope(|scope| {
        for me in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let kv = store.namespace("a");
                for round in 0..3000_i64 {
                    let key = format!("k{}", (round * 7 + me) % 200);
                    let _ = kv.set(round, &key, text("0123456789"), ms(round.unsigned_abs() % 20));
                    let _ = kv.rate_limit(round, &key, 2, Duration::from_millis(20));
                    let usage = store.usage();
                    assert!(usage.entries <= 50 && usage.bytes <= 2000, "{usage:?}");
                }
            });
        }
    });
    store.sweep(1_000_000);
    let Usage { entries, bytes, .. } = store.usage();
    assert_eq!((entries, bytes), (0, 0));
}

/// What a hook may do, to one of a few keys.
#[derive(Clone, Debug)]
enum Act {
    Wait(u16),
    Get,
    Set(Value, Option<u8>),
    Delete,
    Incr(i64, Option<u8>),
    Cas(Option<Value>, Value, Option<u8>),
    Expire(Option<u8>),
    Rate(u32, u8),
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-2_i64..3).prop_map(Value::Int),
        "[ab]{0,6}".prop_map(|text| Value::Text(text.as_str().into())),
        Just(Value::Int(i64::MAX)),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let ttl = || option::of(0_u8..40);
    prop_oneof![
        (0_u16..30).prop_map(Act::Wait),
        Just(Act::Get),
        (value(), ttl()).prop_map(|(value, ttl)| Act::Set(value, ttl)),
        Just(Act::Delete),
        (-2_i64..3, ttl()).prop_map(|(by, ttl)| Act::Incr(by, ttl)),
        (option::of(value()), value(), ttl())
            .prop_map(|(expected, value, ttl)| Act::Cas(expected, value, ttl)),
        ttl().prop_map(Act::Expire),
        (1_u32..4, 1_u8..30).prop_map(|(count, per)| Act::Rate(count, per)),
    ]
}

/// The same in the plainest words: one ordered map, swept whole before each operation.
#[derive(Default)]
struct Model {
    values: BTreeMap<(bool, u8), (Value, i64)>,
    /// A leaky bucket: what is in it, in nanoseconds, and when that was so.
    rates: BTreeMap<(bool, u8), (i64, i64)>,
}

const MAX_ENTRIES: usize = 6;
const MAX_BYTES: usize = 60;
/// All keys are "k" and a digit.
const KEY: usize = 2;

impl Model {
    fn sweep(&mut self, now: i64) {
        self.values.retain(|_, (_, expiry)| *expiry > now);
        self.rates.retain(|_, (level, at)| *level > (now - *at) * 1_000_000);
    }

    fn usage(&self) -> (usize, usize) {
        let values: usize = self.values.values().map(|(value, _)| KEY + value.size()).sum();
        (self.values.len() + self.rates.len(), values + self.rates.len() * (KEY + 8))
    }

    fn fits(&self, new: usize, bytes: usize) -> Result<(), StateError> {
        let usage = self.usage();
        let fits = usage.0 + new <= MAX_ENTRIES && usage.1 + bytes <= MAX_BYTES;
        if fits { Ok(()) } else { Err(StateError::Full) }
    }

    fn put(
        &mut self,
        key: (bool, u8),
        value: Value,
        now: i64,
        expiry: i64,
    ) -> Result<(), StateError> {
        if expiry <= now {
            self.values.remove(&key);
            return Ok(());
        }
        match self.values.get(&key) {
            Some((present, _)) if present.size() >= value.size() => {}
            Some((present, _)) => self.fits(0, value.size() - present.size())?,
            None => self.fits(1, KEY + value.size())?,
        }
        self.values.insert(key, (value, expiry));
        Ok(())
    }

    fn rate(
        &mut self,
        key: (bool, u8),
        now: i64,
        count: u32,
        per_ms: u8,
    ) -> Result<bool, StateError> {
        let interval = i64::from(per_ms) * 1_000_000 / i64::from(count);
        let whole = interval * i64::from(count);
        let level = self.rates.get(&key).map_or(0, |(level, at)| level - (now - at) * 1_000_000);
        if level + interval > whole {
            return Ok(false);
        }
        if !self.rates.contains_key(&key) {
            self.fits(1, KEY + 8)?;
        }
        self.rates.insert(key, (level + interval, now));
        Ok(true)
    }

    fn act(&mut self, key: (bool, u8), act: &Act, now: i64) -> String {
        let expiry = |ttl: &Option<u8>| ttl.map_or(i64::MAX, |ttl| now + i64::from(ttl));
        let present = self.values.get(&key).map(|(value, _)| value.clone());
        match act {
            Act::Wait(_) => String::new(),
            Act::Get => format!("{:?}", Ok::<_, StateError>(present)),
            Act::Set(value, ttl) => format!("{:?}", self.put(key, value.clone(), now, expiry(ttl))),
            Act::Delete => format!("{:?}", Ok::<_, StateError>(self.values.remove(&key).is_some())),
            Act::Incr(by, ttl) => {
                let sum = match present {
                    None => self.put(key, Value::Int(*by), now, expiry(ttl)).map(|()| *by),
                    Some(Value::Int(number)) => match number.checked_add(*by) {
                        Some(sum) => {
                            self.values
                                .entry(key)
                                .and_modify(|(value, _)| *value = Value::Int(sum));
                            Ok(sum)
                        }
                        None => Err(StateError::Overflow),
                    },
                    Some(_) => Err(StateError::NotANumber),
                };
                format!("{sum:?}")
            }
            Act::Cas(expected, value, ttl) => {
                let swapped = if present == *expected {
                    self.put(key, value.clone(), now, expiry(ttl)).map(|()| true)
                } else {
                    Ok(false)
                };
                format!("{swapped:?}")
            }
            Act::Expire(ttl) => {
                self.values.entry(key).and_modify(|(_, present)| *present = expiry(ttl));
                format!("{:?}", Ok::<_, StateError>(present.is_some()))
            }
            Act::Rate(count, per) => format!("{:?}", self.rate(key, now, *count, *per)),
        }
    }
}

fn act_on(kv: &Namespace, key: &str, act: &Act, now: i64) -> String {
    let time = |ttl: &Option<u8>| ttl.map(|ttl| Duration::from_millis(ttl.into()));
    match act {
        Act::Wait(_) => String::new(),
        Act::Get => format!("{:?}", kv.get(now, key)),
        Act::Set(value, ttl) => format!("{:?}", kv.set(now, key, value.clone(), time(ttl))),
        Act::Delete => format!("{:?}", kv.delete(now, key)),
        Act::Incr(by, ttl) => format!("{:?}", kv.incr(now, key, *by, time(ttl))),
        Act::Cas(expected, value, ttl) => {
            format!("{:?}", kv.cas(now, key, expected.as_ref(), value.clone(), time(ttl)))
        }
        Act::Expire(ttl) => format!("{:?}", kv.expire(now, key, time(ttl))),
        Act::Rate(count, per) => {
            format!("{:?}", kv.rate_limit(now, key, *count, Duration::from_millis((*per).into())))
        }
    }
}

proptest! {
    #[test]
    fn the_state_does_what_the_model_does(
        acts in vec((any::<bool>(), 0_u8..5, act()), 1..200)
    ) {
        let store = Store::new(&limits(MAX_ENTRIES, MAX_BYTES));
        let namespaces = [store.namespace("a"), store.namespace("b")];
        let mut model = Model::default();
        let mut now = 1_700_000_000_000;
        for (second, digit, act) in acts {
            if let Act::Wait(millis) = act {
                now += i64::from(millis);
            }
            model.sweep(now);
            let expected = model.act((second, digit), &act, now);
            let done = act_on(&namespaces[usize::from(second)], &format!("k{digit}"), &act, now);
            prop_assert_eq!(done, expected, "{:?}", act);
        }
        model.sweep(now);
        store.sweep(now);
        let usage = store.usage();
        prop_assert_eq!((usage.entries, usage.bytes), model.usage());
    }
}
