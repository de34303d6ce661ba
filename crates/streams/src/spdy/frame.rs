//! Frames and their bytes. Upstream: the SPDY/3 draft, section 2; moby/spdystream spdy/read.go, spdy/write.go.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

const VERSION: u16 = 3;
const HEADER: usize = 8;
/// A control frame may be this large, and so may the headers it carries be when they are unpacked.
const MAX_CONTROL: usize = 256 * 1024;

const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Why a stream is reset.
pub const PROTOCOL_ERROR: u32 = 1;
/// Why a stream is reset.
pub const REFUSED_STREAM: u32 = 3;
/// Why a stream is reset.
pub const CANCEL: u32 = 5;

/// What one side tells the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream.
    SynStream { id: u32, fin: bool, unidirectional: bool, headers: Vec<(String, String)> },
    /// A new stream is accepted.
    SynReply { id: u32, fin: bool, headers: Vec<(String, String)> },
    /// A stream is over, both ways.
    RstStream { id: u32, status: u32 },
    /// Answered with the same.
    Ping { id: u32 },
    /// No new streams are accepted.
    GoAway { last: u32 },
    /// More headers of a stream.
    Headers { id: u32, fin: bool, headers: Vec<(String, String)> },
    /// A long frame comes in several of these.
    Data { id: u32, fin: bool, data: Bytes },
}

/// Why bytes are no frames.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of SPDY version {0}")]
    Version(u16),
    #[error("a control frame of {0} bytes")]
    TooLarge(usize),
    #[error("a control frame is too short")]
    Truncated,
    #[error("headers cannot be unpacked")]
    Headers,
}

/// From bytes to frames.
pub struct Decoder {
    unpack: Decompress,
    /// What is still to come of a data frame: its stream, its end, its length.
    data: Option<(u32, bool, usize)>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { unpack: Decompress::new(true), data: None }
    }
}

impl Decoder {
    /// The next frame, taken off the buffer; `None` until more bytes are there. Frames without a meaning here are passed over.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some((id, fin, left)) = self.data {
                if buffer.is_empty() && left > 0 {
                    return Ok(None);
                }
                let data = buffer.split_to(left.min(buffer.len())).freeze();
                let left = left - data.len();
                self.data = (left > 0).then_some((id, fin, left));
                return Ok(Some(Frame::Data { id, fin: fin && left == 0, data }));
            }
            let Some((head, _)) = buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
            let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let flags = head[4];
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if word >> 31 == 0 {
                buffer.advance(HEADER);
                self.data = Some((word, flags & FIN != 0, length));
                continue;
            }
            let (version, kind) = ((word >> 16) as u16 & 0x7fff, word as u16);
            if version != VERSION {
                return Err(FrameError::Version(version));
            }
            if length > MAX_CONTROL {
                return Err(FrameError::TooLarge(length));
            }
            if buffer.len() < HEADER + length {
                buffer.reserve(HEADER + length - buffer.len());
                return Ok(None);
            }
            buffer.advance(HEADER);
            if let Some(frame) = self.control(kind, flags, buffer.split_to(length).freeze())? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Option<Frame>, FrameError> {
        let number = |body: &mut Bytes| body.try_get_u32().map_err(|_| FrameError::Truncated);
        let fin = flags & FIN != 0;
        Ok(Some(match kind {
            SYN_STREAM => {
                let id = number(&mut body)? & 0x7fff_ffff;
                number(&mut body)?;
                // Priority and slot.
                body.try_get_u16().map_err(|_| FrameError::Truncated)?;
                let headers = self.headers(&body)?;
                Frame::SynStream { id, fin, unidirectional: flags & UNIDIRECTIONAL != 0, headers }
            }
            SYN_REPLY => {
                let id = number(&mut body)? & 0x7fff_ffff;
                Frame::SynReply { id, fin, headers: self.headers(&body)? }
            }
            HEADERS => {
                let id = number(&mut body)? & 0x7fff_ffff;
                Frame::Headers { id, fin, headers: self.headers(&body)? }
            }
            RST_STREAM => Frame::RstStream { id: number(&mut body)? & 0x7fff_ffff, status: number(&mut body)? },
            PING => Frame::Ping { id: number(&mut body)? },
            GOAWAY => Frame::GoAway { last: number(&mut body)? & 0x7fff_ffff },
            _ => return Ok(None),
        }))
    }

    /// Every block of a connection continues one compressed stream.
    fn headers(&mut self, packed: &[u8]) -> Result<Vec<(String, String)>, FrameError> {
        let mut text = Vec::with_capacity(1024);
        let start = self.unpack.total_in();
        let used = |unpack: &Decompress| (unpack.total_in() - start) as usize;
        loop {
            if text.len() == text.capacity() {
                text.reserve(1024);
            }
            let (room, before) = (text.capacity() - text.len(), (used(&self.unpack), text.len()));
            let rest = packed.get(before.0..).unwrap_or_default();
            match self.unpack.decompress_vec(rest, &mut text, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.unpack.set_dictionary(&DICTIONARY).map_err(|_| FrameError::Headers)?;
                    continue;
                }
                Err(_) => return Err(FrameError::Headers),
            }
            if text.len() > MAX_CONTROL {
                return Err(FrameError::TooLarge(text.len()));
            }
            let all_in = used(&self.unpack) == packed.len();
            if all_in && text.len() - before.1 < room {
                break;
            }
            if (used(&self.unpack), text.len()) == before {
                return Err(FrameError::Headers);
            }
        }
        parse(&text)
    }
}

