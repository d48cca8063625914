//! A program for wasi:sockets 0.2: `echo PORT` serves one connection, `connect IP:PORT` greets somebody, `names NAME...`
//! looks names up, `udp PORT` answers one datagram, `many COUNT` makes sockets until there are no more. What goes wrong
//! is printed by its name.

use std::net::Ipv4Addr;

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["echo", port] => echo(port.parse().expect("a port")),
        ["connect", address] => connect(address.parse().expect("an address")),
        ["names", names @ ..] => {
            for name in names {
                println!("{name}: {}", names_of(name).unwrap_or_else(|code| code.name().to_owned()));
            }
            Ok(())
        }
        ["udp", port] => udp(port.parse().expect("a port")),
        ["many", count] => many(count.parse().expect("a number")),
        _ => panic!("what?"),
    };
    if let Err(code) = done {
        println!("{}", code.name());
        std::process::exit(1);
    }
}

fn v4(address: Ipv4Addr, port: u16) -> IpSocketAddress {
    let [a, b, c, d] = address.octets();
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) })
}

fn shown(address: IpSocketAddress) -> String {
    match address {
        IpSocketAddress::Ipv4(v4) => {
            let (a, b, c, d) = v4.address;
            format!("{a}.{b}.{c}.{d}:{}", v4.port)
        }
        IpSocketAddress::Ipv6(v6) => format!("{v6:?}"),
    }
}

fn echo(port: u16) -> Result<(), ErrorCode> {
    let network = instance_network();
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&network, v4(Ipv4Addr::UNSPECIFIED, port))?;
    socket.finish_bind()?;
    socket.start_listen()?;
    socket.finish_listen()?;
    println!("listening on {}", shown(socket.local_address()?));
    socket.subscribe().block();
    let (_connection, input, output) = socket.accept()?;
    while let Ok(bytes) = input.blocking_read(4096) {
        if output.blocking_write_and_flush(&bytes).is_err() {
            break;
        }
    }
    println!("over");
    Ok(())
}

fn connect(address: std::net::SocketAddrV4) -> Result<(), ErrorCode> {
    let network = instance_network();
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_connect(&network, v4(*address.ip(), address.port()))?;
    socket.subscribe().block();
    let (input, output) = socket.finish_connect()?;
    output.blocking_write_and_flush(b"hello\n").expect("write");
    let reply = input.blocking_read(100).unwrap_or_default();
    println!("{}", String::from_utf8_lossy(&reply).trim());
    Ok(())
}

fn names_of(name: &str) -> Result<String, ErrorCode> {
    let network = instance_network();
    let stream = resolve_addresses(&network, name)?;
    let mut all = Vec::new();
    loop {
        stream.subscribe().block();
        match stream.resolve_next_address()? {
            Some(IpAddress::Ipv4((a, b, c, d))) => all.push(format!("{a}.{b}.{c}.{d}")),
            Some(IpAddress::Ipv6(_)) => {}
            None => return Ok(all.join(" ")),
        }
    }
}

fn udp(port: u16) -> Result<(), ErrorCode> {
    let network = instance_network();
    let socket = create_udp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&network, v4(Ipv4Addr::UNSPECIFIED, port))?;
    socket.finish_bind()?;
    println!("bound to {}", shown(socket.local_address()?));
    let (incoming, _outgoing) = socket.stream(None)?;
    loop {
        incoming.subscribe().block();
        if let Some(datagram) = incoming.receive(1)?.first() {
            println!("{}", String::from_utf8_lossy(&datagram.data));
            return Ok(());
        }
    }
}

fn many(count: usize) -> Result<(), ErrorCode> {
    let mut all = Vec::new();
    for number in 0..count {
        match create_tcp_socket(IpAddressFamily::Ipv4) {
            Ok(socket) => all.push(socket),
            Err(code) => {
                println!("{} after {}", code.name(), if number > 8 { "some" } else { "none" });
                return Ok(());
            }
        }
    }
    println!("all {count}");
    Ok(())
}
