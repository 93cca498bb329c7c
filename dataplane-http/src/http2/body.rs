//! The bodies of a stream, as they are received and sent. More is granted to the other end only as what came is taken;
//! what breaks off is reset, and never looks as if it had ended.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use trefoil_dataplane_core::forward::poll_room;

use super::server::Stream;
use crate::body::{Body, BodyError};

/// A body that is received.
#[derive(Debug)]
pub(crate) struct Received {
    stream: RecvStream,
    hint: SizeHint,
    /// Who has yet to be asked for it, and waits for that.
    waits: Option<Stream>,
}

impl Received {
    /// Of a message with these fields.
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        // The library holds the other end to it.
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|value| value.parse().ok());
        let hint = match length {
            _ if stream.is_end_stream() => SizeHint::with_exact(0),
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        };
        Self {
            stream,
            hint,
            waits: None,
        }
    }

    /// The same, for which a client that waits for a sign gets it once the body is wanted (RFC 9110, section 10.1.1).
    pub(super) fn awaited_by(self, waits: Option<Stream>) -> Self {
        let waits = waits.filter(|_| !self.stream.is_end_stream());
        Self { waits, ..self }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = &mut *self;
        if let Some(client) = this.waits.take() {
            client.go_on();
        }
        if let Some(data) = ready!(this.stream.poll_data(cx)?) {
            // The other end's to use again. An error here is of a stream that has ended: reading on tells how.
            let _ = this.stream.flow_control().release_capacity(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(this.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// Sends `body` to its end. Where either breaks off, so does the other: the stream is reset, or the body let go.
pub(super) async fn send(mut body: Body, mut stream: SendStream<Bytes>) {
    let sent = send_all(&mut body, &mut stream).await;
    if let Err(error) = sent {
        tracing::debug!(%error, "a body broke off");
        stream.send_reset(reason(&error));
    }
}

async fn send_all(body: &mut Body, stream: &mut SendStream<Bytes>) -> Result<(), BodyError> {
    loop {
        let frame = poll_fn(|cx| {
            // Nobody wants it any more: also where there is nothing to send now.
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                let error = reset.map_or_else(|error| error, h2::Error::from);
                return Poll::Ready(Some(Err(error.into())));
            }
            Pin::new(&mut *body).poll_frame(cx)
        });
        let Some(frame) = frame.await.transpose()? else {
            stream.send_data(Bytes::new(), true)?;
            return Ok(());
        };
        match frame.into_data() {
            Ok(mut data) => {
                let last = body.is_end_stream();
                while !data.is_empty() {
                    let room = poll_fn(|cx| poll_room(stream, data.len(), cx)).await?;
                    let piece = data.split_to(room);
                    let ends = last && data.is_empty();
                    stream.send_data(piece, ends)?;
                    if ends {
                        return Ok(());
                    }
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    stream.send_trailers(trailers)?;
                    return Ok(());
                }
            }
        }
    }
}

/// As what HTTP/2 says that something broke off of this.
fn reason(error: &BodyError) -> Reason {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
    while let Some(error) = source {
        if let Some(reason) = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
            return reason;
        }
        source = error.source();
    }
    Reason::INTERNAL_ERROR
}

/// Says the length of a body where it is known and not said.
pub(super) fn say_length(headers: &mut HeaderMap, body: &Body) {
    if let Some(length) = body.size_hint().exact() {
        let entry = headers.entry(CONTENT_LENGTH);
        entry.or_insert_with(|| HeaderValue::from(length));
    }
}
