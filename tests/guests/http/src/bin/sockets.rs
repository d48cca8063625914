//! A program for wasi:sockets 0.2: `echo PORT` serves one connection, `connect IP:PORT` greets somebody, `names NAME...`
//! looks names up, `udp PORT` prints one datagram and sends it back, `send IP:PORT TEXT` sends one and prints the answer,
//! `many COUNT` makes sockets until there are no more; `echo6` and `udp6` do so by IPv6. What goes wrong is printed by
//! its name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp::OutgoingDatagram;
use wasip2::sockets::udp_create_socket::create_udp_socket;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["echo", port] => echo(any4(port)),
        ["echo6", port] => echo(any6(port)),
        ["connect", address] => connect(address.parse().expect("an address")),
        ["names", names @ ..] => {
            for name in names {
                println!("{name}: {}", names_of(name).unwrap_or_else(|code| code.name().to_owned()));
            }
            Ok(())
        }
        ["udp", port] => udp(any4(port)),
        ["udp6", port] => udp(any6(port)),
        ["send", address, text] => send(address.parse().expect("an address"), text),
        ["many", count] => many(count.parse().expect("a number")),
        _ => panic!("what?"),
    };
    if let Err(code) = done {
        println!("{}", code.name());
        std::process::exit(1);
    }
}

fn any4(port: &str) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port.parse().expect("a port")).into()
}

fn any6(port: &str) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port.parse().expect("a port")).into()
}

fn family(address: SocketAddr) -> IpAddressFamily {
    if address.is_ipv4() { IpAddressFamily::Ipv4 } else { IpAddressFamily::Ipv6 }
}

fn wasi(address: SocketAddr) -> IpSocketAddress {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) })
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h] = ip.segments();
            let address = (a, b, c, d, e, f, g, h);
            IpSocketAddress::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 })
        }
    }
}

fn shown(address: IpSocketAddress) -> String {
    match address {
        IpSocketAddress::Ipv4(v4) => {
            let (a, b, c, d) = v4.address;
            format!("{a}.{b}.{c}.{d}:{}", v4.port)
        }
        IpSocketAddress::Ipv6(v6) => {
            let (a, b, c, d, e, f, g, h) = v6.address;
            format!("[{}]:{}", Ipv6Addr::new(a, b, c, d, e, f, g, h), v6.port)
        }
    }
}

fn echo(at: SocketAddr) -> Result<(), ErrorCode> {
    let network = instance_network();
    let socket = create_tcp_socket(family(at))?;
    socket.start_bind(&network, wasi(at))?;
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

fn connect(address: SocketAddr) -> Result<(), ErrorCode> {
    let network = instance_network();
    let socket = create_tcp_socket(family(address))?;
    socket.start_connect(&network, wasi(address))?;
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
            Some(IpAddress::Ipv6((a, b, c, d, e, f, g, h))) => {
                all.push(Ipv6Addr::new(a, b, c, d, e, f, g, h).to_string());
            }
            None => return Ok(all.join(" ")),
        }
    }
}

fn udp(at: SocketAddr) -> Result<(), ErrorCode> {
    let network = instance_network();
    let socket = create_udp_socket(family(at))?;
    socket.start_bind(&network, wasi(at))?;
    socket.finish_bind()?;
    println!("bound to {}", shown(socket.local_address()?));
    let (incoming, outgoing) = socket.stream(None)?;
    loop {
        incoming.subscribe().block();
        if let Some(datagram) = incoming.receive(1)?.pop() {
            println!("{}", String::from_utf8_lossy(&datagram.data));
            outgoing.subscribe().block();
            outgoing.check_send()?;
            let back = OutgoingDatagram { data: datagram.data, remote_address: Some(datagram.remote_address) };
            // Who sent it may not be one to send to.
            println!("sent back: {}", outgoing.send(&[back]).is_ok_and(|sent| sent == 1));
            return Ok(());
        }
    }
}

fn send(address: SocketAddr, text: &str) -> Result<(), ErrorCode> {
    let network = instance_network();
    let socket = create_udp_socket(family(address))?;
    let any = if address.is_ipv4() { any4("0") } else { any6("0") };
    socket.start_bind(&network, wasi(any))?;
    socket.finish_bind()?;
    let (incoming, outgoing) = socket.stream(Some(wasi(address)))?;
    outgoing.subscribe().block();
    outgoing.check_send()?;
    outgoing.send(&[OutgoingDatagram { data: text.as_bytes().to_vec(), remote_address: None }])?;
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
