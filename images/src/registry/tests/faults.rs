//! One fault at a time, and what a pull says about it.

use super::*;

#[test]
fn wrong_content_is_refused() {
    type Break = fn(&Content, &mut HashMap<String, Reply>);
    let cases: Vec<(&str, Break)> = vec![
        ("content has digest", |c, p| p.get_mut(&c.layer_path()).unwrap().body[5000] ^= 1),
        ("content has digest", |c, p| {
            let manifest = p.get_mut(&format!("/v2/app/manifests/{}", c.manifest)).unwrap();
            let at = manifest.body.len() - 5;
            manifest.body[at] ^= 1;
        }),
        ("bytes, not", |c, p| p.get_mut(&c.layer_path()).unwrap().body.push(0)),
        ("bytes, not", |c, p| p.get_mut(&c.layer_path()).unwrap().body.truncate(1000)),
        ("unexpected media type \"text/html\"", |_, p| {
            p.insert(
                "/v2/app/manifests/1".into(),
                Reply::new(200).header("Content-Type", "text/html").body("<html>"),
            );
        }),
        ("schema 1", |_, p| {
            let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
            p.insert("/v2/app/manifests/1".into(), Reply::new(200).header("Content-Type", old).body("{}"));
        }),
        ("not a valid index", |_, p| p.get_mut("/v2/app/manifests/1").unwrap().body.truncate(50)),
        ("unexpected media type", |_, p| {
            p.get_mut("/v2/app/manifests/1").unwrap().headers =
                vec![("Content-Type", media::MANIFEST.into())];
        }),
        ("larger than 4 MiB", |_, p| p.get_mut("/v2/app/manifests/1").unwrap().body.resize(5 << 20, b' ')),
        ("cut off", |_, p| p.get_mut("/v2/app/manifests/1").unwrap().cut = Some(20)),
        ("manifest unknown", |_, p| drop(p.remove("/v2/app/manifests/1"))),
        ("404", |c, p| drop(p.remove(&c.layer_path()))),
        ("500", |c, p| drop(p.insert(c.layer_path(), Reply::new(500)))),
        ("too many redirects", |c, p| {
            let path = c.layer_path();
            p.insert(path.clone(), Reply::new(307).header("Location", path));
        }),
        ("refused", |c, p| {
            drop(p.insert(c.layer_path(), Reply::new(307).header("Location", "file:///etc/passwd")));
        }),
        ("refused", |c, p| {
            let metadata = Reply::new(307).header("Location", "http://169.254.169.254/latest/");
            p.insert(c.layer_path(), metadata);
        }),
        ("address refused", |c, p| {
            drop(p.insert(c.layer_path(), Reply::new(307).header("Location", "http://2852039166/latest/")));
        }),
        ("address refused", |c, p| {
            let metadata = Reply::new(307).header("Location", "http://[::ffff:169.254.169.254]/latest/");
            p.insert(c.layer_path(), metadata);
        }),
        ("refused", |c, p| drop(p.insert(c.layer_path(), Reply::new(307)))),
        ("not asked for", |c, p| p.get_mut(&c.layer_path()).unwrap().status = 206),
    ];
    if !cfg!(target_os = "linux") {
        return;
    }
    let honest = content();
    for (expected, damage) in cases {
        let mut content = honest.clone();
        let mut paths = content.paths.clone();
        damage(&content, &mut paths);
        content.paths = paths;
        let error = fails(move |r| content.get(r)).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    for ranges in [true, false] {
        let content = content();
        let path = content.layer_path();
        let breaks = Arc::new(Mutex::new(2));
        let size = content.layer.size;
        let server = Server::start({
            let path = path.clone();
            move |r| {
                let mut reply = content.get(r);
                if r.path != path {
                    return reply;
                }
                if let Some(from) = r.headers.get("range").filter(|_| ranges) {
                    let from: usize =
                        from.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
                    reply.body.drain(..from);
                    reply.status = 206;
                    reply = reply.header("Content-Range", format!("bytes {from}-{}/{size}", size - 1));
                }
                let mut left = breaks.lock().unwrap();
                if *left > 0 {
                    *left -= 1;
                    reply.cut = Some(reply.body.len() / 2);
                }
                reply
            }
        });
        let (_dir, store) = store();
        let all = PullOptions { platforms: Platforms::All, ..options() };
        pull(&store, &server.name(), &all, &NoProgress).unwrap();
        assert_eq!(store.check(false).unwrap(), []);
        assert_eq!(server.requests().iter().filter(|r| r.path == path).count(), 3);
    }
}

#[test]
fn a_length_beyond_all_numbers_is_refused() {
    let content = content();
    let (path, size) = (content.layer_path(), content.layer.size);
    let error = fails(move |r| {
        let mut reply = content.get(r);
        if r.path == path {
            reply.cut = Some(100);
            if r.headers.contains_key("range") {
                reply.status = 206;
                reply = reply
                    .header("Content-Range", format!("bytes 100-{}/{size}", size - 1))
                    .header("Content-Length", u64::MAX.to_string());
            }
        }
        reply
    });
    assert!(matches!(error, Error::SizeMismatch { actual: u64::MAX, .. }), "{error}");
}

#[test]
fn a_registry_that_always_breaks_off_is_given_up() {
    let content = content();
    let path = content.layer_path();
    let error = fails(move |r| {
        let mut reply = content.get(r);
        if r.path == path {
            reply.cut = Some(100);
        }
        reply
    });
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
}

#[test]
fn nobody_there() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_dir, store) = store();
    let name = format!("127.0.0.1:{port}/x").parse().unwrap();
    let error = pull(&store, &name, &options(), &NoProgress).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach registry 127.0.0.1:{port}: connection refused"));
    assert!(error.hint().is_some());
    assert_clean(&store);
}

