//! One layer on top of those below it, with the meaning that the kernel's overlay gives to whiteouts and opaque
//! directories. Hard links lead to files of layers below where a layer says so: here they stay links.

use std::collections::HashMap;

use super::tree::Content;
use super::tree::Lost;
use super::tree::Node;
use super::tree::ROOT;
use super::tree::Tree;
use super::tree::number;
use crate::layer::Fault;
use crate::layer::extract::split;

/// Puts a layer on top. `lower` has no whiteouts, and has none afterwards. The layer's files get its number.
///
/// # Errors
/// A hard link to something that is in no layer.
pub(super) fn overlay(lower: &mut Tree, mut upper: Tree, layer: u16) -> Result<(), Fault> {
    // What is meant is what there was before this layer, also when the layer hides it.
    let mut borrowed = HashMap::new();
    for (id, leaf) in upper.leaves.iter_mut().enumerate() {
        match &mut leaf.content {
            Content::File { device, .. } => *device = layer,
            Content::Below(target) => {
                // One that was displaced again matters to nobody, but is a fault of the archive all the same.
                borrowed.insert(number(id), find(lower, target).map_err(|fault| fault.at(target))?);
            }
            _ => {}
        }
    }
    let (dirs, leaves) = (number(lower.dirs.len()), number(lower.leaves.len()));
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
                let (opaque, named) = (above_dir.opaque, above_dir.named);
                let target = lower.dir_mut(below);
                // A layer says nothing about a directory that it only has something in.
                if named {
                    target.attributes = attributes;
                }
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
                Node::Leaf(id) => Node::Leaf(borrowed.get(&id).copied().unwrap_or(id + leaves)),
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
    Ok(())
}

/// The file that a path names.
fn find(tree: &Tree, path: &[u8]) -> Result<u32, Fault> {
    let (parent, name) = split(path);
    let found = match tree.find_dir(parent) {
        Err(Lost::Missing | Lost::NotDirectory) => None,
        Err(lost) => return Err(lost.into()),
        Ok(dir) => tree.get(dir, name),
    };
    match found {
        Some(Node::Leaf(id)) => Ok(id),
        Some(Node::Dir(_)) => Err(Fault::bad("hard link to a directory")),
        Some(Node::Whiteout) | None => {
            Err(Fault::bad("hard link to something that is not in this layer and not below it"))
        }
    }
}