/// A count, then names and values, each with its length before it.
fn parse(mut text: &[u8]) -> Result<Vec<(String, String)>, FrameError> {
    let count = text.try_get_u32().map_err(|_| FrameError::Truncated)?;
    let mut word = || -> Result<String, FrameError> {
        let length = text.try_get_u32().map_err(|_| FrameError::Truncated)? as usize;
        let (word, rest) = text.split_at_checked(length).ok_or(FrameError::Truncated)?;
        text = rest;
        String::from_utf8(word.to_vec()).map_err(|_| FrameError::Headers)
    };
    let mut headers = Vec::new();
    for _ in 0..count {
        headers.push((word()?, word()?));
    }
    Ok(headers)
}

/// From frames to bytes.
pub struct Encoder {
    pack: Compress,
    /// The dictionary is known to the compressor.
    started: bool,
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder { pack: Compress::new(Compression::best(), true), started: false }
    }
}

impl Encoder {
    /// Appends the frame's bytes.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        let flag = |fin: bool| if fin { FIN } else { 0 };
        match frame {
            Frame::SynStream { id, fin, unidirectional, headers } => {
                let mut body = Vec::from(id.to_be_bytes());
                body.extend_from_slice(&[0; 6]);
                self.headers(headers, &mut body);
                control(out, SYN_STREAM, flag(*fin) | if *unidirectional { UNIDIRECTIONAL } else { 0 }, &body);
            }
            Frame::SynReply { id, fin, headers } => {
                let mut body = Vec::from(id.to_be_bytes());
                self.headers(headers, &mut body);
                control(out, SYN_REPLY, flag(*fin), &body);
            }
            Frame::Headers { id, fin, headers } => {
                let mut body = Vec::from(id.to_be_bytes());
                self.headers(headers, &mut body);
                control(out, HEADERS, flag(*fin), &body);
            }
            Frame::RstStream { id, status } => {
                control(out, RST_STREAM, 0, &[id.to_be_bytes(), status.to_be_bytes()].concat());
            }
            Frame::Ping { id } => control(out, PING, 0, &id.to_be_bytes()),
            Frame::GoAway { last } => control(out, GOAWAY, 0, &[last.to_be_bytes(), [0; 4]].concat()),
            Frame::Data { id, fin, data } => {
                out.put_u32(*id);
                out.put_u32(u32::from(flag(*fin)) << 24 | data.len() as u32);
                out.extend_from_slice(data);
            }
        }
    }

    fn headers(&mut self, headers: &[(String, String)], out: &mut Vec<u8>) {
        let mut text = Vec::new();
        text.put_u32(headers.len() as u32);
        for word in headers.iter().flat_map(|(name, value)| [name, value]) {
            text.put_u32(word.len() as u32);
            text.extend_from_slice(word.as_bytes());
        }
        if !self.started {
            // It fails only after the first byte.
            let known = self.pack.set_dictionary(&DICTIONARY);
            debug_assert!(known.is_ok());
            self.started = true;
        }
        let start = self.pack.total_in();
        loop {
            let used = (self.pack.total_in() - start) as usize;
            out.reserve(text.len() / 2 + 128);
            let room = out.capacity() - out.len();
            let before = out.len();
            let done = self.pack.compress_vec(text.get(used..).unwrap_or_default(), out, FlushCompress::Sync);
            let all_in = (self.pack.total_in() - start) as usize == text.len();
            if !matches!(done, Ok(Status::Ok)) || all_in && out.len() - before < room {
                break;
            }
        }
    }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, body: &[u8]) {
    out.put_u16(1 << 15 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | body.len() as u32);
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests;
