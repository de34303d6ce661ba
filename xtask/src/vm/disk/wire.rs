//! The protocol of network block devices, as far as qemu speaks it to a server without extras
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>).

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use parking_lot::Mutex;

use super::State;

const GREETING: &[u8; 8] = b"NBDMAGIC";
const OPTION: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

/// Fixed newstyle, without 124 zeroes.
const HANDSHAKE: u16 = 1 | 2;

const OPTION_EXPORT_NAME: u32 = 1;
const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;

const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
const INFO_EXPORT: u16 = 0;

/// Flags there are, flush, writes through, zeroes.
const EXPORT: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 6;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const WRITE_ZEROES: u16 = 6;
const THROUGH: u16 = 1;
const INVALID: u32 = 22;

/// No request is longer.
const LONGEST: u32 = 64 << 20;

/// Serves one machine until it goes.
pub(super) fn serve(stream: UnixStream, state: &Mutex<State>) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 18, stream.try_clone()?);
    let mut writer = stream.try_clone()?;
    if !negotiate(&mut reader, &mut writer, state.lock().size)? {
        return Ok(());
    }
    loop {
        let mut head = [0; 28];
        reader.read_exact(&mut head)?;
        let magic = u32::from_be_bytes(part(&head, 0));
        if magic != REQUEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a request begins with {magic:#x}")));
        }
        let (flags, what) = (u16::from_be_bytes(part(&head, 4)), u16::from_be_bytes(part(&head, 6)));
        let cookie: [u8; 8] = part(&head, 8);
        let (offset, length) = (u64::from_be_bytes(part(&head, 16)), u32::from_be_bytes(part(&head, 24)));
        let mut bytes = vec![0; if what == WRITE { length.min(LONGEST) as usize } else { 0 }];
        reader.read_exact(&mut bytes)?;

        let mut state = state.lock();
        if state.is_dead(matches!(what, WRITE | FLUSH | WRITE_ZEROES)) {
            state.silent.push(stream);
            return Ok(());
        }
        let fits = length <= LONGEST && offset.checked_add(length.into()).is_some_and(|end| end <= state.size);
        let mut answer = Vec::new();
        let error = match what {
            DISCONNECT => return Ok(()),
            FLUSH => {
                state.flush();
                0
            }
            READ if fits => {
                answer = vec![0; length as usize];
                state.seen.read(offset, &mut answer);
                0
            }
            WRITE | WRITE_ZEROES if fits => {
                bytes.resize(length as usize, 0);
                state.write(offset, bytes, flags & THROUGH != 0);
                0
            }
            _ => INVALID,
        };
        drop(state);
        let reply = [&REPLY.to_be_bytes()[..], &error.to_be_bytes(), &cookie, &answer].concat();
        writer.write_all(&reply)?;
    }
}

/// Agrees on how to talk; whether the other side wants to go on.
fn negotiate(reader: &mut impl Read, writer: &mut impl Write, size: u64) -> io::Result<bool> {
    writer.write_all(&[GREETING, OPTION, &HANDSHAKE.to_be_bytes()[..]].concat())?;
    let mut flags = [0; 4];
    reader.read_exact(&mut flags)?;
    loop {
        let mut head = [0; 16];
        reader.read_exact(&mut head)?;
        if head[..8] != OPTION[..] {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an option was expected"));
        }
        let (option, length) = (u32::from_be_bytes(part(&head, 8)), u32::from_be_bytes(part(&head, 12)));
        io::copy(&mut reader.take(length.into()), &mut io::sink())?;
        let mut reply = |kind: u32, data: &[u8]| {
            let (option, length) = (option.to_be_bytes(), (data.len() as u32).to_be_bytes());
            writer.write_all(&[&OPTION_REPLY.to_be_bytes()[..], &option, &kind.to_be_bytes(), &length, data].concat())
        };
        let export = [&size.to_be_bytes()[..], &EXPORT.to_be_bytes()].concat();
        match option {
            OPTION_EXPORT_NAME => return writer.write_all(&export).map(|()| true),
            OPTION_ABORT => return reply(REPLY_ACK, &[]).map(|()| false),
            OPTION_INFO | OPTION_GO => {
                reply(REPLY_INFO, &[&INFO_EXPORT.to_be_bytes()[..], &export].concat())?;
                reply(REPLY_ACK, &[])?;
                if option == OPTION_GO {
                    return Ok(true);
                }
            }
            _ => reply(REPLY_UNSUPPORTED, &[])?,
        }
    }
}

/// `N` bytes from `at` on.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
