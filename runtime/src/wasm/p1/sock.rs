//! TCP sockets. WASI 0.1 opens none: a program finds one listening socket for each published TCP port behind its
//! preopened directories, and accepts connections from it. Which ones these are its environment says (docs/wasi.md).
#![expect(clippy::too_many_arguments, reason = "they are WASI's")]

use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use super::State;
use super::abi::{FDFLAGS_NONBLOCK, RIGHTS_LISTENER, RIGHTS_SOCKET};
use super::errno::{Answer, Code};
use super::memory::Guest;
use super::table::Fd;
use crate::error::{Error, Result};
use crate::wasm::network::{Protocol, Publish};

const RECV_PEEK: u32 = 1;
const RECV_WAITALL: u32 = 2;
const SHUT_READ: u32 = 1;
const SHUT_WRITE: u32 = 2;

/// An open socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) kind: SocketKind,
    /// [`FDFLAGS_NONBLOCK`] or nothing.
    pub(super) flags: u16,
}

/// What it is for.
#[derive(Debug)]
pub(super) enum SocketKind {
    Listener(TcpListener),
    Stream(TcpStream),
}

impl Socket {
    pub(super) fn rights(&self) -> u64 {
        match self.kind {
            SocketKind::Listener(_) => RIGHTS_LISTENER,
            SocketKind::Stream(_) => RIGHTS_SOCKET,
        }
    }

    fn stream(&self) -> std::result::Result<&TcpStream, Code> {
        match &self.kind {
            SocketKind::Stream(stream) => Ok(stream),
            SocketKind::Listener(_) => Err(Code::NOTCONN),
        }
    }

    /// Only one flag means anything here.
    pub(super) fn set_flags(&mut self, flags: u16) -> Answer {
        if flags & !FDFLAGS_NONBLOCK != 0 {
            return Err(Code::INVAL);
        }
        let nonblocking = flags != 0;
        match &self.kind {
            SocketKind::Listener(listener) => listener.set_nonblocking(nonblocking)?,
            SocketKind::Stream(stream) => stream.set_nonblocking(nonblocking)?,
        }
        self.flags = flags;
        Ok(())
    }

    pub(super) fn read(&self, targets: &mut [IoSliceMut<'_>]) -> std::result::Result<usize, Code> {
        Ok(self.stream()?.read_vectored(targets)?)
    }

    pub(super) fn write(&self, sources: &[IoSlice<'_>]) -> std::result::Result<usize, Code> {
        Ok(self.stream()?.write_vectored(sources)?)
    }
}

/// Listens on the published TCP ports, in their order, and says which port of the program each is.
pub(super) fn listen(publish: &[Publish]) -> Result<Vec<(u16, Socket)>> {
    let mut sockets = Vec::new();
    for one in publish.iter().filter(|one| one.protocol == Protocol::Tcp) {
        if has_twin(publish, one) {
            continue;
        }
        let failed = |source| Error::Setup {
            action: format!("listen on {} for port {}", one.host, one.guest_port),
            source,
        };
        let listener = match TcpListener::bind(one.host) {
            // A host without IPv6: the other half of the twins.
            Err(error) if one.host.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !is_taken(&error) => {
                let other = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), one.host.port());
                if !publish.iter().any(|one| one.host == other) {
                    return Err(failed(error));
                }
                TcpListener::bind(other)
            }
            bound => bound,
        };
        let kind = SocketKind::Listener(listener.map_err(failed)?);
        sockets.push((one.guest_port, Socket { kind, flags: 0 }));
    }
    Ok(sockets)
}

/// Whether a port on all of the host's IPv4 addresses is on all IPv6 ones as well: one socket serves both.
fn has_twin(publish: &[Publish], one: &Publish) -> bool {
    let twin = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), one.host.port());
    cfg!(unix)
        && one.host.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        && publish.iter().any(|other| {
            (other.protocol, other.guest_port, other.host) == (Protocol::Tcp, one.guest_port, twin)
        })
}

fn is_taken(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied)
}

fn socket(state: &mut State, fd: u32) -> std::result::Result<&mut Socket, Code> {
    match state.fds.get(fd)? {
        Fd::Socket(socket) => Ok(socket),
        _ => Err(Code::NOTSOCK),
    }
}

pub(super) fn accept(state: &mut State, guest: &mut Guest<'_>, fd: u32, flags: u32, out: u32) -> Answer {
    // Before a connection is taken that could not be told the guest.
    guest.u32(out)?;
    let SocketKind::Listener(listener) = &socket(state, fd)?.kind else { return Err(Code::INVAL) };
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            // It has gone again while it waited.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut accepted = Socket { kind: SocketKind::Stream(stream), flags: 0 };
    accepted.set_flags(u16::try_from(flags).map_err(|_| Code::INVAL)?)?;
    let number = state.fds.insert(Fd::Socket(accepted))?;
    guest.put_u32(out, number)
}

pub(super) fn recv(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    data: u32,
    count: u32,
    flags: u32,
    out: u32,
    out_flags: u32,
) -> Answer {
    if flags & !(RECV_PEEK | RECV_WAITALL) != 0 {
        return Err(Code::INVAL);
    }
    guest.u32(out)?;
    guest.bytes(out_flags, 2)?;
    let socket = socket(state, fd)?;
    let stream = socket.stream()?;
    let received = guest.targets(data, count, |targets| match flags {
        0 => socket.read(targets),
        RECV_WAITALL => all(stream, targets),
        // Of what is there, what fits into the first buffer.
        _ => targets.first_mut().map_or(Ok(0), |target| Ok(stream.peek(target)?)),
    })?;
    // Nothing of a stream is ever cut off.
    guest.put(out_flags, &[0, 0])?;
    guest.put_count(out, received)
}

/// Fills the buffers, unless the stream ends or, where it does not block, has no more.
fn all(mut stream: &TcpStream, targets: &mut [IoSliceMut<'_>]) -> std::result::Result<usize, Code> {
    let mut total = 0;
    for target in targets {
        let mut rest = &mut **target;
        while !rest.is_empty() {
            match stream.read(rest) {
                Ok(0) => return Ok(total),
                Ok(read) => {
                    total += read;
                    rest = &mut rest[read..];
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) if total > 0 => return Ok(total),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(total)
}

pub(super) fn send(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    data: u32,
    count: u32,
    flags: u32,
    out: u32,
) -> Answer {
    if flags != 0 {
        return Err(Code::INVAL);
    }
    guest.u32(out)?;
    let socket = socket(state, fd)?;
    let sent = guest.sources(data, count, |sources| socket.write(sources))?;
    guest.put_count(out, sent)
}

pub(super) fn shutdown(state: &mut State, _: &mut Guest<'_>, fd: u32, how: u32) -> Answer {
    let stream = socket(state, fd)?.stream()?;
    let how = match how {
        SHUT_READ => Shutdown::Read,
        SHUT_WRITE => Shutdown::Write,
        3 => Shutdown::Both,
        _ => return Err(Code::INVAL),
    };
    Ok(stream.shutdown(how)?)
}