#[test]
fn busy_registries_are_asked_again() {
    let content = content();
    let refusals = Mutex::new(2);
    let server = Server::start(move |r| {
        let mut left = refusals.lock().unwrap();
        if r.path.contains("manifests/1") && *left > 0 {
            *left -= 1;
            return Reply::new(if *left == 1 { 503 } else { 429 });
        }
        content.get(r)
    });
    let (_dir, store) = store();
    pull(&store, &server.name(), &options(), &NoProgress).unwrap();
}

/// Faults of the transfer itself: what a pull makes of each, by its message, or `None` where it succeeds.
#[test]
fn odd_transfers() {
    type Break = fn(Reply, &Request) -> Reply;
    let gone: Option<Duration> = Some(Duration::from_millis(1500));
    assert!(gone.is_some());
    let cases: Vec<(&str, Option<&str>, Break)> = vec![
        ("in chunks, without a length", None, |r, _| Reply { chunked: true, ..r }),
        ("in chunks, too many bytes", Some("bytes, not"), |mut r, _| {
            r.body.push(0);
            Reply { chunked: true, ..r }
        }),
        ("in chunks, cut off always", Some("bytes, not"), |r, _| Reply {
            chunked: true,
            cut: Some(50_000),
            ..r
        }),
        ("a length that is too long", Some("bytes, not"), |r, _| r.header("Content-Length", "9999999")),
        ("a length that is too short", Some("bytes, not"), |r, _| r.header("Content-Length", "100")),
        ("compressed though not asked for", Some("digest"), |r, _| {
            let mut packed = Vec::new();
            let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::default());
            encoder.write_all(&r.body).unwrap();
            encoder.finish().unwrap();
            packed.resize(r.body.len(), 0);
            Reply { body: packed, ..r }.header("Content-Encoding", "gzip")
        }),
        ("another range than was asked for", Some("another byte"), |r, q| match q.from() {
            Some(_) => r.from(5),
            None => Reply { cut: Some(100_000), ..r },
        }),
        ("ranges that are ignored", None, |r, q| match q.from() {
            Some(_) => r,
            None => Reply { cut: Some(100_000), ..r },
        }),
        ("a range that is not possible", Some("416"), |r, q| match q.from() {
            Some(_) => Reply::new(416),
            None => Reply { cut: Some(100_000), ..r },
        }),
        ("headers without end", Some("cannot reach"), |r, _| r.header("X", "x".repeat(100_000))),
        ("a stalled body", Some("bytes, not"), |r, _| Reply { stall: Some(Duration::from_secs(2)), ..r }),
        ("a body that never ends", Some("bytes, not"), |r, _| Reply {
            trickle: Some(Duration::from_millis(10)),
            ..r
        }),
        ("a head that never ends", Some("no answer in time"), |r, _| Reply {
            drip: Some(Duration::from_millis(100)),
            ..r
        }),
    ];
    let honest = content();
    std::thread::scope(|scope| {
        for (what, expected, damage) in cases {
            let content = honest.clone();
            scope.spawn(move || {
                let path = content.layer_path();
                let server = Server::start(move |r| {
                    let reply = content.get(r);
                    if r.path == path { damage(reply, r) } else { reply }
                });
                let (_dir, store) = store();
                let mut options = PullOptions { platforms: Platforms::All, ..options() };
                options.access.timeout = Duration::from_millis(500);
                let outcome = pull(&store, &server.name(), &options, &NoProgress);
                match (outcome, expected) {
                    (Ok(_), None) => assert_eq!(store.check(true).unwrap(), []),
                    (Err(error), Some(words)) => {
                        assert!(error.to_string().contains(words), "{what}: {error}");
                        assert_clean(&store);
                    }
                    (outcome, _) => panic!("{what}: {outcome:?}"),
                }
            });
        }
    });
}

