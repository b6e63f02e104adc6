//! Duties 11, 12 and 14 from the side of whoever breaks the rules: each row of these tables has one
//! exact answer, and two bystanders who notice nothing.
//!
//! From the outside in: what is no handshake, what is no frame, what is no message, and what is
//! everything at once while nothing is read.

mod floods;
mod frames;
mod handshakes;
mod messages;
mod tables;
