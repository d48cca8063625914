//! Merging and comparing, on layers of a few files.

use std::collections::BTreeMap;

use super::*;
use crate::compose::ImageBuilder;
use crate::compose::LayerBuilder;
use crate::layer::commit::put_layer;
use crate::layer::tar::tests::end;
use crate::layer::tar::tests::raw;
use crate::media::Compression;
use crate::store::session::Session;
use crate::store::tests::store;
use crate::{Descriptor, Matcher};

fn image(store: &Store, layers: Vec<LayerBuilder>) -> Image {
    let mut builder = ImageBuilder::new(&"linux/amd64".parse().unwrap());
    for layer in layers {
        builder.layer(layer);
    }
    store.image(&builder.build(store).unwrap(), &Matcher::only(&"linux/amd64".parse().unwrap())).unwrap()
}

fn layer(build: impl Fn(&mut LayerBuilder) -> &mut LayerBuilder) -> LayerBuilder {
    let mut layer = LayerBuilder::new();
    build(&mut layer);
    layer
}

#[test]
fn each_layer_is_accounted_for() {
    let (_dir, store) = store();
    let image = image(
        &store,
        vec![
            layer(|l| l.file("etc/a", 0o644, "12345").file("etc/b", 0o644, "x").file("big", 0o644, [7; 100])),
            layer(|l| l.file("etc/a", 0o600, "678").whiteout("big").file("new/c", 0o644, "yz")),
            layer(|l| l.file("etc/.wh..wh..opq", 0, "").file("etc/b", 0o644, "xx")),
        ],
    );
    let tree = store.tree(&image, 2).unwrap();
    let names: Vec<String> = tree.nodes().map(|(name, _)| name).collect();
    assert_eq!(names, ["/etc", "/etc/b", "/new", "/new/c"]);
    let numbers =
        |layer: &LayerReport| (layer.added, layer.replaced, layer.deleted, layer.size, layer.wasted);
    let all: Vec<_> = tree.layers.iter().map(numbers).collect();
    assert_eq!(all, [(4, 0, 0, 106, 106), (2, 1, 1, 5, 3), (0, 1, 1, 2, 0)]);
    let large = |path: &str, size, visible| LargeFile { path: path.to_owned(), size, visible };
    assert_eq!(tree.layers[0].largest, [large("/big", 100, false), large("/etc/a", 5, false)]);
    assert_eq!(tree.layers[1].largest[1], large("/new/c", 2, true));
    assert!(tree.layers[0].uncompressed >= 3 * 1024 && tree.layers[0].compressed > 0);
}

#[test]
fn differences_say_what_differs() {
    let (_dir, store) = store();
    let base = layer(|l| l.file("same", 0o644, "s").file("a", 0o644, "12").dir("d", 0o755).symlink("l", "a"));
    let a = image(&store, vec![base.clone(), layer(|l| l.file("gone", 0o644, ""))]);
    let top = layer(|l| {
        l.file("a", 0o600, "21")
            .file("d", 0o644, "")
            .symlink("l", "b")
            .file("new", 0o644, "")
            .file("same", 0o644, "s")
    });
    let b = image(&store, vec![base, top]);
    let changes: BTreeMap<String, (ChangeKind, Vec<Aspect>)> =
        store.compare(&a, &b, false).unwrap().into_iter().map(|c| (c.path, (c.kind, c.aspects))).collect();
    let expected = [
        ("/a", (ChangeKind::Changed, vec![Aspect::Mode, Aspect::Content])),
        ("/d", (ChangeKind::Changed, vec![Aspect::Type])),
        ("/gone", (ChangeKind::Removed, vec![])),
        ("/l", (ChangeKind::Changed, vec![Aspect::Target])),
        ("/new", (ChangeKind::Added, vec![])),
    ];
    assert_eq!(changes, expected.into_iter().map(|(path, change)| (path.to_owned(), change)).collect());
    assert_eq!(store.compare(&a, &a, true).unwrap(), []);
}

#[test]
fn links_are_followed_and_hard_links_are_one_file() {
    let (_dir, store) = store();
    let session = Session::new(&store).unwrap();
    let entry = |flag, name: &str, link: &str, content: &str| {
        raw(flag, name.as_bytes(), link.as_bytes(), content.as_bytes(), |_| ())
    };
    let put = |entries: &[Vec<u8>]| {
        let tar = [entries.concat(), end()].concat();
        put_layer(&session, Compression::None, |out| Ok(out.write_all(&tar)?)).unwrap().0
    };
    let below = put(&[
        entry(b'5', "usr/lib", "", ""),
        entry(b'2', "lib", "usr/lib", ""),
        entry(b'2', "loop", "loop", ""),
        entry(b'0', "file", "", "content"),
    ]);
    // No entry for the directories on the way, and a link to a file of the layer below.
    let above = put(&[
        entry(b'0', "lib/x", "", "x"),
        entry(b'1', "second", "file", ""),
        entry(b'0', ".wh.file", "", ""),
        entry(b'0', "loop/x", "", ""),
        entry(b'0', "a/b/c", "", ""),
        entry(b'1', "nowhere", "absent", ""),
    ]);
    let mut image = image(&store, vec![]);
    image.diff_ids = vec![below.diff_id, above.diff_id];
    image.layers = vec![below.blob, above.blob];
    let tree = store.tree(&image, 9).unwrap();
    let names: Vec<String> = tree.nodes().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["/a", "/a/b", "/a/b/c", "/lib", "/loop", "/loop/x", "/second", "/usr", "/usr/lib", "/usr/lib/x"]
    );
    let missing: Descriptor = Descriptor { digest: Digest::of(b"absent"), ..image.layers[0].clone() };
    image.layers[0] = missing;
    assert!(matches!(store.tree(&image, 0), Err(Error::MissingBlob { .. })));
}