#[test]
fn a_limit_that_is_used_up_is_not_asked_again() {
    for (reply, asked) in [
        (Reply::new(429).header("ratelimit-remaining", "0;w=21600"), 1),
        (Reply::new(429).header("Retry-After", "3600"), 1),
        (Reply::new(429).header("Retry-After", "0"), 3),
        (Reply::new(429).header("Retry-After", "Fri, 31 Dec 2199 23:59:59 GMT"), 1),
        (Reply::new(429).header("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"), 3),
        (Reply::new(503).header("Retry-After", "soon"), 3),
    ] {
        let limited = reply.status == 429;
        let reply = reply.body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#);
        let content = content();
        let server =
            Server::start(move |r| if r.path.contains("manifests") { reply.clone() } else { content.get(r) });
        let (_dir, store) = store();
        let error = pull(&store, &server.name(), &options(), &NoProgress).unwrap_err();
        assert_eq!(matches!(error, Error::RateLimited { .. }), limited, "{error}");
        assert!(error.to_string().contains("pull rate limit") && error.hint().is_some(), "{error}");
        assert_eq!(server.count("/v2/app/manifests/1"), asked);
    }
}

#[test]
fn lists_of_tags() {
    let pages = |link: &'static str| {
        Server::start(move |r| match r.path.as_str() {
            "/v2/" => Reply::new(200),
            "/v2/app/tags/list?n=1000" => {
                Reply::new(200).header("Link", link).body(r#"{"name":"app","tags":["b","a"]}"#)
            }
            "/v2/app/tags/list?n=1000&last=b" => Reply::new(200).body(r#"{"tags":["c"]}"#),
            "/v2/app/same" => {
                Reply::new(200).header("Link", "</v2/app/same>; rel=\"next\"").body(r#"{"tags":["b"]}"#)
            }
            "/v2/app/null" => Reply::new(200).body(r#"{"tags":null}"#),
            _ => Reply::new(200).body("<html>"),
        })
    };
    let cases = [
        ("</v2/app/tags/list?n=1000&last=b>; rel=\"next\"", Some(vec!["a", "b", "c"])),
        ("<?n=1000&last=b>; rel=next", Some(vec!["a", "b", "c"])),
        ("</v2/app/tags/list?n=1000&last=b>; rel=\"prev\"", Some(vec!["a", "b"])),
        ("</v2/app/same>; rel=\"next\"", Some(vec!["a", "b"])),
        ("</v2/app/null>; rel=\"next\"", Some(vec!["a", "b"])),
        ("v2/app/tags; rel=\"next\"", Some(vec!["a", "b"])),
        ("", Some(vec!["a", "b"])),
        ("</v2/app/odd>; rel=\"next\"", None),
        ("<http://169.254.169.254/>; rel=\"next\"", None),
        ("<//other.example/>; rel=\"next\"", None),
    ];
    for (link, expected) in cases {
        let server = pages(link);
        let (name, access) = (server.name(), options().access);
        let tags = Remote::new(&name, &access).tags();
        match expected {
            Some(expected) => assert_eq!(tags.unwrap(), expected, "{link}"),
            None => assert!(tags.is_err(), "{link}"),
        }
    }
}
