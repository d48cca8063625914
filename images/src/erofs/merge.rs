//! One layer on top of those below it, with the meaning that the kernel's overlay gives to whiteouts and opaque
//! directories.

use super::tree::Content;
use super::tree::Node;
use super::tree::ROOT;
use super::tree::Tree;
use super::tree::number;

/// Puts a layer on top. `lower` has no whiteouts, and has none afterwards. The layer's files get its number.
pub(super) fn overlay(lower: &mut Tree, mut upper: Tree, layer: u16) {
    for leaf in &mut upper.leaves {
        if let Content::File { device, .. } = &mut leaf.content {
            *device = layer;
        }
    }
    let (dirs, leaves) = (number(lower.dirs.len()), number(lower.leaves.len()));
    // Without an entry for the root a layer says nothing about it.
    if !upper.has_root {
        upper.dir_mut(ROOT).attributes = lower.dir(ROOT).attributes.clone();
    }
    lower.has_root |= upper.has_root;
    lower.dirs.append(&mut upper.dirs);
    lower.leaves.append(&mut upper.leaves);
    // Pairs of a directory below, if there is one, and the layer's.
    let mut todo = vec![(Some(ROOT), dirs)];
    while let Some((below, above)) = todo.pop() {
        let above_dir = lower.dir_mut(above);
        let entries = std::mem::take(&mut above_dir.entries);
        let into = match below {
            None => above,
            Some(below) => {
                let attributes = std::mem::take(&mut above_dir.attributes);
                let opaque = above_dir.opaque;
                let target = lower.dir_mut(below);
                target.attributes = attributes;
                if opaque {
                    target.entries.clear();
                }
                below
            }
        };
        for (name, node) in entries {
            let found = lower.get(into, &name);
            let new = match node {
                Node::Whiteout => {
                    lower.dir_mut(into).entries.remove(&name);
                    continue;
                }
                Node::Leaf(id) => Node::Leaf(id + leaves),
                Node::Dir(id) => {
                    let id = id + dirs;
                    if let Some(Node::Dir(found)) = found {
                        todo.push((Some(found), id));
                        continue;
                    }
                    todo.push((None, id));
                    Node::Dir(id)
                }
            };
            lower.dir_mut(into).entries.insert(name, new);
        }
    }
}
