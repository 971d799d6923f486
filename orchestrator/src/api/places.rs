//! Who may have a connection, when there are more than there may be.
//!
//! Whose a connection is says its handshake alone, and until then an agent is a stranger among strangers. So those whose handshake is not
//! done are let go, the oldest first, when others come: whoever means it is through before. Those that have shown a certificate of the
//! service's own authority have places that nobody else can take, and the others cannot take all that is left from those that come. Of
//! these others, browsers and agents that enrol among them, those go first, the oldest first, of whom no request has proven who it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::Digest;
use tokio_util::sync::CancellationToken;

use super::limits::Limits;

/// One of so many of the places that nobody else has is for handshakes alone.
const OF_HANDSHAKES: usize = 4;
/// One of so many of a peer's places one certificate may have.
const OF_ONE: usize = 4;

/// The places of all connections.
#[derive(Clone)]
pub(super) struct Places(Arc<Mutex<Taken>>);

struct Taken {
    all: Scope,
    peers: HashMap<IpAddr, Scope>,
    /// Whose handshake is not done, the oldest first.
    shaking: Waiting,
    /// Those that have shown nothing and proven nothing, the oldest first.
    unproven: Waiting,
    /// Those that have shown nothing, and have proven who they are by what they asked.
    proven: HashSet<u64>,
    keys: HashMap<Digest, usize>,
    next: u64,
    sizes: Sizes,
    sizes_of_peer: Sizes,
    most_of_key: usize,
}

/// Connections that may be let go, by their numbers, and how they are told.
type Waiting = BTreeMap<u64, (IpAddr, CancellationToken)>;

/// How many places there are, in all or of one peer.
#[derive(Clone, Copy)]
struct Sizes {
    most: usize,
    /// Of these, for those that have shown nothing, or not yet.
    open: usize,
    /// Of these, for those whose handshake is not done.
    handshakes: usize,
}

impl Sizes {
    fn new(most: usize, kept: usize, is_tls: bool) -> Self {
        // Without TLS nobody can show anything.
        let open = if is_tls { most - kept.min(most / 2) } else { most };
        Sizes { most, open, handshakes: if is_tls { open.div_ceil(OF_HANDSHAKES) } else { 0 } }
    }
}

/// Who has places, in all or of one peer.
#[derive(Default)]
struct Scope {
    shaking: BTreeSet<u64>,
    unproven: BTreeSet<u64>,
    proven: usize,
    shown: usize,
}

impl Scope {
    fn all(&self) -> usize {
        self.shaking.len() + self.strangers() + self.shown
    }

    fn strangers(&self) -> usize {
        self.unproven.len() + self.proven
    }

    fn takes_one_more(&self, sizes: &Sizes) -> bool {
        self.all() < sizes.most && self.shaking.len() + self.strangers() < sizes.open
    }

    fn takes_a_stranger(&self, sizes: &Sizes) -> bool {
        self.strangers() < sizes.open - sizes.handshakes
    }

    fn takes_a_certificate(&self, sizes: &Sizes) -> bool {
        self.shown < sizes.most - sizes.handshakes
    }
}

/// A connection's place. It is free again when this is dropped.
pub(super) struct Place {
    of: Places,
    peer: IpAddr,
    standing: Standing,
    took: Option<&'static str>,
}

enum Standing {
    /// Its handshake is not done. It may have been let go, which the token tells.
    Shaking(u64, CancellationToken),
    /// It has shown nothing. As long as it has proven nothing either it may be let go, which the token tells.
    Stranger(u64, CancellationToken),
    /// It has shown a certificate of the service's own authority, over this key.
    Shown(Digest),
    /// It has no place any more.
    Gone,
}

/// By which a connection that has shown nothing is told that a request of it has proven who it is.
#[derive(Clone)]
pub(super) struct Proof {
    of: Places,
    number: u64,
}

