//! TCP segments that no socket of the kernel would send.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use trefoil_cni::namespace::Namespace;

use super::PATIENCE;

const TCP: u8 = 6;
const ACKNOWLEDGEMENT: u8 = 0x10;
/// Two bytes of no operation, then the kind and length of a signature (RFC 2385) of zeroes.
const SIGNATURE: [u8; 4] = [1, 1, 19, 18];
/// Length of the segment: the header and one signature.
const LENGTH: u8 = 40;

/// Sends an acknowledgement of a connection that never was, and waits until it has arrived. It is signed, which
/// nobody asked for: the kernel drops it without a word once it has been tracked.
pub fn stray_acknowledgement(from: (&Namespace, SocketAddr), to: (&Namespace, SocketAddr)) -> io::Result<()> {
    let raw = |(namespace, address): (&Namespace, SocketAddr)| {
        namespace.run(|| {
            let socket = Socket::new(Domain::for_address(address), Type::RAW, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::new(address.ip(), 0).into())?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
    };
    let (sender, mut receiver) = (raw(from)?, raw(to)?);
    let segment = acknowledgement(from.1, to.1);
    sender.send_to(&segment, &SocketAddr::new(to.1.ip(), 0).into())?;
    let mut packet = [0; 128];
    loop {
        let length = receiver.read(&mut packet)?;
        // With IPv4 a raw socket also gets the header of that.
        if packet[..length].ends_with(&segment) {
            return Ok(());
        }
    }
}

fn ports(from: SocketAddr, to: SocketAddr) -> [u8; 4] {
    let ([a, b], [c, d]) = (from.port().to_be_bytes(), to.port().to_be_bytes());
    [a, b, c, d]
}

/// RFC 9293, section 3.1.
fn acknowledgement(from: SocketAddr, to: SocketAddr) -> [u8; LENGTH as usize] {
    let mut segment = [0; LENGTH as usize];
    segment[..4].copy_from_slice(&ports(from, to));
    segment[4..8].copy_from_slice(&1000u32.to_be_bytes());
    segment[8..12].copy_from_slice(&2000u32.to_be_bytes());
    segment[12] = (LENGTH / 4) << 4;
    segment[13] = ACKNOWLEDGEMENT;
    segment[14..16].copy_from_slice(&1024u16.to_be_bytes());
    segment[20..24].copy_from_slice(&SIGNATURE);
    let mut summed = [octets(from.ip()), octets(to.ip())].concat();
    summed.extend([0, TCP, 0, LENGTH]);
    summed.extend(segment);
    segment[16..18].copy_from_slice(&checksum(&summed).to_be_bytes());
    segment
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
