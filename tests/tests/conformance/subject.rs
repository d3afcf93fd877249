//! What a kind of target tells of itself, so that the rules can be put to it.

use std::ops::RangeInclusive;

use pgflow_executor::job::{Target, Work};

/// Where a connection was lost, seen from the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The work never arrived.
    Before,
    /// It was being done, and the server lives.
    During,
    /// It was done; only the answer is missing.
    After,
    /// The server was killed while it was being done.
    Restart,
}

/// A server of a kind and jobs for it. "Effects" are traces that work leaves there, each with a key; the gate is what some
/// of the work waits for, so that a rule knows that it is being done.
pub trait Subject: Sized {
    /// The word in `Target::kind`.
    const KIND: &'static str;

    /// Whether the server of the tests survives half a request.
    const TAKES_HALVES: bool = true;

    /// Starts a server of its own, with the gate open.
    fn start() -> Self;

    /// Where it listens.
    fn port(&self) -> u16;

    /// Kills it; what it had not stored is gone.
    fn kill(&self);

    fn start_again(&self);

    /// The target that leads to this port of this machine, with the right credentials. Kind and fingerprint are filled in.
    fn target(&self, port: u16) -> Target;

    /// The same with wrong credentials.
    fn stranger(&self, port: u16) -> Target;

    /// Credentials: none of them may ever be seen.
    fn secrets(&self) -> Vec<String>;

    /// Leaves an effect. The key must travel in plain text, as part of what asks for the work.
    fn effect(&self, key: &str) -> Work;

    /// Leaves an effect too, but has ended only when the gate is open.
    fn gated_effect(&self, key: &str) -> Work;

    fn close_gate(&self);

    fn open_gate(&self);

    /// How much gated work the server has in hand, whether anybody waits for it or not.
    fn running(&self) -> usize;

    /// The effects of a key: for each what a receiver can tell repetitions by, or nothing.
    fn effects(&self, key: &str) -> Vec<String>;

    /// Returns so many rows, each with the columns `n` (a number from 1 on) and `t` (a text).
    fn rows(&self, count: u32) -> Work;

    /// Returns at least so many bytes, and the CSV of them would be no smaller.
    fn large(&self, bytes: u64) -> Work;

    /// Fails over there, with this code.
    fn failing(&self) -> (Work, &'static str);

    /// Cannot be understood over there, with this code.
    fn bad(&self) -> (Work, &'static str);

    /// The code of wrong credentials.
    fn refused(&self) -> &'static str;

    /// Fails over there, with a message that holds the value of the secret `token`.
    fn leaking(&self) -> Work;

    /// What the first answer to work that has been done begins with (or holds).
    fn answer(&self) -> &'static [u8];

    /// What the look at the attempt before cannot do without on its way to the server; None: there is no look.
    fn look(&self) -> Option<&'static [u8]>;

    /// How often an effect may be there when an attempt was lost and the next one has finished: the promise of the kind.
    fn promise(&self, loss: Loss) -> RangeInclusive<usize>;
}
