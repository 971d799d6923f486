//! A narrow link: passes on what a server sends, at so many bytes per second over all connections together.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes that are passed on at once.
const PIECE: usize = 16 << 10;

/// The link. Its threads end with their connections; it listens until the test ends.
pub struct Narrow {
    port: u16,
}

impl Narrow {
    /// In front of the server at `authority`.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn new(authority: &str, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let pace = Arc::new(Pace { per_second: bytes_per_second as f64, free: Mutex::new(Instant::now()) });
        let authority = authority.to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&authority) else { continue };
                let (Ok(asks), Ok(asked)) = (client.try_clone(), server.try_clone()) else { continue };
                let pace = Arc::clone(&pace);
                std::thread::spawn(move || pass_on(asks, asked, |_| ()));
                std::thread::spawn(move || pass_on(server, client, |len| pace.wait(len)));
            }
        });
        Narrow { port }
    }

    /// Where it stands.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, wait: impl Fn(usize)) {
    let mut bytes = [0; PIECE];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        wait(len);
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

struct Pace {
    per_second: f64,
    /// When the link is free for the next piece.
    free: Mutex<Instant>,
}

impl Pace {
    fn wait(&self, len: usize) {
        let takes = Duration::from_secs_f64(len as f64 / self.per_second);
        let until = {
            let mut free = self.free.lock().expect("the pace");
            *free = (*free).max(Instant::now()) + takes;
            *free
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}
