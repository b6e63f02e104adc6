//! The kinds of load. Each sets its agents up, says what they do, and reports what came of it.

pub(super) mod churn;
pub(super) mod fanin;
pub(super) mod idle;
pub(super) mod rate;
pub(super) mod register;
pub(super) mod route;
