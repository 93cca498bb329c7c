use futures::task::noop_waker_ref;
use proptest::prelude::*;

use super::*;

/// Takes as many bytes at a time as it is told; none is not now.
#[derive(Default)]
struct Slow {
    taken: Vec<u8>,
    takes: Vec<usize>,
}

impl AsyncWrite for Slow {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = self.takes.pop().unwrap_or(usize::MAX).min(bytes.len());
        self.taken.extend_from_slice(&bytes[..count]);
        match count {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

proptest! {
    /// However little the client takes, what is written stays whole, and interim responses stand only where all that
    /// had been written before was flushed.
    #[test]
    fn interim_responses_never_get_into_what_is_written(
        pieces in prop::collection::vec(("[a-z]{1,9}", any::<bool>(), any::<bool>()), 1..8),
        takes in prop::collection::vec(0_usize..5, 0..60),
    ) {
        let wire = Arc::<Wire>::default();
        let mut guarded = Guarded::new(Slow { takes, ..Slow::default() }, &wire);
        let cx = &mut Context::from_waker(noop_waker_ref());
        let (mut whole, mut ends) = (String::new(), vec![0]);
        for (piece, before, within) in pieces {
            if before {
                wire.interim(b"<>");
            }
            let mut left = piece.as_bytes();
            while !left.is_empty() {
                if let Poll::Ready(count) = Pin::new(&mut guarded).poll_write(cx, left) {
                    left = &left[count.unwrap()..];
                }
                if within {
                    wire.interim(b"<>");
                }
            }
            while Pin::new(&mut guarded).poll_flush(cx).is_pending() {}
            whole.push_str(&piece);
            ends.push(whole.len());
        }
        let taken = String::from_utf8(guarded.stream.taken).unwrap();
        prop_assert_eq!(taken.replace("<>", ""), whole);
        for (at, _) in taken.match_indices("<>") {
            let written = taken[..at].replace("<>", "").len();
            prop_assert!(ends.contains(&written), "{}", taken);
        }
    }
}

#[test]
fn an_interim_response_goes_out_with_the_next_flush_and_no_more_are_kept_than_fit() {
    let wire = Arc::<Wire>::default();
    let mut guarded = Guarded::new(Slow::default(), &wire);
    let cx = &mut Context::from_waker(noop_waker_ref());
    wire.interim(b"<>");
    wire.interim(&vec![b'x'; EARLY]);
    assert!(Pin::new(&mut guarded).poll_flush(cx).is_ready());
    assert_eq!(guarded.stream.taken, b"<>");
}
