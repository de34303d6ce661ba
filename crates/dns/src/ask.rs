//! One question, for whoever checks that cluster DNS answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

/// Asks `server` over UDP for the IPv4 addresses of `name`, once, from the calling thread's network namespace; blocks for at most `limit`.
///
/// An answer without addresses is an error, as is none.
pub fn ask(server: SocketAddr, name: &str, limit: Duration) -> io::Result<Vec<IpAddr>> {
    let name = Name::from_ascii(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, RecordType::A));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(limit))?;
    // Connected, so that a refusal (ICMP) ends the wait at once.
    socket.connect(server)?;
    socket.send(&question.to_vec().map_err(io::Error::other)?)?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer)?;
    let answer = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
    if answer.metadata.id != question.metadata.id {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question"));
    }
    let addresses: Vec<IpAddr> = answer
        .answers
        .iter()
        .filter_map(|record| if let RData::A(ip) = &record.data { Some(IpAddr::V4(ip.0)) } else { None })
        .collect();
    if answer.metadata.response_code != ResponseCode::NoError || addresses.is_empty() {
        return Err(io::Error::other(format!("the answer is {}", answer.metadata.response_code)));
    }
    Ok(addresses)
}
