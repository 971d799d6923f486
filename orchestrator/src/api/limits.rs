//! What one caller may cost: bytes, seconds, connections, requests. Every number has a default that suits.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// The limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once of one peer: an IPv4 address, or 64 bits of an IPv6 one.
    pub connections_per_peer: usize,
    /// Of these, in all and of each peer, as many are for those alone that have shown a certificate of the service's own authority; at
    /// most half.
    pub connections_kept: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the head of a connection's first request may take.
    pub head: Duration,
    /// How long a connection may be idle between two requests, or send the head of a later one.
    pub idle: Duration,
    /// How long a request's body may take.
    pub body: Duration,
    /// How long the service may take to answer a request that it has read.
    pub answer: Duration,
    /// How long a client may take nothing of what is sent to it: of all that is written to its connection, and of each answer by itself.
    /// Of an answer, less than 1 KiB for each second of this is nothing.
    pub stall: Duration,
    /// How long requests that are under way may go on when the service ends.
    pub drain: Duration,
    /// Bytes of a request's head; HTTP/1.1 takes no less than 8 KiB.
    pub head_bytes: u32,
    /// Header fields of an HTTP/1.1 request.
    pub headers: usize,
    /// Requests at once of one HTTP/2 connection.
    pub streams: u32,
    /// How often an HTTP/2 connection is asked whether it lives, and how long it may take to say so.
    pub ping: Duration,
    /// Watchers at once. One caller may have three times as many as are left for others.
    pub watchers: usize,
    /// Bytes of large answers that were not taken yet, shared in the same way.
    pub answers: usize,
    /// How often a watcher is shown that the connection is still good.
    pub comment: Duration,
    /// How often a watcher is told of progress, at most.
    pub progress: Duration,
    /// How long a watcher of all runs waits, once it was told something, until it is told more: of many runs, much at once.
    pub gather: Duration,
    /// Requests of one peer, of all there that have not proven who they are; and of each that has, for itself.
    pub per_peer: Rate,
    /// Requests of one agent's attempt.
    pub per_caller: Rate,
    /// Requests of one person, or of the platform that has their token.
    pub per_person: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            connections_per_peer: 256,
            connections_kept: 64,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            head_bytes: 16 << 10,
            headers: 64,
            streams: 64,
            ping: Duration::from_secs(20),
            watchers: 256,
            answers: 64 << 20,
            comment: Duration::from_secs(15),
            progress: Duration::from_secs(1),
            gather: Duration::from_millis(100),
            per_peer: Rate { per_second: 500, burst: 1000 },
            per_caller: Rate { per_second: 100, burst: 200 },
            per_person: Rate { per_second: 100, burst: 200 },
        }
    }
}

/// How many requests: so many at once, and so many more each second. Zero counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Each second.
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}

impl Rate {
    /// This, or so many each second where that is more, and twice as many at once.
    #[must_use]
    pub fn at_least(self, per_second: u32) -> Self {
        let burst = self.burst.max(per_second.saturating_mul(2));
        Rate { per_second: self.per_second.max(per_second), burst }
    }
}

/// Who counts as one peer. An IPv6 host has a whole /64 to choose its addresses from.
pub(super) fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

/// Counts requests, each caller's on its own.
pub(super) struct Pace<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    /// After how many more requests callers that have been quiet are forgotten.
    left: AtomicUsize,
}

/// After how many requests callers that have been quiet are forgotten, at least. Where there are many callers, after some of each: all of
/// them have to be looked at for that.
const FORGET: usize = 4096;
const FORGET_OF_EACH: usize = 8;

impl<K: Hash + Eq + Clone> Pace<K> {
    pub(super) fn new(rate: Rate) -> Self {
        let count = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(count(rate.per_second)).allow_burst(count(rate.burst));
        Pace { limiter: RateLimiter::keyed(quota), left: AtomicUsize::new(FORGET) }
    }

    /// Whether this caller may ask now; else how long it should wait.
    pub(super) fn ask(&self, caller: &K) -> Result<(), Duration> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        // Whoever comes while it is looked finds it below nothing, and goes on.
        if left == 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            self.left.store(FORGET.max(self.limiter.len() * FORGET_OF_EACH), Ordering::Relaxed);
        }
        self.limiter.check_key(caller).map_err(|not_yet| not_yet.wait_time_from(DefaultClock::default().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_too_often_waits_and_nobody_else_does() {
        let pace = Pace::new(Rate { per_second: 1, burst: 3 });
        for _ in 0..3 {
            pace.ask(&"a").unwrap();
        }
        let wait = pace.ask(&"a").unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        pace.ask(&"b").unwrap();
    }

    #[test]
    fn callers_that_are_quiet_are_forgotten() {
        let pace = Pace::new(Rate { per_second: 1_000_000, burst: 1 });
        for caller in 0..2 * FORGET {
            pace.ask(&caller).unwrap();
        }
        assert!(pace.limiter.len() <= FORGET, "{} callers are kept", pace.limiter.len());
    }

    #[test]
    fn a_peer_is_an_address_or_a_network_of_64_bits() {
        let same = |a: &str, b: &str| peer(a.parse().unwrap()) == peer(b.parse().unwrap());
        assert!(same("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
    }
}
