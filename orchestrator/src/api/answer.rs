//! An answer's body as the connection takes it: each byte is counted until it is on its way.
//!
//! HTTP/2 keeps what a client does not take, and TCP shows nothing of that: the connection answers pings, and writes what is asked next.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};

use super::activity::UnderWay;
use super::shares::Held;

/// An answer's body, whose end is the request's.
pub(super) struct Counted {
    body: Body,
    under_way: Arc<UnderWay>,
    /// Of a body that is made bit by bit: it says when there is more.
    bell: Option<Arc<Bell>>,
}

/// This answer, counted.
pub(super) fn counted(mut response: Response, under_way: UnderWay) -> hyper::Response<Counted> {
    let held = response.extensions_mut().remove::<Held>();
    let under_way = Arc::new(under_way);
    response.map(|body| {
        under_way.answered(held, !body.is_end_stream());
        // One that is whole is there at once.
        let bell = body.size_hint().exact().is_none().then(|| Arc::new(Bell::new(&under_way)));
        Counted { body, under_way, bell }
    })
}

impl HttpBody for Counted {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        // Before it is looked: what comes meanwhile rings.
        self.under_way.asked_for();
        let polled = match &self.bell {
            Some(bell) => {
                let waker = bell.clone().for_whom(cx.waker());
                Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker))
            }
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        polled.map(|frame| {
            frame.map(|frame| {
                frame.map(|frame| {
                    let has_more = !self.body.is_end_stream();
                    frame.map_data(|bytes| {
                        self.under_way.handed(bytes.len(), has_more);
                        Piece { bytes, of: self.under_way.clone() }
                    })
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer, until the last byte of it was taken.
pub(super) struct Piece {
    bytes: Bytes,
    of: Arc<UnderWay>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.of.taken(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.of.taken(self.bytes.remaining());
    }
}

/// Wakes whoever asks for more of an answer, and notes that there is more, whether they ask or not.
struct Bell {
    of: Weak<UnderWay>,
    asks: Mutex<Waker>,
}

impl Bell {
    fn new(of: &Arc<UnderWay>) -> Self {
        Bell { of: Arc::downgrade(of), asks: Mutex::new(Waker::noop().clone()) }
    }

    fn for_whom(self: Arc<Self>, waker: &Waker) -> Waker {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).clone_from(waker);
        self.into()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(of) = self.of.upgrade() {
            of.has_more();
        }
        let waker = self.asks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waker.wake();
    }
}
