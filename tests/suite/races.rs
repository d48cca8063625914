//! Processes that do the opposite of each other on one store, at the same time and again and again: each succeeds or
//! says that the image is not there, and the store is sound in the end.

use std::thread;

use crate::support::{Host, Image, Registry, Run, Tree, busybox};

const ROUNDS: usize = 12;

/// Runs all of this at once.
fn at_once<'a>(works: impl IntoIterator<Item = Box<dyn FnOnce() + Send + 'a>>) {
    thread::scope(|scope| {
        for work in works {
            scope.spawn(work);
        }
    });
}

/// It works, or another process was faster and has removed the image.
fn done_or_gone(run: Run, code: i32) {
    let outcome = run.outcome();
    if outcome.code != 0 {
        assert_eq!(outcome.code, code, "{outcome:#?}");
        outcome.is_rejection("o such image");
    }
}

#[test]
fn one_pulls_what_another_removes() {
    let registry = Registry::start();
    let image = |own: &str| {
        let shared = Tree::new().file("shared", 0o644, vec![b's'; 50_000]);
        Image::native().layer(shared).layer(Tree::new().file("own", 0o644, own))
    };
    // Two images of one layer, and each is pulled and removed by two.
    let names = ["one:1", "two:1"].map(|name| registry.push(name, &image(name)));
    let host = Host::new();
    at_once((0..4).map(|n| {
        let (host, name) = (&host, &names[n % 2]);
        Box::new(move || {
            for _ in 0..ROUNDS {
                let pull = host.dhow(["pull", "-q", name]).outcome();
                assert_eq!((pull.code, pull.stderr.as_str()), (0, ""), "{pull:#?}");
                done_or_gone(host.dhow(["rmi", name]), 1);
            }
        }) as Box<dyn FnOnce() + Send>
    }));
    host.check();
    for name in &names {
        host.dhow(["pull", "-q", name]).ok();
        host.dhow(["rmi", name]).ok();
    }
    assert_eq!(host.dhow(["images", "-aq"]).ok(), "");
    host.check();
}

#[test]
fn containers_start_while_everything_unused_is_pruned() {
    let registry = Registry::start();
    let name = registry.push("it:1", &busybox());
    let host = Host::with_busybox();
    let prune = |args: &'static [&'static str]| {
        let host = &host;
        Box::new(move || {
            for _ in 0..ROUNDS {
                let outcome = host.dhow(args).outcome();
                assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:#?}");
            }
        }) as Box<dyn FnOnce() + Send>
    };
    let run = |image: &'static str| {
        let host = &host;
        Box::new(move || {
            for _ in 0..ROUNDS {
                assert_eq!(host.dhow(["run", "--rm", image, "echo", "here"]).ok(), "here\n");
            }
        }) as Box<dyn FnOnce() + Send>
    };
    // An image that has a name is not unused for these.
    at_once([
        prune(&["image", "prune", "-f"]),
        prune(&["system", "prune", "-f"]),
        run("busybox:1"),
        run("busybox:1"),
    ]);
    host.check();
    // It is for these while no container has it: it may go between the pull and the start, and is pulled again.
    let name = &name;
    let host = &host;
    at_once([
        prune(&["image", "prune", "-af"]),
        Box::new(move || {
            for _ in 0..ROUNDS {
                let outcome = host.dhow(["run", "--rm", name, "echo", "here"]).outcome();
                assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "here\n"), "{outcome:#?}");
            }
        }),
    ]);
    host.has_no_container();
    host.check();
    assert_eq!(host.dhow(["run", "--rm", name, "echo", "here"]).outcome().stdout, "here\n");
}

#[test]
fn eight_name_and_unname_the_same() {
    let host = Host::with(&[("it:1", Image::native().layer(Tree::new().file("x", 0o644, "x")))]);
    at_once((0..8).map(|n| {
        let host = &host;
        Box::new(move || {
            for round in 0..ROUNDS {
                let name = format!("shared:{}", (n + round) % 3);
                host.dhow(["tag", "it:1", &name]).ok();
                done_or_gone(host.dhow(["rmi", &name]), 1);
                let own = format!("own{n}:{round}");
                host.dhow(["tag", "it:1", &own]).ok();
                assert_eq!(host.dhow(["rmi", &own]).ok(), format!("Untagged: {own}\n"));
            }
        }) as Box<dyn FnOnce() + Send>
    }));
    host.check();
    let names = host.dhow(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    assert!(names.lines().any(|name| name == "it:1"), "{names}");
    assert!(!names.contains("own"), "{names}");
}
