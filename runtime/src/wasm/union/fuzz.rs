//! The fuzz target: operations chosen by bytes on a union of several layers and on the model. What one round wrote is a
//! layer of the next.

use super::Union;
use super::model::Model;
use super::side::{Bytes, Side as _, act, tree};
use crate::bundle::Layer;

/// Layers that are made one over the other.
const ROUNDS: usize = 4;
/// Operations on each.
const STEPS: u32 = 60;

/// Does what `data` says, and panics where union and model differ.
///
/// # Panics
/// Where they differ, and when the temporary directory cannot be used.
#[expect(clippy::expect_used, reason = "failing is what a fuzz target is for")]
pub(crate) fn fuzz_union(data: &[u8]) {
    let temp = tempfile::tempdir().expect("a directory");
    let (model, mut layers, mut choices) = (Model::new(), Vec::new(), Bytes::new(data));
    for round in 0..ROUNDS {
        let path = temp.path().join(format!("layer{round}"));
        fs_err::create_dir(&path).expect("a directory");
        let union = Union::layered(&path, &layers).expect("a union");
        if round == 0 {
            for dir in ["x", "x/y"] {
                model.mkdir(dir).expect(dir);
                union.mkdir(union.root(), dir).expect(dir);
            }
        }
        // Of a file with two names that is copied up under one of them, a layer has that name only. So links must not
        // be older than one layer.
        choices.links = round + 2 >= ROUNDS;
        for step in 0..STEPS {
            let mut same = choices;
            let ours = act(&union, &mut choices, step);
            assert_eq!(ours, act(&model, &mut same, step), "round {round}: ours, the model's");
        }
        let mut expected = Vec::new();
        tree(&model, ".", &mut expected);
        let later = Union::layered(&path, &layers).expect("a union");
        for union in [union, later] {
            let mut found = Vec::new();
            tree(&union, ".", &mut found);
            assert_eq!(found, expected, "round {round}: the tree left behind");
        }
        layers.push(Layer { path, id: None });
    }
}
