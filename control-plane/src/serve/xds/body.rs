//! A stream of responses as the body of a gRPC answer. Resources were encoded once for all clients; here they are put
//! together chunk by chunk, as the connection takes them, so that a response with a whole mesh in it is never in memory
//! for each client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tonic::Status;

use super::Response;

/// Bytes that are put together at a time.
const CHUNK: usize = 64 << 10;
/// What comes before each message: whether it is compressed, and how long it is.
const PREFIX: usize = 5;

/// See the module.
#[derive(Debug)]
pub(super) struct Responses {
    receiver: mpsc::Receiver<Response>,
    /// What is being sent, and how many of its resources were.
    sending: Option<(Response, usize)>,
    ended: bool,
}

impl Responses {
    pub(super) fn new(receiver: mpsc::Receiver<Response>) -> Self {
        Self {
            receiver,
            sending: None,
            ended: false,
        }
    }
}

impl Body for Responses {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut chunk = BytesMut::new();
        let (response, sent) = match self.sending.take() {
            Some(sending) => sending,
            None => match ready!(self.receiver.poll_recv(context)) {
                Some(response) => {
                    begin(&response, &mut chunk)?;
                    (response, 0)
                }
                None => {
                    self.ended = true;
                    let ok = ("grpc-status", HeaderValue::from_static("0"));
                    let mut trailers = HeaderMap::new();
                    trailers.insert(ok.0, ok.1);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            },
        };
        let sent = response.put_from(sent, CHUNK, &mut chunk);
        if sent < response.parts() {
            self.sending = Some((response, sent));
        }
        Poll::Ready(Some(Ok(Frame::data(chunk.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

fn begin(response: &Response, chunk: &mut BytesMut) -> Result<(), Status> {
    let length = response.encoded_len();
    let too_long = |_| Status::out_of_range("a response of more than 4 GiB");
    let announced = u32::try_from(length).map_err(too_long)?;
    chunk.reserve(PREFIX + length.min(CHUNK));
    chunk.put_u8(0);
    chunk.put_u32(announced);
    Ok(())
}
