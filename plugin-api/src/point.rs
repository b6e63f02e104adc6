//! The points at which hooks are called, and sets of them.

use std::fmt;

/// What the gateway makes of a hook's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointKind {
    /// It decides.
    Verdict,
    /// It is told, after the fact and in per-agent order; its answer must be empty.
    Observer,
    /// It is about the hook's own instance; its answer must be empty.
    Lifecycle,
}

macro_rules! points {
    ($( $(#[doc = $doc:literal])+ $Point:ident = $name:literal, $kind:ident; )+) => {
        /// A place in the gateway where hooks are called.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Point { $( $(#[doc = $doc])+ $Point, )+ }

        impl Point {
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$( Self::$Point, )+];

            /// What it is called in configuration, scripts and logs: `on_route`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$Point => $name, )+ }
            }

            /// What becomes of an answer.
            #[must_use]
            pub const fn kind(self) -> PointKind {
                match self { $( Self::$Point => PointKind::$kind, )+ }
            }

            /// The point of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $( $name => Some(Self::$Point), )+ _ => None }
            }
        }
    };
}

points! {
    /// Somebody asks for a WebSocket: address, path, query, headers.
    Connect = "on_connect", Verdict;
    /// A proof is valid, nothing is stored yet.
    Register = "on_register", Verdict;
    /// A message is valid and verified.
    Route = "on_route", Verdict;
    /// A message's target is absent.
    Undeliverable = "on_undeliverable", Verdict;
    /// An agent wants to follow another's presence.
    Watch = "on_watch", Verdict;
    /// An agent's lease ran out.
    Expire = "on_expire", Verdict;
    /// An agent is registered, or has renewed its registration.
    Registered = "on_registered", Observer;
    /// A newer session of the same key took over.
    Replaced = "on_replaced", Observer;
    /// The kernel has a message's last byte.
    Delivered = "on_delivered", Observer;
    /// A registered session ended, whatever the reason.
    Disconnect = "on_disconnect", Observer;
    /// An agent said UNREGISTER.
    Unregister = "on_unregister", Observer;
    /// The instance begins to serve.
    Start = "on_start", Lifecycle;
    /// The instance is about to be dropped.
    Stop = "on_stop", Lifecycle;
    /// A newer generation runs, and this instance is carried over into it.
    Reload = "on_reload", Lifecycle;
    /// Time passes: every `tick` of the instance's configuration.
    Tick = "on_tick", Lifecycle;
    /// Another hook failed, timed out or was quarantined.
    HookError = "on_hook_error", Observer;
}

impl Point {
    /// Its number, below [`Self::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The point of that number.
    #[must_use]
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// Whether hooks decide here.
    #[must_use]
    pub const fn is_verdict(self) -> bool {
        matches!(self.kind(), PointKind::Verdict)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of points: bit `n` stands for the point with number `n`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PointSet(u32);

impl PointSet {
    /// No point.
    pub const EMPTY: Self = Self(0);

    /// The set of these.
    #[must_use]
    pub const fn of(points: &[Point]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < points.len() {
            bits |= 1 << points[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    /// From the bits of [`Self::bits`]; `None` when a bit stands for no point known here.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits >> Point::COUNT == 0 { Some(Self(bits)) } else { None }
    }

    /// Bit `n` stands for the point with number `n`.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether it has this point.
    #[must_use]
    pub const fn contains(self, point: Point) -> bool {
        self.0 & (1 << point as u32) != 0
    }

    /// With this point in it.
    #[must_use]
    pub const fn with(self, point: Point) -> Self {
        Self(self.0 | 1 << point as u32)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its points in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Point> {
        Point::ALL.iter().copied().filter(move |point| self.contains(*point))
    }
}

impl fmt::Debug for PointSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Point::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_their_points() {
        for (index, point) in Point::ALL.iter().copied().enumerate() {
            assert_eq!(point.index(), index);
            assert_eq!(Point::from_index(index), Some(point));
            assert_eq!(Point::from_name(point.name()), Some(point));
        }
        assert_eq!(Point::from_name("on_nothing"), None);
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        const SET: PointSet = PointSet::of(&[Point::Route, Point::Expire]);
        assert_eq!(SET.iter().collect::<Vec<_>>(), [Point::Route, Point::Expire]);
        assert_eq!(PointSet::from_bits(SET.bits()), Some(SET));
        assert_eq!(PointSet::from_bits(1 << 31), None);
    }
}