impl Proof {
    /// It keeps its place from now on.
    pub(super) fn is_given(&self) {
        let mut taken = self.of.taken();
        if let Some((peer, _)) = taken.unproven.remove(&self.number) {
            taken.change(peer, |scope| {
                scope.unproven.remove(&self.number);
                scope.proven += 1;
            });
            taken.proven.insert(self.number);
        }
    }
}

const ALL: &str = "there are as many as there may be";
const OF_PEER: &str = "its peer has as many as one peer may have";
const OF_STRANGERS: &str =
    "those that have shown no certificate have as many as they may have, and each has proven who it is";

impl Places {
    /// As these limits say. Where there is no TLS there are no handshakes, and each is a stranger.
    pub(super) fn new(limits: &Limits, is_tls: bool) -> Self {
        let sizes = |most| Sizes::new(most, limits.connections_kept, is_tls);
        Places(Arc::new(Mutex::new(Taken {
            all: Scope::default(),
            peers: HashMap::new(),
            shaking: Waiting::new(),
            unproven: Waiting::new(),
            proven: HashSet::new(),
            keys: HashMap::new(),
            next: 0,
            sizes: sizes(limits.connections),
            sizes_of_peer: sizes(limits.connections_per_peer),
            most_of_key: limits.connections_per_peer.div_ceil(OF_ONE),
        })))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of this peer that has shown nothing yet.
    pub(super) fn take(&self, peer: IpAddr) -> Result<Place, &'static str> {
        let mut taken = self.taken();
        let Taken { sizes, sizes_of_peer, .. } = *taken;
        let mut took = None;
        if let Some(of_peer) = taken.peers.get(&peer).filter(|of_peer| !of_peer.takes_one_more(&sizes_of_peer)) {
            let oldest = of_peer.shaking.first().copied();
            took = Some(taken.let_go(oldest, OF_PEER)?);
        }
        if !taken.all.takes_one_more(&sizes) {
            let oldest = taken.shaking.first_key_value().map(|(number, _)| *number);
            took = Some(taken.let_go(oldest, ALL)?);
        }
        let of = self.clone();
        taken.next += 1;
        let (number, wanted) = (taken.next, CancellationToken::new());
        if sizes.handshakes == 0 {
            taken.change(peer, |scope| scope.proven += 1);
            taken.proven.insert(number);
            return Ok(Place { of, peer, standing: Standing::Stranger(number, wanted), took });
        }
        taken.shaking.insert(number, (peer, wanted.clone()));
        taken.change(peer, |scope| _ = scope.shaking.insert(number));
        Ok(Place { of, peer, standing: Standing::Shaking(number, wanted), took })
    }
}

impl Taken {
    /// Does this to the peer's scope and to that of all.
    fn change(&mut self, peer: IpAddr, change: impl Fn(&mut Scope)) {
        change(&mut self.all);
        let of_peer = self.peers.entry(peer).or_default();
        change(of_peer);
        if of_peer.all() == 0 {
            self.peers.remove(&peer);
        }
    }

    /// Takes the place of one whose handshake is not done, where there is one.
    fn let_go(&mut self, number: Option<u64>, full: &'static str) -> Result<&'static str, &'static str> {
        number.and_then(|number| self.end_handshake(number)).ok_or(full)?.cancel();
        Ok(full)
    }

    /// Lets go who has proven nothing, where those that have shown nothing have as many as they may have.
    fn room_for_a_stranger(&mut self, peer: IpAddr) -> Option<()> {
        let Taken { sizes, sizes_of_peer, .. } = *self;
        if let Some(of_peer) = self.peers.get(&peer).filter(|of_peer| !of_peer.takes_a_stranger(&sizes_of_peer)) {
            let oldest = of_peer.unproven.first().copied();
            self.let_stranger_go(oldest)?;
        }
        if !self.all.takes_a_stranger(&sizes) {
            let oldest = self.unproven.first_key_value().map(|(number, _)| *number);
            self.let_stranger_go(oldest)?;
        }
        Some(())
    }

