//! What a connection's tasks and its streams share.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::frame::{Encoder, Frame, PROTOCOL_ERROR, REFUSED_STREAM};
use super::{CHUNK, QUEUED, STREAMS, UNSENT};

/// Names, in lower case, and values.
pub type Headers = Vec<(String, String)>;

/// One connection's state and who waits for it.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Something is to be sent, or nothing more will be.
    pub to_send: Notify,
    /// Readers took something away.
    pub room: Notify,
    /// The other side opened a stream, or is gone.
    pub offered: Notify,
}

struct State {
    encoder: Encoder,
    unsent: BytesMut,
    writers: Vec<Waker>,
    streams: HashMap<u32, Channel>,
    offers: VecDeque<(u32, Headers)>,
    /// Bytes in all inboxes.
    queued: usize,
    next_id: u32,
    last_offered: u32,
    /// Nothing is sent after what is unsent.
    closing: bool,
    /// Nothing more comes.
    over: bool,
}

#[derive(Default)]
struct Channel {
    inbox: VecDeque<Bytes>,
    /// The other side sends nothing more.
    ended: bool,
    /// We send nothing more.
    finished: bool,
    /// Of our two ends, who is still there.
    has_reader: bool,
    has_writer: bool,
    reader: Option<Waker>,
    reply: Option<oneshot::Sender<()>>,
}

impl Shared {
    /// The opener of a connection numbers its streams oddly.
    pub(super) fn new(opener: bool) -> Shared {
        let state = State {
            encoder: Encoder::default(),
            unsent: BytesMut::new(),
            writers: Vec::new(),
            streams: HashMap::new(),
            offers: VecDeque::new(),
            queued: 0,
            next_id: if opener { 1 } else { 2 },
            last_offered: 0,
            closing: false,
            over: false,
        };
        Shared { state: Mutex::new(state), to_send: Notify::new(), room: Notify::new(), offered: Notify::new() }
    }

    fn send(&self, state: &mut State, frame: &Frame) {
        if !state.closing && !state.over {
            state.encoder.encode(frame, &mut state.unsent);
            self.to_send.notify_one();
        }
    }

    /// Takes in what the other side sent.
    pub(super) fn take(&self, frame: Frame) {
        let state = &mut *self.state.lock();
        match frame {
            Frame::SynStream { id, fin, unidirectional, headers } => {
                let ours = id % 2 == state.next_id % 2;
                if ours || id <= state.last_offered {
                    return self.send(state, &Frame::RstStream { id, status: PROTOCOL_ERROR });
                }
                state.last_offered = id;
                if state.streams.len() >= STREAMS {
                    return self.send(state, &Frame::RstStream { id, status: REFUSED_STREAM });
                }
                let channel = Channel {
                    ended: fin,
                    finished: unidirectional,
                    has_reader: true,
                    has_writer: true,
                    ..Channel::default()
                };
                state.streams.insert(id, channel);
                let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
                state.offers.push_back((id, headers.into_iter().map(lower).collect()));
                self.offered.notify_one();
            }
            Frame::SynReply { id, fin, .. } => {
                if let Some(channel) = state.streams.get_mut(&id) {
                    let _ = channel.reply.take().map(|reply| reply.send(()));
                    channel.ended |= fin;
                    channel.wake();
                }
            }
            Frame::Headers { id, fin: true, .. } => {
                if let Some(channel) = state.streams.get_mut(&id) {
                    channel.ended = true;
                    channel.wake();
                }
            }
            Frame::RstStream { id, .. } => {
                if let Some(channel) = state.streams.get_mut(&id) {
                    (channel.ended, channel.finished) = (true, true);
                    channel.reply = None;
                    channel.wake();
                    state.writers.drain(..).for_each(Waker::wake);
                }
            }
            Frame::Data { id, fin, data } => {
                if let Some(channel) = state.streams.get_mut(&id) {
                    if channel.has_reader && !channel.ended && !data.is_empty() {
                        state.queued += data.len();
                        channel.inbox.push_back(data);
                    }
                    channel.ended |= fin;
                    channel.wake();
                }
            }
            // Ours come back, the others' are answered.
            Frame::Ping { id } if id % 2 != state.next_id % 2 => self.send(state, &Frame::Ping { id }),
            Frame::Ping { .. } | Frame::GoAway { .. } | Frame::Headers { .. } => {}
        }
    }

    /// Whether readers have fallen too far behind to take in more.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state.lock();
        state.queued >= QUEUED && !state.over
    }

    /// What is to be sent now; `None` after the last of it.
    pub(super) fn unsent(&self) -> Option<Bytes> {
        let mut state = self.state.lock();
        let bytes = state.unsent.split().freeze();
        state.writers.drain(..).for_each(Waker::wake);
        (!bytes.is_empty() || !state.closing && !state.over).then_some(bytes)
    }

    /// Ends the connection once everything is sent.
    pub(super) fn close(&self) {
        let state = &mut *self.state.lock();
        let last = state.last_offered;
        self.send(state, &Frame::GoAway { last });
        state.closing = true;
        self.to_send.notify_one();
    }

    /// The connection is gone.
    pub(super) fn end(&self) {
        let state = &mut *self.state.lock();
        state.over = true;
        for channel in state.streams.values_mut() {
            channel.ended = true;
            channel.reply = None;
            channel.wake();
        }
        state.writers.drain(..).for_each(Waker::wake);
        self.to_send.notify_one();
        self.room.notify_one();
        self.offered.notify_one();
    }

    /// The next stream that the other side opened; an error when no more can come.
    pub(super) fn offer(&self) -> Result<Option<(u32, Headers)>, ()> {
        let mut state = self.state.lock();
        match state.offers.pop_front() {
            None if state.over => Err(()),
            offer => Ok(offer),
        }
    }

    /// Opens a stream; the receiver is told when it is accepted.
    pub(super) fn open(&self, headers: Headers) -> (u32, oneshot::Receiver<()>) {
        let state = &mut *self.state.lock();
        let (reply, replied) = oneshot::channel();
        let id = state.next_id;
        state.next_id += 2;
        if !state.over {
            let channel = Channel { has_reader: true, has_writer: true, reply: Some(reply), ..Channel::default() };
            state.streams.insert(id, channel);
        }
        self.send(state, &Frame::SynStream { id, fin: false, unidirectional: false, headers });
        (id, replied)
    }

    pub(super) fn accept(&self, id: u32) {
        let state = &mut *self.state.lock();
        self.send(state, &Frame::SynReply { id, fin: false, headers: Vec::new() });
    }

    /// Ends a stream both ways.
    pub(super) fn reset(&self, id: u32, status: u32) {
        let state = &mut *self.state.lock();
        if let Some(channel) = state.streams.get_mut(&id) {
            (channel.ended, channel.finished) = (true, true);
            channel.wake();
            self.send(state, &Frame::RstStream { id, status });
        }
    }

    pub(super) fn poll_read(&self, id: u32, room: usize, ctx: &Context<'_>) -> Poll<Option<Bytes>> {
        let state = &mut *self.state.lock();
        let Some(channel) = state.streams.get_mut(&id) else { return Poll::Ready(None) };
        match channel.inbox.front_mut() {
            Some(front) => {
                let data = front.split_to(room.min(front.remaining()));
                if front.is_empty() {
                    channel.inbox.pop_front();
                }
                self.took(state, data.len());
                Poll::Ready(Some(data))
            }
            None if channel.ended => Poll::Ready(None),
            None => {
                channel.reader = Some(ctx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn took(&self, state: &mut State, bytes: usize) {
        let was_full = state.queued >= QUEUED;
        state.queued -= bytes;
        if was_full && state.queued < QUEUED {
            self.room.notify_one();
        }
    }

    pub(super) fn poll_write(&self, id: u32, data: &[u8], ctx: &Context<'_>) -> Poll<io::Result<usize>> {
        let state = &mut *self.state.lock();
        let open = state.streams.get(&id).is_some_and(|channel| !channel.finished);
        if !open || state.over || state.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.unsent.len() >= UNSENT {
            state.writers.push(ctx.waker().clone());
            return Poll::Pending;
        }
        let data = Bytes::copy_from_slice(&data[..data.len().min(CHUNK)]);
        let size = data.len();
        self.send(state, &Frame::Data { id, fin: false, data });
        Poll::Ready(Ok(size))
    }

    /// Sends the end of our side.
    pub(super) fn finish(&self, id: u32) {
        let state = &mut *self.state.lock();
        if let Some(channel) = state.streams.get_mut(&id)
            && !std::mem::replace(&mut channel.finished, true)
        {
            self.send(state, &Frame::Data { id, fin: true, data: Bytes::new() });
        }
    }

    /// One of our ends of the stream is dropped; with the second one the stream is forgotten.
    pub(super) fn drop_end(&self, id: u32, reader: bool) {
        let state = &mut *self.state.lock();
        let Some(channel) = state.streams.get_mut(&id) else { return };
        let mut unread = 0;
        if reader {
            channel.has_reader = false;
            unread = channel.inbox.drain(..).map(|data| data.len()).sum();
        } else {
            channel.has_writer = false;
        }
        if !channel.has_reader && !channel.has_writer {
            state.streams.remove(&id);
        }
        self.took(state, unread);
    }
}

impl Channel {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