    /// Takes the place of the oldest stranger that has proven nothing, of this peer or of all.
    fn let_stranger_go(&mut self, number: Option<u64>) -> Option<()> {
        self.end_unproven(number?)?.cancel();
        Some(())
    }

    fn end_unproven(&mut self, number: u64) -> Option<CancellationToken> {
        let (peer, wanted) = self.unproven.remove(&number)?;
        self.change(peer, |scope| _ = scope.unproven.remove(&number));
        Some(wanted)
    }

    fn end_handshake(&mut self, number: u64) -> Option<CancellationToken> {
        let (peer, wanted) = self.shaking.remove(&number)?;
        self.change(peer, |scope| _ = scope.shaking.remove(&number));
        Some(wanted)
    }
}

impl Place {
    /// Whether another connection was let go for this one, and why. Says so once.
    pub(super) fn took_anothers(&mut self) -> Option<&'static str> {
        self.took.take()
    }

    /// Waits until another connection has this place.
    pub(super) async fn is_wanted(&self) {
        match &self.standing {
            Standing::Shaking(_, wanted) | Standing::Stranger(_, wanted) => wanted.cancelled().await,
            _ => std::future::pending().await,
        }
    }

    /// By which a request says that it has proven who it is, where that is still open.
    pub(super) fn proof(&self) -> Option<Proof> {
        match &self.standing {
            Standing::Stranger(number, _) => Some(Proof { of: self.of.clone(), number: *number }),
            _ => None,
        }
    }

    /// The handshake is done, and this is the key of the certificate that was shown, where the service's own authority has issued it.
    pub(super) fn settle(&mut self, key: Option<&Digest>) -> Result<(), &'static str> {
        let Standing::Shaking(number, _) = self.standing else { return Ok(()) };
        self.standing = Standing::Gone;
        let mut taken = self.of.taken();
        let Taken { sizes, sizes_of_peer, most_of_key, .. } = *taken;
        taken.end_handshake(number).ok_or(OF_PEER)?;
        let Some(key) = key else {
            taken.room_for_a_stranger(self.peer).ok_or(OF_STRANGERS)?;
            let wanted = CancellationToken::new();
            taken.unproven.insert(number, (self.peer, wanted.clone()));
            taken.change(self.peer, |scope| _ = scope.unproven.insert(number));
            self.standing = Standing::Stranger(number, wanted);
            return Ok(());
        };
        let none = Scope::default();
        let of_peer = taken.peers.get(&self.peer).unwrap_or(&none);
        let full = |scope: &Scope, sizes| !scope.takes_a_certificate(sizes);
        if full(of_peer, &sizes_of_peer) || full(&taken.all, &sizes) {
            return Err("those that have shown a certificate have as many as they may have");
        }
        if taken.keys.get(key).is_some_and(|own| *own >= most_of_key) {
            return Err("its certificate has as many as one may have");
        }
        *taken.keys.entry(key.clone()).or_default() += 1;
        taken.change(self.peer, |scope| scope.shown += 1);
        self.standing = Standing::Shown(key.clone());
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        match &self.standing {
            Standing::Shaking(number, _) => _ = taken.end_handshake(*number),
            Standing::Stranger(number, _) => {
                if taken.proven.remove(number) {
                    taken.change(self.peer, |scope| scope.proven -= 1);
                }
                let _ = taken.end_unproven(*number);
            }
            Standing::Shown(key) => {
                taken.change(self.peer, |scope| scope.shown -= 1);
                if let Some(own) = taken.keys.get_mut(key) {
                    *own -= 1;
                    if *own == 0 {
                        taken.keys.remove(key);
                    }
                }
            }
            Standing::Gone => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn of(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn key(which: u8) -> Digest {
        format!("sha256:{}", format!("{which:02x}").repeat(32)).try_into().unwrap()
    }

    fn places(connections: usize, connections_per_peer: usize, kept: usize, is_tls: bool) -> Places {
        let limits = Limits { connections, connections_per_peer, connections_kept: kept, ..Limits::default() };
        Places::new(&limits, is_tls)
    }

    fn must_be_empty(places: &Places) {
        let taken = places.taken();
        assert!(taken.peers.is_empty() && taken.shaking.is_empty() && taken.keys.is_empty());
        assert!(taken.unproven.is_empty() && taken.proven.is_empty());
        assert_eq!(taken.all.all(), 0);
    }

    #[test]
    fn places_are_counted_in_all_and_by_peer_and_given_back() {
        let places = places(3, 2, 1, false);
        let held = [places.take(of(1)).ok(), places.take(of(1)).ok()];
        assert!(places.take(of(1)).is_err(), "a third one of one peer");
        let third = places.take(of(2)).ok();
        assert!(places.take(of(3)).is_err(), "a fourth one in all");
        drop(third);
        assert!(places.take(of(3)).is_ok());
        drop(held);
        must_be_empty(&places);
    }

    #[test]
    fn whoever_has_shown_nothing_keeps_nobody_out() {
        let places = places(64, 32, 8, true);
        // Handshakes that are never done: the oldest has to go.
        let flood: Vec<Place> = (0..100).filter_map(|_| places.take(of(1)).ok()).collect();
        assert_eq!(flood.len(), 100);
        let gone = flood.iter().filter(|place| place.is_wanted().now_or_never().is_some()).count();
        assert_eq!(gone, 100 - 24);
        // Somebody of the same peer comes, and is through before so many others have come.
        let mut agent = places.take(of(1)).unwrap();
        let later: Vec<_> = (0..23).map(|_| places.take(of(1)).unwrap()).collect();
        agent.settle(Some(&key(1))).unwrap();
        drop((flood, later));
        // Those that have done it and have shown nothing take neither the places of handshakes nor those that are kept.
        let mut strangers = Vec::new();
        for host in 1..5 {
            for _ in 0..32 {
                let mut place = places.take(of(host)).unwrap();
                place.settle(None).unwrap();
                strangers.push(place);
            }
        }
        let still = |places: &[Place]| places.iter().filter(|place| place.is_wanted().now_or_never().is_none()).count();
        assert_eq!((strangers.len(), still(&strangers)), (128, 42), "those that came first had to go");
        let through = |which| {
            let mut agent = places.take(of(1)).unwrap();
            agent.settle(Some(&key(which))).map(|()| agent)
        };
        let agents: Vec<_> = (2..9).map(|which| through(which).ok().unwrap()).collect();
        drop((agent, agents, strangers));
        must_be_empty(&places);
    }

    #[test]
    fn whoever_has_proven_who_it_is_stays_and_whoever_comes_may_do_so() {
        let places = places(64, 32, 8, true);
        let stranger = |host| {
            let mut place = places.take(of(host)).unwrap();
            place.settle(None).map(|()| place)
        };
        let person = stranger(1).ok().unwrap();
        person.proof().unwrap().is_given();
        let flood: Vec<_> = (0..500).map(|_| stranger(1).ok().unwrap()).collect();
        assert!(person.is_wanted().now_or_never().is_none());
        assert_eq!(flood.iter().filter(|place| place.is_wanted().now_or_never().is_none()).count(), 17);
        // Another one comes in between, and need not wait.
        let other = stranger(1).ok().unwrap();
        other.proof().unwrap().is_given();
        for place in flood.iter().chain([&person, &other]) {
            place.proof().unwrap().is_given();
        }
        assert!(stranger(1).is_err(), "each has proven who it is");
        drop((person, other, flood));
        must_be_empty(&places);
    }

    #[test]
    fn one_certificate_has_a_part_of_a_peers_places() {
        let places = places(64, 32, 8, true);
        let with = |which| {
            let mut place = places.take(of(1)).unwrap();
            place.settle(Some(&key(which))).map(|()| place)
        };
        let held: Vec<_> = (0..8).map(|_| with(1).ok().unwrap()).collect();
        assert!(with(1).is_err());
        assert!(with(2).is_ok());
        drop(held);
        must_be_empty(&places);
    }
}
